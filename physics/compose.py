"""Chains of degradations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import hypot

import torch
from torch import Tensor

from .base import Axis, Degradation, OnFrames, Size
from .identity import Identity
from .linalg.separable import separable_pinv
from .linalg.solve import conjugate_gradients
from .numerics import upcast

DIMENSIONS: dict[Axis, tuple[int, ...]] = {"time": (-4,), "channel": (-3,), "space": (-2, -1)}


@dataclass(frozen=True)
class Composition(Degradation):
    """(A B) x = A (B x).

    `pinv` drops transparent operators (noise, codecs, camera), then inverts what is left exactly: a single operator by itself, separable
    ones through the product of their matrices, operators on different axes (time, colour, space) one after the other; anything else
    by conjugate gradients on A^T A (`solve.MAX_ITERATIONS`). It is linear, so x - gamma pinv(forward(x) - y) is FLAIR's rule
    x - gamma (A+ D(E(A x)) - A+ y) for a composition with JPEG.

    The noise level adds up in variance, what the inner operator adds being scaled by the outer one's `noise_gain`.
    """

    outer: Degradation
    inner: Degradation

    def __post_init__(self) -> None:
        derived = {
            "linear": self.outer.linear and self.inner.linear,
            "factor": self.outer.factor * self.inner.factor,
            "transparent": self.outer.transparent and self.inner.transparent,
            "axes": self.outer.axes | self.inner.axes,
            "noise_level": hypot(self.outer.noise_level, self.outer.noise_gain * self.inner.noise_level),
            "distortion": hypot(self.outer.distortion, self.outer.noise_gain * self.inner.distortion),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    @property
    def chain(self) -> tuple[Degradation, ...]:
        return (*self.outer.chain, *self.inner.chain)

    @property
    def mixes_frames(self) -> bool:
        return self.outer.mixes_frames or self.inner.mixes_frames

    def reach(self) -> int:
        return self.outer.reach() + self.inner.reach()

    def at_frames(self, first: int, count: int) -> Degradation:
        outer, inner = self.outer.at_frames(first, count), self.inner.at_frames(first, count)
        return self if outer is self.outer and inner is self.inner else Composition(outer, inner)

    @property
    def noise_gain(self) -> float:
        return self.outer.noise_gain * self.inner.noise_gain

    def output_size(self, size: Size) -> Size:
        return self.outer.output_size(self.inner.output_size(size))

    def on_crop(self, scale: float) -> Composition:
        return Composition(self.outer.on_crop(scale * self.inner.factor), self.inner.on_crop(scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(x))

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.outer.observe(self.inner.observe(x, generator), generator)

    def observe_in_steps(self, x: Tensor, generator: torch.Generator | None, on_frames: OnFrames) -> Tensor:
        return self.outer.observe_in_steps(self.inner.observe_in_steps(x, generator, on_frames), generator, on_frames)

    def adjoint(self, y: Tensor, size: Size | None = None) -> Tensor:
        size = self.input_size(y, size)
        return self.inner.adjoint(self.outer.adjoint(y, self.inner.output_size(size)), size)

    def matrices(self, size: Size) -> tuple[Tensor, Tensor] | None:
        inner = self.inner.matrices(size)
        outer = self.outer.matrices(self.inner.output_size(size))
        return None if inner is None or outer is None else (outer[0] @ inner[0], outer[1] @ inner[1])

    def pinv(self, y: Tensor, size: Size | None = None, damping: float = 0.0) -> Tensor:
        size = self.input_size(y, size)
        core = [operator for operator in self.chain if not operator.transparent]
        if len(core) < 2:
            return (core[0] if core else Identity()).pinv(y, size, damping)
        groups = _group_by_axis(core)
        if groups is None or (damping and len(groups) > 1):
            return _iterative_pinv(compose(core), y, size, damping)
        for group in groups:
            y = _group_pinv(group, y, size if group.axes == {"space"} else None, damping)
        return y

    def describe(self) -> str:
        texts = [operator.describe() for operator in reversed(self.chain)]
        return ", ".join(texts[:1] + [text[:1].lower() + text[1:] if text[1:2].islower() else text for text in texts[1:]])


def compose(chain: Sequence[Degradation]) -> Degradation:
    """chain[0] @ chain[1] @ ...: the last of the sequence is applied first; the identity for an empty one.

    >>> from .linear.bicubic import BicubicDownsample
    >>> from .linear.blur import Blur
    >>> compose([BicubicDownsample(4), Blur.gaussian(2)]).describe()
    'Gaussian blur sigma 2 px, bicubic down x4'
    """
    return reduce(Composition, chain) if chain else Identity()


def _group_by_axis(core: Sequence[Degradation]) -> list[Degradation] | None:
    """The operators of `core` composed per axis, in any order, if none of them mixes two axes; else None."""
    if any(len(operator.axes) != 1 for operator in core):
        return None
    present: list[frozenset[Axis]] = list(dict.fromkeys(operator.axes for operator in core))
    return [compose([operator for operator in core if operator.axes == axes]) for axes in present]


def _group_pinv(group: Degradation, y: Tensor, size: Size | None, damping: float) -> Tensor:
    if len(group.chain) == 1:
        return group.pinv(y, size, damping)
    frames = group.input_size(y, size)
    if group.axes == {"space"} and group.matrices(frames) is not None:
        return separable_pinv(group, y, frames, damping)
    return _iterative_pinv(group, y, frames, damping)


def _iterative_pinv(operator: Degradation, y: Tensor, size: Size, damping: float) -> Tensor:
    """Solves (A^T A + damping I) x = A^T y, which has a solution for every y, also one that A cannot give."""
    right = operator.adjoint(upcast(y), size)
    axes = tuple(dim for axis in sorted(operator.axes) for dim in DIMENSIONS[axis])
    x = conjugate_gradients(lambda x: operator.adjoint(operator.forward(x), size) + damping * x, right, axes=axes)
    return x.to(y.dtype)
