"""KEEP as a session: the recurrence over a clip in blocks of frames, with the recurrent state carried from block to block."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..faces.types import CROP, FaceTrack
from ..models.device import CheckInterrupt, batches, no_check
from ..motion.dis import DisFlow
from ..motion.flow import FlowSource
from ..motion.warp import warp
from ..options import Options, parameter
from .base import Capability, NetworkRestorer, Session, WarmUp, from_network, joined, refuse_masks, to_network
from .detail_fusion import completed

if TYPE_CHECKING:
    from ..models.keep.gain import GainMemory
    from ..models.keep.network import KEEP, CrossFeatures

WARM_UP_FRAMES = 20
"""Frames after which a recurrence that began in the middle of a clip agrees with one from its start, at a PSNR of at least 50 dB."""


@dataclass(frozen=True)
class KeepOptions(Options):
    """Parameters of KEEP.

    Attributes:
        reset_every: frames after which the state is reset, as if another clip began; 0 carries it through the whole clip. The
            released script has `reset_every` 20 with `gain_window` 20.
        gain_window: frames whose gains are computed together, as they attend to each other; a session holds back one frame fewer. A waiting
            frame's features take 5.5 MiB in the published network, 45 MiB in its Asian variant, and half of that in half precision.
        flow: source of optical flow; checkpoints without GMFlow (such as the embedded one) always use "dis".
    """

    reset_every: int = parameter(
        0,
        0,
        10_000,
        unit="frames",
        advice="Frames after which KEEP forgets the past; 0 never, 20 is what the official script does, with a jump at each.",
    )
    gain_window: int = parameter(
        20,
        1,
        100,
        unit="frames",
        advice="Frames whose trust in the past is judged together; the result waits for that many, and memory grows with them.",
    )
    batch: int = parameter(1, 1, 100, unit="frames", advice="Frames that are encoded at once.")
    flow: Literal["gmflow", "dis"] = parameter("gmflow", advice="Who measures motion: gmflow is KEEP's own network, dis is OpenCV's, faster.")

    def block(self, done: int) -> int:
        """Length of the block that begins after `done` frames of a session; no block crosses a reset."""
        if not self.reset_every:
            return self.gain_window
        return min(self.gain_window, self.reset_every - done % self.reset_every)


@dataclass(frozen=True)
class Past:
    """The recurrent state: what a frame takes from the frame before.

    Attributes:
        image: its restored image (1, 3, S, S), as the generator made it.
        cross: its features, fused with those of the frame before it.
        seen: the flow source's features of the input frame.
    """

    image: Tensor
    cross: CrossFeatures
    seen: Any


def keep_step(
    network: KEEP,
    source: FlowSource,
    frame: Tensor,
    latent: Tensor,
    features: Mapping[int, Tensor],
    gain: Tensor,
    past: Past | None,
    check_interrupt: CheckInterrupt = no_check,
    back: Callable[[], object] = lambda: None,
) -> Past:
    """One frame of the recurrence; models/keep/network.py has the equations.

    Args:
        frame: (1, 3, S, S) in [-1, 1].
        latent: z~, (1, code_dim, s, s), and `features`: both the encoder's, of this frame.
        gain: K, (1, 1, s, s); the first frame of a clip does not use it.
        past: None for the first frame of a clip.
        back: brings the network back to its device, as the flow's own network may have displaced it.

    Returns:
        The state for the next frame; its `image` is the result.
    """
    check_interrupt()
    seen = source.features(frame)
    moved = None if past is None else warp(past.image, source.flow(seen, past.seen))
    back()
    if moved is not None:
        check_interrupt()
        latent = network.update(latent, network.encode_clean(moved), gain)  # eq. 12 and 8
    check_interrupt()
    codes = network.quantize.lookup(network.predict_codes(latent))
    image, cross = network.decode(codes, features, None if past is None else past.cross)  # eq. 10 and 13
    return Past(image, cross, seen)


class KeepRestorer(NetworkRestorer):
    """KEEP, with or without its decoder_parts in half precision.

    Attributes:
        given_flow: a flow source that replaces the one that the options name, and that may have a network of its own to place; None for none.
    """

    name = "keep"
    supports: frozenset[Capability] = frozenset({"optical_flow"})
    options_type = KeepOptions
    network: KEEP
    options: KeepOptions
    given_flow: FlowSource | None = None

    @property
    def flow(self) -> FlowSource:
        """The source of optical flow."""
        if self.given_flow is not None:
            return self.given_flow
        own = self.network.flownet if self.options.flow == "gmflow" else None
        return DisFlow() if own is None else own

    def repaints(self, track: FaceTrack | None = None) -> bool:
        return True

    def guided_by(self, flow: FlowSource) -> KeepRestorer:
        """The same restorer with another source of optical flow."""
        other = copy(self)
        other.given_flow = flow
        return other

    @property
    def look_ahead(self) -> int:  # type: ignore[override]
        """One frame fewer than a block has."""
        return self.options.block(0) - 1

    @property
    def own_warm_up(self) -> WarmUp:
        """Blocks begin where those of the whole track do; without resets, `WARM_UP_FRAMES` frames come before."""
        options = self.options
        if options.reset_every:
            return WarmUp(every=options.reset_every)
        return WarmUp(before=WARM_UP_FRAMES, every=options.gain_window, exact=False)

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> KeepSession:
        """Starts one person's clip; KEEP draws no random numbers, so `seed` changes nothing."""
        return KeepSession(self, track, check_interrupt)


class KeepSession(Session):
    """One person's clip. Holds one block of frames and the state after the block before."""

    def __init__(self, restorer: KeepRestorer, track: FaceTrack | None, check_interrupt: CheckInterrupt) -> None:
        self._restorer = restorer
        self._cleaned = restorer.cleaner(track, check_interrupt)
        self._check_interrupt = check_interrupt
        self._waiting: list[Tensor] = []
        self._crops: list[Tensor | None] = []  # the same at full size, where the network is smaller
        self._done = 0
        self._past: Past | None = None
        self._memory: GainMemory | None = None

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        refuse_masks(self._restorer.name, masks)
        side = self._restorer.network.config.side
        ready: list[Tensor] = []
        for shown in crops.split(1):
            crop = self._cleaned(shown)
            self._waiting.append(to_network(crop.float(), side, torch.device("cpu")))
            self._crops.append(crop.float() if side < CROP else None)
            if len(self._waiting) == self._restorer.options.block(self._done):
                ready += self._restore()
        return joined(ready)

    def close(self) -> Tensor:
        ready = self._restore() if self._waiting else []
        self._past = self._memory = None
        return joined(ready)

    @torch.inference_mode()
    def _restore(self) -> list[Tensor]:
        """The waiting frames as a block: the gains of all of them, then the recurrence frame by frame."""
        restorer, options = self._restorer, self._restorer.options
        network = restorer.network
        if options.reset_every and self._done % options.reset_every == 0:
            self._past = self._memory = None
        length = len(self._waiting)
        room = working_memory(network, length, options.batch)
        device = restorer.place(room)
        frames = torch.cat(self._waiting).to(device, memory_format=torch.channels_last)
        latents, features = self._encode(frames)
        gains, self._memory = network.kalman_filter(latents[None], self._memory)
        ready = []
        for index in range(length):
            now = slice(index, index + 1)
            past = keep_step(
                network,
                restorer.flow,
                frames[now],
                latents[now],
                features.popleft(),
                gains[0, now],
                self._past,
                self._check_interrupt,
                no_check if restorer.given_flow is None else partial(restorer.place, room),
            )
            crop = self._crops[index]
            ready.append(from_network(past.image) if crop is None else completed(past.image, crop, self._cleaned.is_clean(crop)))
            self._past = past
        self._waiting.clear()
        self._crops.clear()
        self._done += length
        return ready

    def _encode(self, frames: Tensor) -> tuple[Tensor, deque[dict[int, Tensor]]]:
        """The frames' latents, and for each frame the features that steer the generator, in the generator's dtype."""
        network, dtype = self._restorer.network, next(self._restorer.network.generator.parameters()).dtype
        features: deque[dict[int, Tensor]] = deque()

        def encode(batch: Tensor) -> Tensor:
            latent, maps = network.encode(batch)
            features.extend({side: x[index : index + 1].to(dtype) for side, x in maps.items()} for index in range(len(batch)))
            return latent

        return torch.cat(list(batches(encode, frames, self._restorer.options.batch, self._check_interrupt))), features


def working_memory(network: KEEP, block: int, batch: int) -> int:
    """Working memory of a block in bytes: the activations of a batch, and what is kept for each frame until its turn."""
    vq = network.config
    activations = 10 * vq.channels * vq.side**2
    waiting = 3 * vq.side**2 + sum(vq.width(side) * side**2 for side in network.sizes.fused)
    return 4 * (activations * batch + waiting * block)
