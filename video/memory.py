"""Decoded clips in memory, as a source and as a sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .info import AudioInfo, SourceInfo
from .reading.source import FrameSource, Selection, Timed
from .streams.audio import AudioTrack
from .times import FrameTimes


class FramesSource(FrameSource):
    """Frames (T, 3, H, W) in [0, 1] with their times, such as a VIDEO without a file. `sound` begins with the first frame."""

    def __init__(self, frames: Tensor, times: FrameTimes, *, selection: Selection | None = None, sound: AudioTrack | None = None) -> None:
        self.place = "frames in memory"
        self.frames = frames
        self.shown = times
        self.selection = selection or Selection()
        self.warnings: list[str] = []
        start = times.starts[0]
        self.info = SourceInfo(
            None,
            frames.shape[-1],
            frames.shape[-2],
            rate=times.rate,
            frame_estimate=len(frames),
            start=start,
            duration=times.duration,
            audio_streams=() if sound is None else (AudioInfo("pcm_f32le", sound.rate, len(sound.waveform), start, sound.duration),),
            sound=sound,
        )

    def numbered(self) -> Iterator[Timed]:
        for number in range(self.selection.start, len(self.shown)):
            picture: Callable[[], Tensor] = partial(self.frames.__getitem__, number)
            yield Timed(self.shown.starts[number], picture, self.shown.ends[number])


class FramesSink:
    """A sink that keeps its frames in one tensor (count, 3, H, W), without their times."""

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        self.frames = torch.empty(count, 3, *size)
        self.warnings: list[str] = []
        self.count = 0

    def write(self, frames: Tensor, starts: Sequence[Fraction], ends: Sequence[Fraction], stored: Sequence[Any] = ()) -> None:
        self.frames[self.count : self.count + len(frames)] = frames
        self.count += len(frames)
