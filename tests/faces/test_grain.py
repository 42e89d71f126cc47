"""Grain: a face that a restorer smoothed gets its own back where the frame around it has it, and nothing is added anywhere else."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.film_grain import fine, grainy, robust
from torch import Tensor

from fvr.faces import Paster, align
from fvr.faces.compositing.grain import graininess

CASES = Path(__file__).resolve().parents[2] / ".." / "shared" / "cases"
OFF = Paster(fade=False, grain="off")
AUTO = Paster(fade=False)


@pytest.fixture(scope="module")
def picture(astronaut) -> Tensor:
    """A photograph (3, 384, 512) with a face at (224, 110)."""
    return astronaut[:, :384]


@pytest.fixture
def pasted(picture, track_of):
    """frames -> (off, auto, mask, truth): what pasting the clean face does to each of them."""

    def paste(frames: Tensor):
        track = track_of(len(frames), tuple(frames.shape[-2:]), 2.5, centre=(224.0, 110.0), drift=0.0)
        clean = align(picture.expand(len(frames), -1, -1, -1), track, 0)
        items = [(track, clean, align(frames, track, 0))]
        off, mask = OFF.paste(frames, 0, items)
        return off, AUTO.paste(frames, 0, items)[0], mask, items

    return paste


@pytest.mark.parametrize("soft", [0.0, 0.6])
def test_restored_faces_match_the_grain_of_their_frame(picture, pasted, soft):
    frames = torch.stack([grainy(picture, 7, seed, soft) for seed in range(2)])
    off, auto, mask, _ = pasted(frames)
    for k in range(2):
        inside, far = (mask[k] > 0.95).numpy(), (mask[k] == 0).numpy()
        around = robust(fine(frames[k] - picture)[far])
        assert robust(fine(off[k] - picture)[inside]) < 0.25 * around
        assert 0.6 * around < robust(fine(auto[k] - picture)[inside]) < 1.2 * around
    moved = fine(auto[1] - auto[0])[(mask[0] > 0.95).numpy()]
    assert robust(moved) > 0.6 * robust(fine(frames[1] - frames[0])[(mask[0] == 0).numpy()]), "it moves as the frame's own does"


def test_restored_grain_is_the_frames_own_without_its_structure(picture, pasted):
    """The frame is blurred as well: its edges must not come back with the grain."""
    blurred = torch.from_numpy(cv2.GaussianBlur(picture.permute(1, 2, 0).numpy(), (0, 0), 2)).permute(2, 0, 1)
    frame = grainy(blurred, 6)
    _, auto, mask, _ = pasted(frame[None])
    inside = (mask[0] > 0.95).numpy()
    added, noise, lost = (fine(x)[inside].mean(-1) for x in (auto[0] - picture, frame - blurred, blurred - picture))
    assert np.corrcoef(added, noise)[0, 1] > 0.85
    assert abs(np.corrcoef(added, lost)[0, 1]) < 0.25


def test_grain_strength_follows_brightness(picture, pasted):
    frame = torch.where(picture.mean(0) < 0.4, grainy(picture, 10), grainy(picture, 4))
    off, auto, mask, _ = pasted(frame[None])
    inside, dark = (mask[0] > 0.95).numpy(), (picture.mean(0) < 0.35).numpy()
    bright = (picture.mean(0) > 0.45).numpy()
    added = fine(auto[0] - off[0])
    assert robust(added[inside & dark]) > 1.7 * robust(added[inside & bright])


@pytest.mark.parametrize("damage", ["none", "blur", "jpeg", "low light, compressed"])
def test_clean_and_coded_footage_gets_no_grain(picture, pasted, damage):
    frames = {"none": picture, "blur": picture, "jpeg": grainy(picture, 6), "low light, compressed": grainy(picture, 14)}[damage][None]
    if damage == "blur":
        frames = torch.from_numpy(cv2.GaussianBlur(picture.permute(1, 2, 0).numpy(), (0, 0), 2)).permute(2, 0, 1)[None]
    if damage == "jpeg":
        _, code = cv2.imencode(".jpg", (frames[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])
        frames = torch.from_numpy(cv2.imdecode(code, cv2.IMREAD_COLOR)).permute(2, 0, 1)[None] / 255
    if damage.startswith("low"):
        frames = h264(torch.stack([grainy(picture, 14, seed) for seed in range(4)]), 25)
    off, auto, _, _ = pasted(frames)
    assert torch.equal(off, auto)


def h264(frames: Tensor, crf: int) -> Tensor:
    """Through x264 and back."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = frames.shape[-2], frames.shape[-1], "yuv420p"
        for frame in (frames.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    file.seek(0)
    return torch.stack([torch.from_numpy(f.to_ndarray(format="rgb24")) for f in av.open(file).decode(video=0)]).permute(0, 3, 1, 2).float() / 255


def test_chunks_and_order_make_no_difference(picture, pasted):
    frames = torch.stack([grainy(picture, 7, seed) for seed in range(3)])
    _, auto, _, ((track, crops, before),) = pasted(frames)
    for k in (2, 0, 1):
        one, _ = AUTO.paste(frames[k : k + 1], k, [(track, crops[k : k + 1], before[k : k + 1])])
        assert torch.equal(one[0], auto[k])


def test_nothing_outside_the_mask_changes(picture, pasted):
    frames = grainy(picture, 7)[None]
    _, auto, mask, _ = pasted(frames)
    outside = (mask == 0)[:, None].expand_as(frames)
    assert torch.equal(auto[outside], frames[outside]) and float(auto.min()) >= 0 and float(auto.max()) <= 1


@pytest.mark.parametrize("size", [(1, 1), (15, 40), (16, 16), (33, 47)])
def test_tiny_and_flat_frames_have_no_grain(size):
    assert graininess(torch.rand(3, *size)) == 0 and graininess(torch.full((3, 64, 64), 0.5)) == 0


def test_a_static_noisy_clip_has_no_clean_patch(tmp_path):
    """The case of ../shared/cases: beside the face the fine noise inside the pasted region is that far from it, in every frame alike."""
    case = CASES / "grain_static.mkv"
    if not case.is_file():
        pytest.skip("grain_static.mkv is not beside the repository")
    from fvr.cli import main
    from fvr.faces import find_tracks, load_detector
    from fvr.video import ShotCutDetector, read_frames

    said = {}
    for grain in ("auto", "off"):
        out = tmp_path / f"{grain}.mkv"
        line = ["restore", str(case), str(out), "--method", "flair", "--weights", "none", "--set", "steps=3"]
        assert main([*line, "--codec", "ffv1", "--count", "2", "--grain", grain]) == 0
        said[grain] = read_frames(out)[0]
    before = read_frames(case)[0][:2]
    (track,) = find_tracks([(0, before)], load_detector("blazeface"), ShotCutDetector())
    mask = OFF.paste(before, 0, [(track, align(before, track, 0), None)])[1][0].numpy()
    far = mask == 0
    flat = (mask > 0.95) & (cv2.blur(np.abs(fine(said["off"][0])).mean(-1), (9, 9)) < 1.5)  # beside the face: where the restorer left nothing
    assert flat.sum() > 1000 and far.sum() > 1000
    around = fine(before[0])[far].std()
    assert fine(said["off"][0])[flat].std() < 0.3 * around
    assert fine(said["auto"][0])[flat].std() >= 0.6 * around
    assert (said["auto"][0] - said["auto"][1]).abs().max() < 1 / 255, "a still clip stays still"


def test_described_noise_is_not_restored_as_grain():
    """A degradation with noise says that the noise is damage; the walk of a clip then pastes clean faces."""
    from fvr.methods.flair.sampler import FlairRestorer
    from fvr.physics import parse
    from fvr.pipeline import without_grain_if_denoised
    from fvr.priors.wiener import GaussianPrior

    info = {
        text: without_grain_if_denoised(AUTO, FlairRestorer(GaussianPrior(), parse(text))).grain
        for text in ("gaussian_blur(sigma=2)", "noise(sigma=0.02)")
    }
    assert info == {"gaussian_blur(sigma=2)": "auto", "noise(sigma=0.02)": "off"}
    assert without_grain_if_denoised(AUTO, FlairRestorer(GaussianPrior())).grain == "auto"
    with pytest.raises(ValueError, match="grain is auto or off, got 'on'"):
        Paster(grain="on")
