"""Blur kernels: (kh, kw) float64 weights that sum to 1, as correlations (tap i is read at position i).

Lengths are in pixels of the grid the kernel is applied to, angles in degrees counter-clockwise from the horizontal axis as seen on screen.
An `even` kernel has its centre between pixels, which is where the centre of an even block of pixels lies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .bicubic import cubic


def gaussian_kernel(sigma_x: float, sigma_y: float | None = None, angle: float = 0.0, *, even: bool = False) -> Tensor:
    """exp(-p^T S^-1 p / 2) with standard deviations sigma_x along `angle` and sigma_y across it, cut at four of the larger.

    Raises:
        ValueError: for a sigma that is not positive.
    """
    sigma_y = sigma_x if sigma_y is None else sigma_y
    if not (sigma_x > 0 and sigma_y > 0):
        raise ValueError(f"a Gaussian kernel needs positive standard deviations in pixels, got {sigma_x} and {sigma_y}")
    turn = math.radians(angle)
    along, across = (math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn))
    reach = [math.ceil(4 * math.hypot(sigma_x * along[i], sigma_y * across[i])) for i in (0, 1)]
    if sigma_x == sigma_y or angle == 0:
        return _gaussian(reach[1], sigma_y, even)[:, None] * _gaussian(reach[0], sigma_x, even)
    x, y = (_positions(reach[i], even) for i in (0, 1))
    u = x * along[0] + y[:, None] * along[1]
    v = x * across[0] + y[:, None] * across[1]
    weights = torch.exp(-0.5 * ((u / sigma_x).square() + (v / sigma_y).square()))
    return weights / weights.sum()


def line_kernel(length: float, angle: float = 0.0, *, even: bool = False) -> Tensor:
    """Uniform motion over `length` pixels along `angle`. Raises ValueError for a length that is not positive."""
    if not length > 0:
        raise ValueError(f"a motion line needs a positive length in pixels, got {length}")
    turn = math.radians(angle)
    steps = max(2, round(32 * length))
    along = ((torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5) * length
    path = torch.stack((-math.sin(turn) * along, math.cos(turn) * along), 1)
    side = 2 * math.ceil(length / 2 + 0.5) + (0 if even else 1)
    return _splat(path, side)


def motion_kernel(size: int = 33, strength: float = 0.5, seed: int = 0, *, even: bool = False) -> Tensor:
    """A random hand-shake path that fits a `size` x `size` kernel (one larger for an even kernel), centred on its mean.

    A point moves at a speed that varies smoothly along a heading that wanders; `strength` from 0 (a straight line) to 1 (curls and
    reversals) is how far. The same size, strength and seed give the same kernel on every machine.

    Raises:
        ValueError: for an even or too small size, or a strength outside 0..1.
    """
    if size % 2 == 0 or size < 3:
        raise ValueError(f"a motion kernel has an odd size of at least 3 pixels, got {size}")
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength of a motion kernel is from 0 to 1, got {strength}")
    steps = 48 * size
    generator = torch.Generator().manual_seed(seed)
    start = 2 * math.pi * torch.rand(1, generator=generator, dtype=torch.float64)
    heading = start + 1.5 * math.pi * strength * _smooth_noise(steps, generator)
    speed = torch.exp(0.8 * strength * _smooth_noise(steps, generator))
    path = torch.cumsum(torch.stack((heading.sin(), heading.cos()), 1) * speed[:, None], 0)
    path = path - path.mean(0)
    reach = (size - 1) / 2 - 1
    path = path * (0.8 * reach / path.abs().max())
    return _splat(path, size + 1 if even else size)


def rescale_kernel(kernel: Tensor, scale: float, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """The kernel on a grid with `scale` new pixels per old one, of odd size. Every tap becomes Keys' cubic as wide as its pixel (at least a
    new one); as that cubic has neither mean nor variance, the kernel's mean and covariance scale exactly.

    shift: rows and columns, in old pixels, by which the kernel's middle lies past the point it is read for.
    """
    return _resample(kernel.shape[0], scale, shift[0]) @ kernel.double() @ _resample(kernel.shape[1], scale, shift[1]).mT


def bicubic_kernel(factor: int) -> Tensor:
    """The (4 factor or 4 factor - 1)^2 footprint of antialiased bicubic decimation by `factor`, centred as its parity says."""
    taps = cubic(_positions(2 * factor - factor % 2, factor % 2 == 0) / factor)
    weights = taps / taps.sum()
    return weights[:, None] * weights


def box_kernel(width: float, *, even: bool = False) -> Tensor:
    """The footprint of a square pixel `width` wide, exact at fractional widths."""
    at = _positions(math.ceil(width / 2 + 0.5), even)
    taps = ((at + 0.5).clamp(max=width / 2) - (at - 0.5).clamp(min=-width / 2)).clamp(min=0)
    weights = taps / taps.sum()
    return weights[:, None] * weights


def convolve_kernels(first: Tensor, second: Tensor) -> Tensor:
    """One kernel for both blurs; centres of equal parity add to an odd size, of unequal parity to an even one."""
    flipped = second.double().flip(0, 1)[None, None]
    pads = (second.shape[1] - 1,) * 2 + (second.shape[0] - 1,) * 2
    return torch.nn.functional.conv2d(torch.nn.functional.pad(first.double()[None, None], pads), flipped)[0, 0]


def trim_kernel(kernel: Tensor) -> Tensor:
    """Drops rows and columns in pairs from the ends while all they hold is below a millionth of the largest tap."""
    limit = 1e-6 * kernel.abs().max()
    while kernel.shape[0] > 2 and bool((kernel[[0, -1]].abs() < limit).all()):
        kernel = kernel[1:-1]
    while kernel.shape[1] > 2 and bool((kernel[:, [0, -1]].abs() < limit).all()):
        kernel = kernel[:, 1:-1]
    return kernel / kernel.sum()


def _positions(reach: int, even: bool) -> Tensor:
    """Pixel centres around 0: -reach..reach, or the half-integers within `reach`."""
    if even:
        return torch.arange(-reach, reach, dtype=torch.float64) + 0.5
    return torch.arange(-reach, reach + 1, dtype=torch.float64)


def _gaussian(reach: int, sigma: float, even: bool) -> Tensor:
    weights = torch.softmax(-0.5 * (_positions(reach, even) / sigma).square(), 0)
    return (weights + weights.flip(0)) / 2


def _smooth_noise(steps: int, generator: torch.Generator) -> Tensor:
    """A smooth random curve of unit size: a sum of slow sines with random phases and falling amplitudes."""
    time = torch.linspace(0, 2 * math.pi, steps, dtype=torch.float64)
    total = torch.zeros(steps, dtype=torch.float64)
    for rate in (0.5, 1.0, 1.7, 2.6, 4.1):
        amplitude, phase = torch.randn(1, generator=generator, dtype=torch.float64), torch.rand(1, generator=generator, dtype=torch.float64)
        total += amplitude / rate * torch.sin(rate * time + 2 * math.pi * phase)
    return total / 2


def _splat(path: Tensor, side: int) -> Tensor:
    """Bilinear histogram of points (n, 2) as (row, column) offsets from the centre of a side x side grid."""
    at = path + (side - 1) / 2
    grid = torch.zeros(side, side, dtype=torch.float64)
    low = at.floor()
    for row in (0, 1):
        for col in (0, 1):
            corner = low + torch.tensor([row, col], dtype=torch.float64)
            weight = (1 - (at - corner).abs()).clamp(min=0).prod(1)
            inside = corner.long().clamp(0, side - 1)
            grid.index_put_((inside[:, 0], inside[:, 1]), weight, accumulate=True)
    return grid / grid.sum()


def _resample(length: int, scale: float, shift: float) -> Tensor:
    """(new length, length) cubics at the scaled positions of the taps, each summing to 1."""
    width = max(scale, 1.0)
    old = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2 + shift) * scale
    new = _positions(math.ceil(old.abs().max().item() + 2 * width), False)
    bumps = cubic((new[:, None] - old) / width)
    return bumps / bumps.sum(0)
