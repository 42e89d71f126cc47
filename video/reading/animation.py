"""Animated WebP, which FFmpeg does not decode, as a clip with the file's own times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import VideoError
from ..files import check_pixels, place_name
from ..info import ColourTags, SourceInfo
from .probe import transparency_warning
from .source import FrameSource, Selection, Timed
from .stills import webp_delays

SHORTEST = 1
"""Milliseconds for which a picture of duration 0 is shown, so that times increase."""


class AnimationSource(FrameSource):
    """The pictures of one animated WebP file."""

    def __init__(self, place: Path, data: bytes, selection: Selection) -> None:
        self.place, self.data, self.selection = place, data, selection
        self.warnings: list[str] = []
        delays = [Fraction(max(SHORTEST, delay), 1000) for delay in webp_delays(data)]
        self.starts = [sum(delays[:index], Fraction(0)) for index in range(len(delays))]
        self.end = sum(delays, Fraction(0))
        picture = self.opened()
        self.check_transparency(picture)
        self.info = SourceInfo(
            path=str(place),
            width=picture.width,
            height=picture.height,
            rate=len(delays) / self.end,
            frame_estimate=len(delays),
            duration=self.end,
            time_base=Fraction(1, 1000),
            colour=ColourTags(matrix=0, full_range=True),
            pix_fmt="rgb24",
            codec="webp",
        )

    def opened(self) -> Any:
        from PIL import Image

        try:
            picture = Image.open(BytesIO(self.data))
            check_pixels(place_name(self.place), *picture.size)
            picture.load()
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(f"{self.place} cannot be read as an animated WebP file ({error}); it may be damaged or cut short") from error
        return picture

    def check_transparency(self, picture: Any) -> None:
        """Warns if a picture is transparent anywhere."""
        if picture.mode == "RGBA" and picture.getchannel("A").getextrema()[0] < 255:
            self.warn(transparency_warning(self.place))

    def numbered(self) -> Iterator[Timed]:
        animation = self.opened()
        shown = enumerate(zip(self.starts, [*self.starts[1:], self.end], strict=True))
        times = [(n, (start, end)) for n, (start, end) in shown if self.selection.sees(start, self.end)]
        for number, (start, end) in times[self.selection.start :]:
            try:
                animation.seek(number)
                picture = pixels(animation)
                self.check_transparency(animation)
            except (OSError, EOFError, SyntaxError):
                self.warn(f"{self.place} is damaged or cut short: picture {number} of {len(self.starts)} cannot be read; those before it are used")
                return
            yield Timed(start, lambda picture=picture: picture, end)  # type: ignore[misc]


def pixels(animation: Any) -> Tensor:
    """(3, H, W) float32 RGB in [0, 1] of a Pillow image's current picture."""
    return torch.from_numpy(np.array(animation.convert("RGB"))).permute(2, 0, 1).contiguous().float().div_(255)
