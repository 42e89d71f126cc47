"""Group normalisation whose statistics span all frames of a clip, read frame by frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .window import Window, joined

Read = Callable[[slice], Tensor]
"""From a slice of frames to their features: a feature map that is never computed as a whole."""


def moments(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Variance and mean, float32 (n, groups) each, of x (n, C, h, w) over groups of its channels.

    For 32 channels of 512 x 512 in channels_last, var_mean takes 118 ms on one core, and sums over each channel first take 33 ms. Those keep more for
    the backward pass and need more kernels on accelerators, so var_mean is used there.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu":
        variance, mean = torch.var_mean(x.float().unflatten(1, (groups, -1)), (2, 3, 4), correction=0)
        return variance, mean
    means = x.mean((2, 3), keepdim=True, dtype=torch.float32)
    variances = (x - means).square_().mean((2, 3)).unflatten(1, (groups, -1))
    means = means.flatten(1).unflatten(1, (groups, -1))
    return variances.mean(2) + means.var(2, correction=0), means.mean(2)


def fused(x: Tensor, window: Window) -> bool:
    """Whether a whole map is normalised by one kernel: on a CPU, without gradients, where memory does not ask for pieces."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and len(window.parts(x)) == 1


class ClipNorm(nn.Module):
    """Group normalisation over (T, h, w) of each clip, in float32 whatever the dtype of the features.

    In two passes: mean and variance of every frame, joined to those of the clip; then x * scale + shift on the frames that are wanted.
    The result is that of nn.GroupNorm on (B, C, T, h, w), without a normalised float32 copy of the whole clip.
    """

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.wrapped_module = nn.GroupNorm(groups, width)

    def coefficients(self, x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
        """scale and shift, float32 (B T, C), for x (B T, C, h, w)."""
        norm = self.wrapped_module
        pieces = [moments(x[part], norm.num_groups) for part in window.parts(x)]
        variance, mean = (joined(moment, len(x)).unflatten(0, (-1, window.frames)) for moment in zip(*pieces, strict=True))
        variance = variance.mean(1) + mean.var(1, correction=0)  # frames are equally large
        per_group = x.shape[1] // norm.num_groups
        scale = (variance + norm.eps).rsqrt().repeat_interleave(per_group, 1) * norm.weight.float()
        shift = norm.bias.float() - mean.mean(1).repeat_interleave(per_group, 1) * scale
        return scale.repeat_interleave(window.frames, 0), shift.repeat_interleave(window.frames, 0)

    def read(
        self,
        x: Tensor,
        window: Window,
        film: tuple[Tensor, Tensor] | None = None,
        *,
        activate: bool = True,
        dtype: torch.dtype | None = None,
    ) -> Read:
        """silu((1 + a) norm(x) + b) with film = (a, b), (B T, C) each; without `activate` the sum alone. In `dtype`, that of x by default."""
        if torch.is_grad_enabled() and window.frames == 1 and window.pixels is None:  # PyTorch's own has the quicker backward pass
            norm = self.wrapped_module
            y = F.group_norm(x.float(), norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps)
            y = y if film is None else torch.addcmul(film[1][..., None, None], y, 1 + film[0][..., None, None])
            return (F.silu(y) if activate else y).to(dtype or x.dtype).__getitem__
        if film is None and fused(x, window):
            whole = self._at_once(x, window)
            whole = F.silu(whole, inplace=True) if activate else whole
            return lambda part: whole[part].to(dtype or x.dtype)
        scale, shift = self.coefficients(x, window)
        if film is not None:
            scale, shift = scale * (1 + film[0]), shift * (1 + film[0]) + film[1]
        scale, shift = scale[..., None, None], shift[..., None, None]

        def some(part: slice) -> Tensor:
            y = torch.addcmul(shift[part], x[part].float(), scale[part])
            return (F.silu(y, inplace=True) if activate else y).to(dtype or x.dtype)

        return some

    def _at_once(self, x: Tensor, window: Window) -> Tensor:
        """norm(x) by one kernel, to which a clip of frames in channels-last layout is one picture, T times as high."""
        norm = self.wrapped_module
        clips = x.permute(0, 2, 3, 1).reshape(-1, window.frames * x.shape[2], x.shape[3], x.shape[1]).permute(0, 3, 1, 2)
        done = F.group_norm(clips, norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps)
        return done.permute(0, 2, 3, 1).reshape(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)

    def forward(self, x: Tensor, window: Window) -> Tensor:
        """x (B T, C, h, w), normalised."""
        read = self.read(x, window, activate=False)
        return joined((read(part) for part in window.parts(x)), len(x))
