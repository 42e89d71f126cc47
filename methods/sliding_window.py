"""Sliding-window restoration by networks that predict codes: each frame is encoded once, and decoded once, when it is the window's centre."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..faces.types import CROP, FaceTrack
from ..models.device import CheckInterrupt
from ..models.vq import VQConfig
from .base import NetworkRestorer, Session, from_network, joined, to_network
from .detail_fusion import completed
from .tasks import Task

Item = TypeVar("Item")


class CentredWindow(Generic[Item]):
    """The window of `before` + 1 + `after` items around every item of a stream; at the ends the first and the last item are repeated."""

    def __init__(self, before: int, after: int) -> None:
        self.before, self.after = before, after
        self._items: deque[Item] = deque(maxlen=before + 1 + after)

    def push(self, item: Item) -> list[Item] | None:
        """The window around the item pushed `after` items ago; None at the beginning of the stream."""
        self._items.extend([item] * (1 if self._items else self.before + 1))
        return list(self._items) if len(self._items) == self._items.maxlen else None

    def close(self) -> Iterator[list[Item]]:
        """The windows around the last `after` items."""
        last = self._items[-1] if self._items else None
        for _ in range(self.after if last is not None else 0):
            window = self.push(last)  # type: ignore[arg-type]
            if window is not None:
                yield window
        self._items.clear()


@dataclass
class CodedFrame:
    """A frame between encoder and generator.

    Attributes:
        index: its place in the clip, from 0.
        seen: (1, tokens, C), what the windows that hold this frame use of it.
        latent: (1, code_dim, s, s).
        features: the encoder's by side; dropped once the frame is decoded.
        kept: what Task.finish needs; dropped once the frame is decoded.
        crop: the input crop, for networks of fewer than 512 pixels; dropped once the frame is decoded.
    """

    index: int
    seen: Tensor
    latent: Tensor
    features: dict[int, Tensor] = field(default_factory=dict)
    kept: Tensor | None = None
    crop: Tensor | None = None

    def release(self) -> None:
        """Drops what only decoding needs; later windows still hold the frame."""
        self.features, self.kept, self.crop = {}, None, None


class WindowSession(Session):
    """A session that slides a centred window over the clip and holds no more frames than that.

    Frames are processed one by one, so the result is bit-identical however the clip is chunked.
    """

    def __init__(
        self, restorer: NetworkRestorer, task: Task, track: FaceTrack | None, before: int, after: int, check_interrupt: CheckInterrupt
    ) -> None:
        self.restorer, self.task, self.check_interrupt = restorer, task, check_interrupt
        self.network: Any = restorer.network
        self._cleaned = restorer.cleaner(track, check_interrupt)
        self._window: CentredWindow[CodedFrame] = CentredWindow(before, after)
        self._count = 0

    @abstractmethod
    def _encode(self, picture: Tensor, index: int) -> CodedFrame:
        """(1, 3, S, S) in [-1, 1], on the device."""

    @abstractmethod
    def _decode(self, window: list[CodedFrame], frame: CodedFrame) -> Tensor:
        """The restored picture (1, 3, S, S) of `frame`, the window's centre."""

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        """See Session.push; masks are for inpainting only."""
        self.task.check(crops, masks)
        crops = self._cleaned(crops) if self.task.mode == "restore" else crops
        ready = []
        for i in range(len(crops)):
            self.check_interrupt()
            with torch.inference_mode():
                shown, kept = self.task.prepare(crops[i : i + 1], None if masks is None else masks[i : i + 1])
                frame = self._encode(to_network(shown, self.restorer.side, self._placed()), self._count)
            frame.kept = kept
            if self.restorer.side < CROP and self.task.mode == "restore":
                frame.crop = shown
            self._count += 1
            window = self._window.push(frame)
            if window is not None:
                ready.append(self._restored(window))
        return joined(ready)

    def close(self) -> Tensor:
        return joined([self._restored(window) for window in self._window.close()])

    def _restored(self, window: list[CodedFrame]) -> Tensor:
        frame = window[self._window.before]
        self.check_interrupt()
        self._placed()
        with torch.inference_mode():
            image = self._decode(window, frame)
            crop = frame.crop
            done = self.task.finish(from_network(image) if crop is None else completed(image, crop, self._cleaned.is_clean(crop)), frame.kept)
        frame.release()
        return done

    def _placed(self) -> torch.device:
        return self.restorer.place(working_bytes(self.network.config, 1))


def working_bytes(config: VQConfig, frames: int) -> int:
    """Working memory of `frames` frames at once, in bytes: about ten float32 maps of the first layer's width at full size."""
    return frames * 10 * config.channels * config.side**2 * 4
