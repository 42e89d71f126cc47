"""Measure Restoration: called as ComfyUI calls it, through the headless runner, and inside ComfyUI."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from helpers.comfyui_process import in_comfyui, needs_comfyui
from helpers.moving_texture import sliding

from fvr import headless, host
from fvr.demo import moving_portrait
from fvr.evaluation import measured_faces, tracks_in
from fvr.faces import FaceClip, aligned_track, crop_clip, find_tracks, load_detector
from fvr.headless.io import io
from fvr.metrics.evaluate import evaluate
from fvr.nodes import registry
from fvr.nodes.measure import MeasureRestoration
from fvr.physics import H264, AveragePool, GaussianNoise, TemporalBlur

FRAMES = 5


def images(frames):
    return frames.permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def truth():
    return sliding(FRAMES)


@pytest.fixture(scope="module")
def result(truth):
    return F.avg_pool2d(truth, 3, 1, 1, count_include_pad=False)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """No weights, and previews in a folder of the test's own."""
    monkeypatch.setenv("FVR_MODELS", str(tmp_path / "models"))
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path):
        yield tmp_path


def call(**inputs):
    with torch.inference_mode():
        return MeasureRestoration.execute(**inputs)


def test_the_node_says_what_the_engine_says(truth, result):
    operator = GaussianNoise(0.02) @ AveragePool(2)
    observation = operator.forward(truth)
    before = result.clone()
    table, text, drawn, sliced = call(restored=images(result), reference=images(truth), observation=images(observation), degradation=operator).result
    own = evaluate(result, truth, observation, degradation_forward=operator.forward, noise_level=0.02)
    said = json.loads(text)
    assert {key: pytest.approx(value, rel=1e-5) for key, value in own.summary.items()} == said["summary"]
    assert said["about"]["degradation"] == str(operator) and "residual" in table
    assert drawn.ndim == sliced.ndim == 4 and drawn.std() > 0.05
    assert sliced.shape[1] == 3 * (96 + 22)
    assert any("LPIPS was left out" in note for note in said["notes"]) and "LPIPS" in table
    assert torch.equal(result, before)


def test_half_precision_and_alpha_are_taken(truth, result):
    alpha = torch.cat([images(result), torch.ones(FRAMES, 96, 128, 1)], -1).half()
    said = json.loads(call(restored=alpha, reference=images(truth)).result[1])
    assert said["summary"]["psnr"] == pytest.approx(evaluate(result.half().float(), truth).summary["psnr"], abs=0.01)


def test_the_column_is_the_chosen_one(truth):
    sliced = call(restored=images(truth), column=20).result[3][0]
    assert (sliced[22:, 20, 0] > 0.85).all() and (sliced[22:, 20, 1] < 0.2).all()
    middle = call(restored=images(truth)).result[3][0]
    assert (middle[22:, 64, 0] > 0.85).all() and (middle[22:, 64, 1] < 0.2).all()


def test_operators_that_mix_frames_are_known(truth):
    assert (TemporalBlur(3) @ AveragePool(2)).mixes_frames and H264(23).mixes_frames and not (GaussianNoise(0.1) @ AveragePool(2)).mixes_frames
    blur = TemporalBlur(3)
    said = json.loads(call(restored=images(truth), observation=images(blur.forward(truth)), degradation=blur).result[1])
    assert said["summary"]["residual_rms"] == pytest.approx(0, abs=1e-3)


REFUSED = [
    ({"reference": (4, 96, 128)}, "got 5 restored frames and 4 frames of the reference"),
    ({"observation": (6, 48, 64)}, "got 5 restored frames and 6 frames of the observation"),
    ({"reference": (5, 48, 64)}, "restored frames of 128 x 96 and a reference of 64 x 48"),
    ({"observation": (5, 96, 128), "degradation": AveragePool(2)}, r"become \(1, 3, 48, 64\) and the observation is \(1, 3, 96, 128\)"),
    ({"degradation": AveragePool(2)}, "without the observation"),
    ({"column": 128}, "columns 0 to 127, got column 128"),
    ({"faces": [FaceClip(aligned_track(3), torch.zeros(3, 3, 512, 512))]}, "faces were cut from 512 x 512 frames up to frame 2"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(given, sentence, truth):
    inputs = {key: torch.rand(*value, 3) if isinstance(value, tuple) else value for key, value in given.items()}
    with pytest.raises(ValueError, match=sentence) as error:
        call(restored=images(truth), **inputs)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def portrait():
    """A face that moves, five frames (5, 3, 320, 320), and its track."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    frames = moving_portrait(FRAMES)
    (track,) = find_tracks([(0, frames)], load_detector("blazeface"))
    return frames, track


def test_a_detector_measures_the_face_and_its_landmarks(portrait):
    """The reference is the restored clip six pixels to the right, which is what landmarks must say."""
    frames, track = portrait
    moved = frames.roll(6, -1)
    said = json.loads(call(restored=images(frames), reference=images(moved), detector="blazeface").result[1])
    assert said["summary"]["akd"] == pytest.approx(6 * track.scale, rel=0.15)
    assert said["summary"]["tlme"] < 0.3 * said["summary"]["akd"]
    assert said["summary"]["akd_deviation"] < 0.3 * said["summary"]["akd"]
    assert said["about"]["faces"] == 1 and said["per_frame"]["psnr_face"].count(None) == 0
    assert any("embedded face embedding" in note for note in said["notes"])
    sparse = json.loads(call(restored=images(frames), reference=images(moved), detector="blazeface", every=3).result[1])
    assert [value is None for value in sparse["per_frame"]["akd"]] == [False, True, False, False, True]


def test_given_faces_are_measured_on_without_a_detector(portrait):
    """Noise in the background alone: the face is the truth's."""
    frames, track = portrait
    region = measured_faces(frames, None, [FaceClip(track, torch.zeros(FRAMES, 3, 512, 512))], None).region(2)
    damaged = torch.where(region.bool(), frames, 0.5)
    said = json.loads(call(restored=images(damaged), reference=images(frames), faces=[crop_clip(frames, track)]).result[1])
    assert said["summary"]["psnr"] < 25 and said["per_frame"]["psnr_face"][2] == "inf"
    assert "akd" not in said["summary"]
    nobody = json.loads(call(restored=images(damaged), reference=images(frames), faces=[]).result[1])
    assert "psnr_face" not in nobody["summary"] and any("No face was found" in note for note in nobody["notes"])


def test_the_faces_pixels_are_the_ellipse_of_the_face_box(portrait):
    """Eyes, nose and mouth lie inside, the box's corners outside; its area is that of the ellipse."""
    frames, track = portrait
    faces = measured_faces(frames, None, [FaceClip(track, torch.zeros(FRAMES, 3, 512, 512))], None)
    mask = faces.region(1)
    for x, y in track.landmarks[1].round().long().tolist():
        assert mask[y, x] == 1
    assert mask.sum() == pytest.approx(3.14159 / 4 * 263 * 358 / track.scale**2, rel=0.05)
    assert faces.region(99) is None
    assert faces.column(1, 320) == round(float(track.landmarks[1, 0, 0]))


def test_faces_follow_frames_of_another_size_and_crops(portrait):
    track = portrait[1]
    clip = FaceClip(track, torch.zeros(FRAMES, 3, 512, 512))
    (large,), joints = tracks_in([clip], FRAMES, (640, 640))
    placed = large.matrices[0][:, :2] @ large.landmarks[0].mT + large.matrices[0][:, 2:]
    torch.testing.assert_close(placed, track.matrices[0][:, :2] @ track.landmarks[0].mT + track.matrices[0][:, 2:], atol=1e-2, rtol=0)
    assert large.scale == pytest.approx(track.scale / 2, rel=1e-4) and joints == []
    crops, joints = tracks_in([clip, clip], 2 * FRAMES, (512, 512))
    assert [(t.start, t.stop, t.frame_size) for t in crops] == [(0, 5, (512, 512)), (5, 10, (512, 512))] and joints == [5]


def test_two_clips_joined_are_cut_where_they_join(truth):
    other = 1 - sliding(FRAMES, seed=5)
    other = other.roll(40, -1) * torch.tensor([1.0, 0.2, 0.2]).view(3, 1, 1)
    said = json.loads(call(restored=images(torch.cat([truth, other]))).result[1])
    assert [t for t, value in enumerate(said["per_frame"]["flicker"]) if value is None] == [0, FRAMES]


def test_progress_is_told_for_every_frame(truth, monkeypatch):
    ticks = []

    class Bar:
        def __init__(self, total, desc):
            self.total = total

        def __enter__(self):
            return lambda n=1, preview=None: ticks.append((n, self.total))

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(host, "progress", Bar)
    call(restored=images(truth))
    assert ticks == [(1, 3 * FRAMES)] * 3 * FRAMES  # cuts, figures, slices


class Frames(io.ComfyNode):
    """Gives a sliding picture, and the same softened."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestFrames", inputs=[], outputs=[io.Image.Output("sharp"), io.Image.Output("soft")])

    @classmethod
    def execute(cls):
        clip = sliding(FRAMES)
        return io.NodeOutput(images(clip), images(F.avg_pool2d(clip, 3, 1, 1, count_include_pad=False)))


def test_an_api_prompt_leaves_table_json_and_pictures():
    prompt = {
        "1": {"class_type": "TestFrames", "inputs": {}},
        "2": {
            "class_type": "FVRMeasureRestoration",
            "inputs": {"restored": ["1", 1], "reference": ["1", 0], "detector": "off", "column": -1, "every": 2, "motion": "auto", "lpips": "off"},
        },
    }
    done = headless.run_prompt(prompt, registry() | {"TestFrames": Frames})
    (table,), (report,) = done.texts, done.ui["2"]["report"]
    assert report["summary"]["ssim"] < 1 and "| SSIM" in table
    assert done.outputs["2"][0] == table and json.loads(done.outputs["2"][1]) == report
    assert len(done.files) == 2 and all(path.stat().st_size > 1000 for path in done.files)


PROGRAM = """
import json, sys, tempfile, torch
from helpers.moving_texture import sliding
from fvr.nodes.measure import MeasureRestoration
from fvr import host
host.comfy("comfy.model_management")
clip = sliding(4).permute(0, 2, 3, 1)
with tempfile.TemporaryDirectory() as temp, host.workspace(temp=temp), torch.inference_mode():
    out = MeasureRestoration.execute(restored=clip, reference=clip)
    shown = out.ui
print(json.dumps({
    "summary": json.loads(out.result[1])["summary"],
    "text": [part[:9] for part in shown["text"]],
    "report": [json.loads(out.result[1]) == report for report in shown["report"]],
    "images": [sorted(one) for one in shown["images"]],
    "shape": list(out.result[2].shape)[-1],
}))
"""


@needs_comfyui
def test_inside_comfyui_it_says_the_same_and_shows_text_and_pictures():
    said = in_comfyui(PROGRAM)
    clip = sliding(4)
    assert said["summary"]["psnr"] == "inf"
    assert said["summary"]["flicker"] == pytest.approx(evaluate(clip, clip).summary["flicker"], rel=1e-4)
    assert said["text"] == ["| measure"] and said["report"] == [True]
    assert said["images"] == [["filename", "subfolder", "type"]] * 2 and said["shape"] == 3
