"""Missing pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..base import Degradation, EqualByContent, Size
from ..numerics import cached


class _Masking(Degradation):
    """y = m x with m of zeros and ones: A^T = A, A A^T = A, so A+ = A."""

    hides = True

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask_for(x)

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        self.input_size(y, size)
        return self.forward(y)

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        return self.adjoint(y, size) / (1 + damping)


@dataclass(frozen=True, eq=False)
class Inpaint(EqualByContent, _Masking):
    """y = m x: pixels where the mask is not 0 are known, the others read 0.

    mask: (H, W) for every frame, or (T, 1, H, W) frame by frame; x must have that H, W (and T).

    Raises:
        ValueError: for a mask of another rank, or (on use) frames of another size.
    """

    mask: Tensor

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 and not (self.mask.ndim == 4 and self.mask.shape[1] == 1):
            raise ValueError(f"an inpainting mask is (H, W) or (T, 1, H, W), got {tuple(self.mask.shape)}")
        with torch.inference_mode(False), torch.no_grad():
            mask = self.mask.detach().to("cpu", copy=True) != 0
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "axes", frozenset({"space"} if mask.ndim == 2 else {"space", "time"}))

    @cached_property
    def _identity(self) -> tuple[object, ...]:
        return self.mask.numpy().tobytes(), tuple(self.mask.shape)

    def mask_for(self, x: Tensor) -> Tensor:
        same = x.shape[-2:] == self.mask.shape[-2:]
        timed = self.mask.ndim == 2 or (x.ndim >= 4 and x.shape[-4] == self.mask.shape[0])
        if not (same and timed):
            raise ValueError(
                f"the inpainting mask is {tuple(self.mask.shape)}, which does not fit frames of {tuple(x.shape)}; give a mask of their size"
            )
        return self.mask.to(x)

    def at_frames(self, first: int, count: int) -> Inpaint:
        return self if self.mask.ndim == 2 else Inpaint(self.mask[first : first + count])

    @property
    def noise_gain(self) -> float:
        return self.mask.double().mean().sqrt().item()

    def describe(self) -> str:
        return f"Inpainting, {self.mask.double().mean().item():.0%} of the pixels known"


@dataclass(frozen=True)
class RandomInpaint(_Masking):
    """y = m x with `random_mask` of whatever size the frames have, the same for all channels and frames.

    Raises:
        ValueError: if `keep` is not in 0..1.
    """

    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_keep(self.keep)

    def mask_for(self, x: Tensor) -> Tensor:
        return random_mask((x.shape[-2], x.shape[-1]), self.keep, self.seed).to(x)

    @property
    def noise_gain(self) -> float:
        return self.keep**0.5

    def describe(self) -> str:
        return f"Inpainting, {self.keep:.0%} of the pixels known, seed {self.seed}"


@dataclass(frozen=True)
class BrushStrokes(_Masking):
    """y = m x with the holes of `brush_mask`, the same in all frames. `observe` shows holes in white, as DicFace's inpainting networks see them.

    Raises:
        ValueError: if `share` or `width` is out of range.
    """

    share: float = 0.2
    width: float = 0.06
    seed: int = 0

    def __post_init__(self) -> None:
        _check_brush(self.share, self.width)

    def mask_for(self, x: Tensor) -> Tensor:
        return brush_mask((x.shape[-2], x.shape[-1]), self.share, self.width, self.seed).to(x)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.where(self.mask_for(x) > 0, x, x.new_ones(()))

    @property
    def noise_gain(self) -> float:
        return (1 - self.share) ** 0.5

    def describe(self) -> str:
        return f"Brush strokes over {self.share:.0%} of the picture, seed {self.seed}"


@cached(64)
def brush_mask(size: Size, share: float = 0.2, width: float = 0.06, seed: int = 0) -> Tensor:
    """(H, W) bool, False under free-form strokes that are laid until they hide at least `share` of the picture; shared, not to be written to.

    A stroke wanders: 4 to 12 straight pieces, each 1 to 4 widths long, that turn by up to 80 degrees, with round ends and joints.

    Args:
        width: of the brush, as a share of the shorter side; every stroke is 0.5 to 1.5 times as wide.

    Raises:
        ValueError: if `share` is not in 0..0.9 or `width` not in 0.005..0.5.
    """
    _check_brush(share, width)
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    known = torch.ones(size, dtype=torch.bool)
    rows, cols = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    while 1 - known.double().mean() < share:
        radius = max(uniform(0.25, 0.75) * width * min(size), 0.5)
        y, x, heading = uniform(0, size[0]), uniform(0, size[1]), uniform(0, 2 * math.pi)
        for _ in range(int(uniform(4, 13))):
            length, heading = 2 * radius * uniform(1, 4), heading + math.radians(uniform(-80, 80))
            dy, dx = length * math.sin(heading), length * math.cos(heading)
            along = (((rows - y) * dy + (cols - x) * dx) / length**2).clamp(0, 1)
            known &= (rows - y - along * dy) ** 2 + (cols - x - along * dx) ** 2 > radius**2
            y, x = y + dy, x + dx
    return known


def _check_brush(share: float, width: float) -> None:
    if not 0 <= share <= 0.9:
        raise ValueError(f"strokes hide a share of the picture from 0 to 0.9, got {share}")
    if not 0.005 <= width <= 0.5:
        raise ValueError(f"a brush is 0.005 to 0.5 of the shorter side wide, got {width}")


@cached(16)
def random_mask(size: Size, keep: float = 0.5, seed: int = 0) -> Tensor:
    """(H, W) bool with exactly int(H W keep) pixels known, drawn without replacement; shared, not to be written to.

    Raises:
        ValueError: if `keep` is not in 0..1.
    """
    _check_keep(keep)
    pixels = size[0] * size[1]
    order = torch.randperm(pixels, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(pixels, dtype=torch.bool)
    mask[order[: int(pixels * keep)]] = True
    return mask.reshape(size)


def _check_keep(keep: float) -> None:
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is the share of known pixels, from 0 to 1, got {keep}")
