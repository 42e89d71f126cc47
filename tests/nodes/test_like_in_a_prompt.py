"""A picture of whom to restore, wired or named: that person is cut out, or restored, and the other is left alone, in a prompt as it is queued."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from fvr import headless, host
from fvr.film.checks import check_picture
from fvr.film.job import Job
from fvr.nodes import registry
from fvr.nodes.faces import FaceAlign
from fvr.video import open_source

CLIP = Path(__file__).resolve().parents[2].parent / "shared" / "clips" / "multiface_2people_480x270.mp4"
pytestmark = pytest.mark.skipif(not CLIP.is_file(), reason="needs ../shared/clips")
FRAMES = 6
SIDES = {"left": slice(0, 240), "right": slice(240, 480)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An input folder with the first frames of the clip and a picture of each of its two people from a later frame."""
    place = tmp_path_factory.mktemp("people")
    (place / "clip.mp4").symlink_to(CLIP)
    late = next(iter(open_source(CLIP, start=40, count=1).chunks(1))).frames[0]
    for side, columns in SIDES.items():
        Image.fromarray(late[:, :, columns].permute(1, 2, 0).mul(255).round().byte().numpy()).save(place / f"{side}.png")
    return place


def run(folder, out, prompt, keep=()):
    with host.workspace(input=folder, output=out, temp=out / "temp"):
        return headless.run_prompt(prompt, registry(), keep=list(keep))


@pytest.mark.parametrize("side", SIDES)
def test_face_align_cuts_out_who_is_on_the_picture(folder, tmp_path, side):
    prompt = {
        "1": {"class_type": "FVRLoadVideoFrames", "inputs": {"file": "clip.mp4", "max_frames": FRAMES}},
        "2": {"class_type": "LoadImage", "inputs": {"image": f"{side}.png"}},
        "3": {
            "class_type": "FVRFaceAlign",
            "inputs": {"frames": ["1", 0], "like": ["2", 0], "detector": "blazeface", "faces": "all", "min_size": 0, "smoothing": 2, "max_gap": 10},
        },
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 2]}},
    }
    ((clip,), *_) = run(folder, tmp_path, prompt, keep=["3"]).outputs["3"]
    assert len(clip.crops) == FRAMES
    columns = SIDES[side]
    assert bool(((clip.track.landmarks[..., 0] > columns.start) & (clip.track.landmarks[..., 0] < columns.stop)).all())


LIKE = {"wired": {"like": ["2", 0]}, "named": {"faces": "like:left.png"}, "in a job": {"faces": "like:left.png", "job": "work"}}


def restoring(**whom):
    """Restores the clip with one person chosen."""
    common = {"file": "clip.mp4", "restorer": ["1", 0], "detector": "blazeface", "max_frames": FRAMES, "filename_prefix": "one", "codec": "ffv1"}
    return {
        "1": {"class_type": "FVRLoadFaceRestorer", "inputs": {"model": "auto"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "left.png"}},
        "3": {"class_type": "FVRRestoreVideo", "inputs": {**common, **whom}},
    }


@pytest.mark.parametrize("how", LIKE)
def test_restore_video_restores_who_is_on_the_picture(folder, tmp_path, how):
    (made,) = (file for file in run(folder, tmp_path, restoring(**LIKE[how])).files if file.suffix == ".mkv")
    before, after = (torch.cat([piece.frames for piece in open_source(path, count=FRAMES).chunks(FRAMES)]) for path in (CLIP, made))
    moved = (after - before).abs().mean((0, 1))
    assert float(moved[:, SIDES["left"]].max()) > 0.015 > 0.01 > float(moved[:, SIDES["right"]].max())  # the codec's colours differ by 0.006


def test_a_job_whose_picture_shows_another_now_is_refused_and_goes_on_without_it(folder, tmp_path):
    """Its people were chosen once: neither is somebody else restored in silence, nor is the picture needed when they are known."""
    place = tmp_path / "input"
    shutil.copytree(folder, place)
    prompt = restoring(faces="like:left.png", job="work")
    del prompt["2"]
    run(place, tmp_path, prompt)
    shutil.copy(folder / "right.png", place / "left.png")
    with pytest.raises(Exception, match=r"was planned with another picture in \S*left\.png, .* plan it anew in another folder"):
        run(place, tmp_path, prompt)
    shutil.copy(folder / "left.png", place / "left.png")
    assert run(place, tmp_path, prompt).files
    (place / "left.png").unlink()
    job = Job.load(tmp_path / "work")
    check_picture(job, f"like:{place / 'left.png'}")


def test_face_align_refuses_a_picture_that_is_not_there_before_anything_runs(folder):
    with host.workspace(input=folder):
        assert FaceAlign.validate_inputs(faces="like:left.png") is True
        assert FaceAlign.validate_inputs(faces=None) is True
        assert "'nobody.png' is not in" in FaceAlign.validate_inputs(faces="like:nobody.png")
