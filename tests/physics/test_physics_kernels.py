"""Facts of the blur kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fvr.physics import Blur, BrushStrokes, brush_mask
from fvr.physics.linear.kernels import (
    bicubic_kernel,
    box_kernel,
    convolve_kernels,
    gaussian_kernel,
    line_kernel,
    motion_kernel,
    rescale_kernel,
    trim_kernel,
)


def moments(kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (row, column) and covariance around the middle of a kernel."""
    rows, cols = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in kernel.shape)
    points = torch.stack(torch.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 2)
    weights = kernel.reshape(-1, 1) / kernel.sum()
    mean = (weights * points).sum(0)
    return mean, (weights * (points - mean)).mT @ (points - mean)


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda even: gaussian_kernel(1.7, even=even),
        lambda even: gaussian_kernel(3, 1, 25, even=even),
        lambda even: line_kernel(7.5, 60, even=even),
        lambda even: motion_kernel(21, 0.8, 5, even=even),
        lambda even: box_kernel(3.4, even=even),
    ],
    ids=["round", "oval", "line", "motion", "box"],
)
def test_kernels_are_centred_averages(make, even: bool) -> None:
    """Weights are not negative and sum to 1, the sides have the parity asked for, the mean is in the middle."""
    kernel = make(even)
    assert kernel.min() >= 0
    assert_close(kernel.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert all(side % 2 == (0 if even else 1) for side in kernel.shape)
    assert moments(kernel)[0].abs().max() < 0.02


@pytest.mark.parametrize("angle", [0, 30, 90, -45])
def test_oval_gaussian_has_its_covariance(angle: float) -> None:
    """sigma_x along the angle, counter-clockwise on a screen whose rows grow downwards, sigma_y across it."""
    turn = torch.deg2rad(torch.tensor(float(angle), dtype=torch.float64))
    along, across = torch.stack((-turn.sin(), turn.cos())), torch.stack((turn.cos(), turn.sin()))
    expected = 9 * torch.outer(along, along) + 2.25 * torch.outer(across, across)
    assert_close(moments(gaussian_kernel(3, 1.5, angle))[1], expected, atol=0.02, rtol=0)


def test_line_runs_along_its_angle() -> None:
    """A line of length L along a has covariance L^2 / 12 a a^T (plus less than a quarter pixel of antialiasing)."""
    turn = torch.deg2rad(torch.tensor(30.0, dtype=torch.float64))
    along = torch.stack((-turn.sin(), turn.cos()))
    assert_close(moments(line_kernel(20, 30))[1], 400 / 12 * torch.outer(along, along), atol=0.26, rtol=0)


def test_motion_is_seeded_and_bends_with_strength() -> None:
    assert torch.equal(motion_kernel(33, 0.5, 1), motion_kernel(33, 0.5, 1))
    assert not torch.equal(motion_kernel(33, 0.5, 1), motion_kernel(33, 0.5, 2))
    straight, bent = (
        torch.stack([torch.linalg.eigvalsh(moments(motion_kernel(33, strength, seed))[1])[0] for seed in range(8)]).mean() for strength in (0.0, 1.0)
    )
    assert straight < 0.3 < 1 < bent


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5, 4.0])
def test_rescaled_kernels_scale_their_moments(scale: float) -> None:
    """Covariance grows with the square of the scale, and a shift with the scale."""
    kernel = motion_kernel(21, 0.6, 3)
    mean, covariance = moments(rescale_kernel(kernel, scale, (0.5, 0.0)))
    assert_close(mean, torch.tensor([0.5 * scale, 0.0], dtype=torch.float64), atol=0.05, rtol=0)
    assert_close(covariance, scale**2 * moments(kernel)[1], atol=0.05, rtol=0.01)


def test_convolved_kernels_add_their_covariances() -> None:
    first, second = gaussian_kernel(2, 1, 30), bicubic_kernel(4)
    assert_close(moments(convolve_kernels(first, second))[1], moments(first)[1] + moments(second)[1])
    x = torch.rand(40, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, other = motion_kernel(7, 0.5, 1), motion_kernel(5, 0.5, 2)
    both = Blur(convolve_kernels(one, other)).forward(x)[8:-8, 8:-8]
    assert_close(Blur(other).forward(Blur(one).forward(x))[8:-8, 8:-8], both)


def test_trimming_keeps_the_centre() -> None:
    kernel = torch.nn.functional.pad(gaussian_kernel(1, even=True), (5, 5, 2, 2))
    trimmed = trim_kernel(kernel)
    assert max(trimmed.shape) <= 10 and moments(trimmed)[0].abs().max() < 1e-9


@pytest.mark.parametrize(
    "bad",
    [
        lambda: gaussian_kernel(0),
        lambda: line_kernel(-1),
        lambda: motion_kernel(32),
        lambda: motion_kernel(33, 1.5),
        lambda: Blur(torch.zeros(3)),
        lambda: Blur([[float("nan")]]),
        lambda: Blur([[1.0]], factor=0),
        lambda: Blur([[1.0]], boundary="mirror"),  # type: ignore[arg-type]
    ],
)
def test_impossible_kernels_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="got"):
        bad()


@pytest.mark.parametrize(("share", "width"), [(0.05, 0.03), (0.2, 0.06), (0.5, 0.1)])
def test_strokes_hide_what_was_asked(share, width):
    """At least the share and little more, in strokes, not dust; the seed decides."""
    known = brush_mask((96, 128), share, width, seed=3)
    assert share <= 1 - known.double().mean() < share + 0.2
    eroded = 1 - F.max_pool2d(known.float()[None], 3, 1, 1)
    assert eroded.sum() > 0.1 * (~known).sum()
    assert torch.equal(known, brush_mask((96, 128), share, width, seed=3)) and not torch.equal(known, brush_mask((96, 128), share, width, seed=4))
    assert brush_mask((16, 16), 0.0).all()


def test_strokes_are_shown_in_white_and_known_pixels_stay():
    frames = torch.rand(2, 3, 64, 64)
    shown = BrushStrokes(0.3, 0.1, seed=1).observe(frames)
    known = brush_mask((64, 64), 0.3, 0.1, seed=1)
    assert torch.equal(shown[..., known], frames[..., known]) and (shown[..., ~known] == 1).all()


@pytest.mark.parametrize("wrong", [{"share": 1.0}, {"width": 0.0}])
def test_strokes_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=r"strokes hide|a brush is"):
        BrushStrokes(**wrong)
