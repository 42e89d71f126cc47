"""`fvr restore --scale`: what a file says of its picture stays right at the larger size; stills; what does not go together is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.video_helpers import moving
from PIL import Image

from fvr.cli import main
from fvr.faces.compositing.enlarge import enlarged
from fvr.video import ColourTags, FrameTimes, SourceInfo, open_sink, probe, read_frames

PQ = Path(__file__).resolve().parents[2] / ".." / "shared" / "cases" / "pq.mp4"
PLAIN = ["--method", "flair", "--weights", "none", "--set", "steps=2"]


def clip(path, height=45, width=61, **about):
    """Without a face."""
    times = FrameTimes.constant(3, 25)
    with open_sink(path, SourceInfo(str(path), width, height, **about), codec="h264", crf=4, pixel_format="yuv444p") as sink:
        sink.write(moving(3, height, width), times.starts, times.ends)
    return read_frames(path)[0]


def test_an_enlarged_clip_keeps_its_metadata(tmp_path):
    about = dict(rotation=90, sample_aspect=Fraction(4, 3), colour=ColourTags(6, False, 6, 6))
    frames = clip(tmp_path / "in.mp4", **about)
    line = ["restore", str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), "--scale", "3", "--crf", "4", "--pixel-format", "yuv444p", *PLAIN]
    assert main(line) == 0
    before, after = probe(tmp_path / "in.mp4"), probe(tmp_path / "out.mp4")
    assert (after.width, after.height) == (3 * 61, 3 * 45)
    for name in ("rotation", "sample_aspect", "colour", "rate", "frame_estimate", "duration"):
        assert getattr(after, name) == getattr(before, name), name
    error = (read_frames(tmp_path / "out.mp4")[0] - enlarged(frames, 3)).square().mean()
    assert -10 * torch.log10(error) > 40


def test_high_dynamic_range_is_kept(tmp_path):
    if not PQ.is_file():
        pytest.skip("pq.mp4 is not beside the repository")
    encoding = ["--count", "1", "--scale", "2", "--codec", "h265", "--pixel-format", "yuv420p10le"]
    assert main(["restore", str(PQ), str(tmp_path / "out.mp4"), *encoding, *PLAIN]) == 0
    before, after = probe(PQ), probe(tmp_path / "out.mp4")
    assert (after.width, after.height) == (2 * before.width, 2 * before.height)
    assert after.grading == before.grading is not None and after.colour == before.colour


def test_a_still_is_enlarged_by_an_upscale_model(tmp_path, capsys):
    arch = pytest.importorskip("spandrel.architectures.Compact")
    torch.manual_seed(0)
    torch.save(arch.Compact(num_in_ch=3, num_out_ch=3, num_feat=4, num_conv=1, upscale=4).state_dict(), tmp_path / "x4.pth")
    pixels = (moving(1, 33, 47)[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "in.png")
    report = tmp_path / "report.json"
    model = ["--scale", "2", "--upscale-model", str(tmp_path / "x4.pth"), "--report", str(report)]
    assert main(["restore", str(tmp_path / "in.png"), str(tmp_path / "out.png"), *model, *PLAIN]) == 0
    assert tuple(read_frames(tmp_path / "out.png")[0].shape) == (1, 3, 66, 94)
    assert '"file": "x4.pth"' in report.read_text() and '"upscaler": "RealESRGAN Compact 4x ' in report.read_text()
    capsys.readouterr()
    for wrong, said in (
        (["--aligned", "--scale", "2"], "--scale enlarges whole frames, and --aligned gives crops"),
        (["--upscale-model", str(tmp_path / "x4.pth")], "an upscale model enlarges frames, and scale is 1"),
        (["--scale", "2", "--upscale-model", "nowhere.pth"], "--upscale-model nowhere.pth is no file here"),
        (["--scale", "7"], "scale is 1 to 4 times the size of the frames, a whole number, got 7"),
    ):
        assert main(["restore", str(tmp_path / "in.png"), str(tmp_path / "no.png"), *wrong, *PLAIN]) != 0
        assert said in capsys.readouterr().err
        assert not (tmp_path / "no.png").exists()
