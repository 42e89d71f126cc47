"""The nodes that give enlarged frames: a wired upscale model, a job that keeps its scale, and what does not go together."""

from __future__ import annotations

import pytest
import torch
from helpers.small_film import Remembering, make_film

from fvr import host
from fvr.faces.compositing.enlarge import enlarged
from fvr.nodes.faces import PasteBack
from fvr.nodes.frames import RestoreFrames
from fvr.nodes.restore import RestoreVideo
from fvr.video import probe, read_frames


@pytest.fixture
def upscale_model():
    """What ComfyUI's loader gives for a small network of 2x with random weights."""
    spandrel = pytest.importorskip("spandrel")
    compact = pytest.importorskip("spandrel.architectures.Compact").Compact
    torch.manual_seed(0)
    return spandrel.ModelLoader("cpu").load_from_state_dict(compact(num_in_ch=3, num_out_ch=3, num_feat=4, num_conv=1, upscale=2).state_dict())


@pytest.fixture
def frames():
    """(2, 49, 64, 3) of nothing like a face."""
    return torch.linspace(0, 1, 64).expand(2, 49, 64)[..., None].repeat(1, 1, 1, 3).contiguous()


def test_a_wired_upscale_model_enlarges(upscale_model, frames, tmp_path):
    with host.workspace(temp=tmp_path):
        by_model, mask = PasteBack.execute(frames, [], scale=2, upscale_model=upscale_model).result
        by_lanczos, report = RestoreFrames.execute(frames, restorer=Remembering(), scale=3).result
        as_it_is, _ = RestoreFrames.execute(frames, restorer=Remembering()).result
        with pytest.raises(ValueError, match="an upscale model enlarges frames, and scale is 1"):
            PasteBack.execute(frames, [], upscale_model=upscale_model)
    with torch.inference_mode():
        expected = torch.cat([upscale_model(frame.movedim(-1, 0)[None]) for frame in frames]).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(by_model, expected, rtol=0, atol=1e-6)
    assert tuple(mask.shape) == (2, 98, 128) and not mask.any()
    assert torch.equal(by_lanczos, enlarged(frames.movedim(-1, 1), 3).movedim(1, -1)) and "no face: 2" in report
    assert torch.equal(as_it_is, frames)


def test_a_job_of_restore_video_keeps_its_scale(upscale_model, tmp_path):
    make_film(tmp_path / "in.mp4", (3, 3))
    given = dict(restorer=Remembering(), file="in.mp4", job="film", codec="ffv1")
    with host.workspace(input=tmp_path, output=tmp_path / "out", temp=tmp_path):
        RestoreVideo.execute(**given, scale=2)
        (film,) = (tmp_path / "out").glob("video/*.mkv")
        before, after = probe(tmp_path / "in.mp4"), probe(film)
        assert (after.width, after.height) == (2 * before.width, 2 * before.height) and len(read_frames(film)[0]) == 6
        with pytest.raises(ValueError, match=r"was planned with pasting\.scale 2, got 3"):
            RestoreVideo.execute(**given, scale=3)
        with pytest.raises(ValueError, match=r"was planned with pasting\.upscaler none, got RealESRGAN Compact 2x"):
            RestoreVideo.execute(**given, scale=2, upscale_model=upscale_model)
        with pytest.raises(ValueError, match="aligned frames come out at 512 x 512, and scale is 2"):
            RestoreVideo.execute(**{**given, "job": ""}, scale=2, aligned=True)
