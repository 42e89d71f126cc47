"""Real footage through a prior that was fitted to the rest of the clip (benchmarks/inverse_problems/fitted_prior.py; weights in tests/data)."""

# ruff: noqa: E402

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks" / "inverse_problems"))

from fitted_prior import load

from fvr.methods.seed_map.optimise import seed_map
from fvr.methods.seed_map.options import SeedMapOptions
from fvr.metrics.fidelity import psnr
from fvr.motion.dis import DisFlow
from fvr.physics import AveragePool, Blur, Degradation, RandomInpaint, TemporalBlur

FIRST, COUNT, SIDE = 112, 4, 128


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """(4, 3, 128, 128), frames that the prior has not seen."""
    av = pytest.importorskip("av")
    path = ROOT / ".." / "shared" / "clips" / "clean_face_512.mp4"
    if not path.is_file():
        pytest.skip("sample clips are not beside the repository")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for n, frame in enumerate(container.decode(video=0)) if FIRST <= n < FIRST + COUNT]
    clip = torch.stack([torch.from_numpy(frame) for frame in frames]).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(clip, (SIDE, SIDE), mode="area")


def restored(truth: Tensor, operator: Degradation, y: Tensor | None = None, **options):
    generator = load(ROOT / "tests" / "data" / "seed_map_face.safetensors", SIDE).generator()
    return seed_map(operator.forward(truth) if y is None else y, operator, generator, SeedMapOptions(**options), flow=DisFlow())


def test_half_of_the_pixels_give_the_picture_back(truth):
    operator = RandomInpaint(0.5, 0)
    known = operator.mask_for(truth)
    y = operator.forward(truth)
    filled = y + (1 - known) * (y.sum((2, 3), keepdim=True) / known.sum())
    result = restored(truth, operator, iterations=150, residual_init=0.3)
    assert (psnr(result.frames, truth) - psnr(filled, truth)).min() > 8
    assert result.unexplained == []


SHAKEN = Blur.motion(9, 0.5, seed=0, boundary="reflect")


@pytest.mark.parametrize(
    ("operator", "iterations", "gain"),
    [(AveragePool(4), 40, 0.4), (SHAKEN, 80, 0.8), (SHAKEN @ TemporalBlur(3, "replicate"), 40, 0.3)],
    ids=["sr x4", "motion", "temporal and motion"],
)
def test_the_other_tasks_gain_over_doing_nothing(truth, operator, iterations, gain):
    """Blur over three frames, as there are three."""
    frames = truth[:3]
    y = operator.forward(frames)
    nothing = y if y.shape == frames.shape else F.interpolate(y, (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
    result = restored(frames, operator, iterations=iterations)
    assert psnr(result.frames, frames).mean() > psnr(nothing, frames).mean() + gain


def test_blur_over_time_is_explained(truth):
    """In so few iterations it does not pass the blurred clip (36.6 dB) yet; what it makes of it leads back to what was seen."""
    result = restored(truth[:3], TemporalBlur(3, "replicate"), iterations=40)
    assert result.unexplained == [] and max(result.residuals) < 8 / 255


def test_a_frame_from_elsewhere_is_not_explained(truth):
    """One frame of the observation turned upside down: a scene that the shared picture cannot follow; its neighbours may be drawn along."""
    operator = AveragePool(4)
    y = operator.forward(truth)
    y[2] = y[2].flip(-2)
    result = restored(truth, operator, y, iterations=100, residual_init=0.3)
    assert 2 in result.unexplained
    assert 0 not in result.unexplained
    assert result.residuals[2] > 5 * max(result.residuals[:2])
