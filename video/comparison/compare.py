"""Clips compared in one picture: side by side, split by a moving line, or as a heat map of their difference.

Works on one moment at a time and keeps nothing between, so memory does not grow with a clip's length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import VideoError
from .text_overlay import blend_text, drawable, letter_height, truncated_text, write_label

MODES = ("side_by_side", "split", "difference")

HEAT_COLOURS = ((0.0, 0.0, 0.0), (0.20, 0.10, 0.55), (0.75, 0.15, 0.45), (1.0, 0.55, 0.10), (1.0, 1.0, 0.80))
"""Colours of a difference at 0, 1/4, 1/2, 3/4 and 1: black, violet, magenta, orange, pale yellow; each brighter than the one before."""


@dataclass(frozen=True)
class CompareOptions:
    """How clips are compared.

    Attributes:
        mode: "side_by_side" (two clips or more, three in a row at most), "split" (two clips, the first one left of the line), or
            "difference" (two clips).
        labels: one per clip in order; "" and those left out are not drawn.
        period: of the line, in seconds: from the middle to the right edge, to the left edge, and back to the middle.
        gain: factor of the difference before colour mapping; the brightest colour is a difference of 1 / gain.

    Raises:
        VideoError: if a value is out of its range.
    """

    mode: str = "side_by_side"
    labels: tuple[str, ...] = ()
    period: float = 4.0
    gain: float = 4.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise VideoError(f"clips are compared by {', '.join(MODES)}, got {self.mode!r}")
        if not 0.1 <= self.period <= 3600:
            raise VideoError(f"the line's period must be 0.1 to 3600 seconds, got {self.period:g}")
        if not 1 <= self.gain <= 255:
            raise VideoError(f"the gain of a difference must be 1 to 255, got {self.gain:g}")
        for label in self.labels:
            drawable(label)

    def check(self, clips: int) -> None:
        """Raises VideoError if that many clips cannot be compared this way, or there are labels for more."""
        if clips < 2:
            raise VideoError(f"a comparison needs at least two clips, got {clips}")
        if clips > 2 and self.mode != "side_by_side":
            raise VideoError(f"{self.mode} compares two clips, got {clips}; leave some out, or show them side by side")
        if len(self.labels) > clips:
            raise VideoError(f"there are {len(self.labels)} labels for {clips} clips; give one for each, in the same order")

    def label(self, clip: int) -> str:
        """The label of a clip, "" for none."""
        return self.labels[clip] if clip < len(self.labels) else ""


def compared_size(height: int, width: int, clips: int, options: CompareOptions) -> tuple[int, int]:
    """(H, W) of the output pictures if the first clip has height x width."""
    if options.mode == "side_by_side":
        columns = grid_columns(clips)
        return height * math.ceil(clips / columns), width * columns
    return height + (legend_height(height, width) if options.mode == "difference" else 0), width


def compare_frames(moments: Iterable[Sequence[Tensor]], seconds: Iterable[float], options: CompareOptions) -> Iterator[Tensor]:
    """One picture per moment.

    Args:
        moments: the clips' frames at each moment, (3, H, W) in [0, 1], resized to the first one's size.
        seconds: of each moment since the first; used only by "split".
    """
    for pictures, now in zip(moments, seconds, strict=True):
        yield compare_picture(pictures, now, options)


def compare_picture(pictures: Sequence[Tensor], seconds: float, options: CompareOptions) -> Tensor:
    """The picture of one moment, a new (3, H, W) in [0, 1] of `compared_size`. Raises VideoError if `options` do not go with that many clips."""
    options.check(len(pictures))
    size = (pictures[0].shape[-2], pictures[0].shape[-1])
    shown = [resized(picture, size) for picture in pictures]
    if options.mode == "difference":
        return difference(shown[0], shown[1], options)
    for number, picture in enumerate(shown):
        write_label(picture, options.label(number), right=options.mode == "split" and number == 1)
    return split(shown[0], shown[1], seconds, options.period) if options.mode == "split" else side_by_side(shown)


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """A copy of `picture` (3, h, w) at `size` (H, W), antialiased bicubic."""
    if tuple(picture.shape[-2:]) == size:
        return picture.clone()
    return F.interpolate(picture[None], size, mode="bicubic", antialias=True, align_corners=False)[0].clamp_(0, 1)


def resize_warnings(clips: Sequence[tuple[str, tuple[int, int]]]) -> list[str]:
    """A warning for each clip (name, (height, width)) whose size differs from the first one's."""
    first, (height, width) = clips[0]
    return [
        f"{name} is {w} x {h} and was resized to {width} x {height}, the size of {first}" for name, (h, w) in clips[1:] if (h, w) != (height, width)
    ]


def grid_columns(clips: int) -> int:
    """Clips in a row: all of up to three, else as many as there are rows, or one more."""
    return clips if clips <= 3 else math.ceil(math.sqrt(clips))


def side_by_side(pictures: Sequence[Tensor]) -> Tensor:
    """The pictures in rows; unused places are black."""
    columns = grid_columns(len(pictures))
    blank = torch.zeros_like(pictures[0])
    padded = [*pictures, *[blank] * (-len(pictures) % columns)]
    return torch.cat([torch.cat(padded[start : start + columns], -1) for start in range(0, len(padded), columns)], -2)


def divider_position(seconds: float, period: float, width: int) -> int:
    """First column right of the line: width / 2 * (1 + sin(2 pi t / period)), in the middle at the start and slowest at the edges."""
    return round(width / 2 * (1 + math.sin(2 * math.pi * seconds / period)))


def divider_width(width: int) -> int:
    """Columns of the white line; it has a black rim of half of that, at least one, on either side."""
    return max(1, round(width / 480))


def split(left: Tensor, right: Tensor, seconds: float, period: float) -> Tensor:
    """`left` up to the line, `right` behind it, and the line over both."""
    width = left.shape[-1]
    place, white = divider_position(seconds, period, width), divider_width(width)
    rim = max(1, white // 2)
    picture = torch.cat([left[..., :place], right[..., place:]], -1)
    first = place - white // 2
    picture[..., max(0, first - rim) : max(0, first + white + rim)] = 0
    picture[..., max(0, first) : max(0, first + white)] = 1
    return picture


def difference(one: Tensor, other: Tensor, options: CompareOptions) -> Tensor:
    """The mean of |one - other| over the channels, times the gain, as HEAT_COLOURS; with a legend below it."""
    height, width = one.shape[-2:]
    words = [label or f"clip {number}" for number, label in ((1, options.label(0)), (2, options.label(1)))]
    legend = difference_legend(legend_height(height, width), width, letter_height(height, width), words, options.gain)
    return torch.cat([heat((one - other).abs().mean(0) * options.gain), legend.to(one)], -2)


def heat(values: Tensor) -> Tensor:
    """(H, W) to (3, H, W): HEAT_COLOURS, linear in between; below 0 black, above 1 the brightest."""
    table = torch.tensor(HEAT_COLOURS).to(values)
    place = values.clamp(0, 1) * (len(HEAT_COLOURS) - 1)
    below = place.floor().clamp_(max=len(HEAT_COLOURS) - 2)
    index = below.long()
    return torch.lerp(table[index], table[index + 1], (place - below)[..., None]).movedim(-1, 0)


def legend_height(height: int, width: int) -> int:
    """Rows below a heat map: a bar, a line of text and the space around them; even, so that an even height stays even."""
    return 2 * round(letter_height(height, width) * 1.75)


def difference_legend(height: int, width: int, letters: int, words: Sequence[str], gain: float) -> Tensor:
    """(3, height, width): the scale from 0 to 1 / gain as a bar, its ends in levels of 255, and between them what was compared, if it fits."""
    strip = torch.zeros(3, height, width)
    margin = max(1, letters // 2)
    bar = max(1, height - margin - margin // 2 - 2 * letters)
    strip[:, margin : margin + bar] = heat(torch.linspace(0, 1, width).expand(bar, width))
    top = margin + bar + margin // 2
    left, right = margin, width - margin
    most = 255 / gain
    for text, at_right in ((f"{most:.0f}" if most >= 10 else f"{most:.1f}", True), ("0", False)):
        drawn = truncated_text(text, letters, right - left)
        if drawn is None:
            continue
        blend_text(strip, drawn, top, right - drawn.shape[1] if at_right else left)
        left, right = (left, right - drawn.shape[1] - letters) if at_right else (left + drawn.shape[1] + letters, right)
    title = truncated_text(drawable(f"|{words[0]} - {words[1]}|, of 255"), letters, right - left)
    if title is not None:
        blend_text(strip, title, top, left + (right - left - title.shape[1]) // 2)
    return strip
