"""The degradation interface: y = A x (+ noise), with what a solver needs to invert it.

Notation: A is `forward`, A^T is `adjoint`, A+ is `pinv`. Frames are float tensors (..., H, W), usually (T, 3, H, W); operators are
size-agnostic and act in the range they are given (linear ones in any range; JPEG, H.264 and camera noise expect [0, 1]).
Whatever floating dtype and device comes in goes out; float16 and bfloat16 are computed in float32.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

Size = tuple[int, int]
Axis = Literal["time", "channel", "space"]
OnFrames = Callable[[int], object]
"""Called with the number of frames that have just been finished, 0 while one is in progress; may raise to stop."""
STEP, DRAWN_TOGETHER = 3 << 20, 16
"""About how many values of a clip are processed at a time, and how many normal numbers torch draws at once (ATen's normal_fill)."""


def ignored(frames: int) -> None:
    """An `OnFrames` that does nothing."""


class EqualByContent:
    """Equality and hash of operators that hold a tensor, by `_identity`: the tensor's bytes and all other parameters."""

    _identity: Any

    def __eq__(self, other: object) -> bool:
        return self._identity == getattr(other, "_identity", None)

    def __hash__(self) -> int:
        return hash(self._identity)


class Degradation(ABC):
    """A degradation operator; `A @ B` applies B first.

    Attributes:
        linear: whether `forward` is linear (JPEG and recompression are not).
        noise_level: standard deviation of the noise that `observe` adds, in units of frames in [0, 1].
        factor: how many times smaller each side of y is than x.
        transparent: whether `adjoint` and `pinv` treat the operator as the identity (noise, and what a codec or a camera loses).
        distortion: expected standard deviation of what `forward` of a transparent operator changes, in units of frames in [0, 1].
        hides: whether `forward` only hides pixels (inpainting).
        blurs: whether `forward` is a convolution with one kernel.
        axes: the axes of (T, 3, H, W) along which pixels are mixed; operators on different axes commute.

    >>> from .linear.blur import Blur
    >>> from .linear.bicubic import BicubicDownsample
    >>> operator = BicubicDownsample(2) @ Blur.gaussian(1.5)
    >>> y = operator.forward(torch.rand(1, 3, 32, 32, dtype=torch.float64))
    >>> bool(torch.allclose(operator.forward(operator.pinv(y)), y))
    True
    """

    linear: bool = True
    noise_level: float = 0.0
    factor: int = 1
    transparent: bool = False
    distortion: float = 0.0
    hides: bool = False
    blurs: bool = False
    axes: frozenset[Axis] = frozenset({"space"})

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x, without noise."""

    @abstractmethod
    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        """A^T y. `size` is (H, W) of x; by default `factor` times that of y."""

    @abstractmethod
    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        """A^T (A A^T + damping I)^-1 y; with `damping` 0 this is A+ y, the least-norm x that explains y."""

    def output_size(self, size: Size) -> Size:
        """(H, W) of y for (H, W) of x."""
        return -(-size[0] // self.factor), -(-size[1] // self.factor)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A x plus a sample of the noise this operator models; deterministic for a seeded CPU `generator`."""
        return self.forward(x)

    def observe_in_steps(self, x: Tensor, generator: torch.Generator | None, on_frames: OnFrames) -> Tensor:
        """`observe` of a clip (T, C, H, W), a part at a time where parts do not depend on each other: the same pixels, in less memory.

        `on_frames` hears of T frames for each operator of the `chain`.
        """
        frames, size = len(x), max(1, math.prod(x.shape[1:]))
        if self.axes == {"time"} and self.reach():
            rows = max(1, STEP * x.shape[-2] // max(1, x.numel()))
            parts = []
            for part in x.split(rows, -2):
                parts.append(self.observe(part, generator))
                on_frames(0)
            on_frames(frames)
            return torch.cat(parts, -2)
        together = DRAWN_TOGETHER // math.gcd(DRAWN_TOGETHER, size)
        step = max(1, STEP // size // together) * together
        if self.reach() or frames <= step:
            y = self.observe(x, generator)
            on_frames(frames)
            return y
        parts = []
        for first in range(0, frames, step):
            part = x[first : first + step]
            parts.append(self.at_frames(first, len(part)).observe(part, generator))
            on_frames(len(part))
        return torch.cat(parts)

    def matrices(self, size: Size) -> tuple[Tensor, Tensor] | None:
        """Float64 (rows, cols) with A x = rows x cols^T for x of `size`, or None when A is not separable."""
        return None

    @property
    def noise_gain(self) -> float:
        """The factor by which A scales the standard deviation of white noise in x, away from the border."""
        return 1.0

    @property
    def chain(self) -> tuple[Degradation, ...]:
        """The operators this one is made of, the last applied first in the tuple."""
        return (self,)

    @property
    def mixes_frames(self) -> bool:
        """Whether a frame of y depends on more than its own frame of x, or on its place in the clip."""
        return "time" in self.axes

    def reach(self) -> int:
        """How many frames before and behind its own a frame of y shows; 0 where frames are not mixed.

        >>> from .linear.temporal import TemporalBlur
        >>> TemporalBlur(7).reach()
        3
        """
        return 0

    def at_frames(self, first: int, count: int) -> Degradation:
        """A for frames `first` to `first` + `count` - 1 of the clip: masks given frame by frame are those of these frames."""
        return self

    def on_crop(self, scale: float) -> Degradation:
        """A, without its decimation, on a grid with `scale` pixels per pixel of x: a blur, what leaves space alone, or the identity.

        Raises:
            ValueError: for an operator tied to positions in the frame (inpainting).
        """
        if "space" in self.axes:
            raise ValueError(
                f"{self.describe()} is tied to the pixels of whole frames and cannot be carried over to face crops; apply it to aligned "
                f"footage, or leave it out of the description"
            )
        return self

    def mask_for(self, x: Tensor) -> Tensor:
        """1 where a pixel of x gets through, 0 where it is hidden, broadcastable to x; operators other than `hides` let all through."""
        return x.new_ones(())

    def describe(self) -> str:
        """A short text for people, e.g. "Gaussian blur sigma 2 px, down x4"."""
        return type(self).__name__

    def __str__(self) -> str:
        return self.describe()

    def __matmul__(self, inner: Degradation) -> Degradation:
        from .compose import Composition

        return Composition(self, inner)

    def input_size(self, y: Tensor, size: Size | None) -> Size:
        """`size`, or by default `factor` times the size of y. Raises ValueError if a frame of `size` does not give a y of this size."""
        low = (y.shape[-2], y.shape[-1])
        if size is None:
            return low[0] * self.factor, low[1] * self.factor
        if self.output_size(size) != low:
            raise ValueError(
                f"{self.describe()}: frames of {size[0]}x{size[1]} become {'x'.join(map(str, self.output_size(size)))}, but y is "
                f"{low[0]}x{low[1]} (height x width); pass the size of the frames y was made from"
            )
        return size
