"""CodeFormer with codes chosen by a centred window of frames: what flickers is often a near tie between two codes."""

from __future__ import annotations

import math

from torch import Tensor

from ..models.codeformer import CodeFormer
from .code_frames import Cleaner, CodedFrame, WindowSession, unchanged
from .known_pixels import Task
from .placement import Placement
from .restorer import Heartbeat


def gaussian_weights(half: int) -> list[float]:
    """exp(-d^2 / 2 s^2), s = (half + 1) / 2, for d = -half to half, with sum 1."""
    weights = [math.exp(-2 * (d / (half + 1)) ** 2) for d in range(-half, half + 1)]
    return [weight / sum(weights) for weight in weights]


class SmoothedSession(WindowSession):
    """Each place's code is argmax_k sum_d g_d l_{t+d,k}: logits l averaged over the window, that is, the normalised geometric mean of the
    frames' distributions. Alignment holds the face still, so a place shows the same part of it throughout. The encoder's features, and the
    statistics that AdaIN takes, stay the frame's own.

    Args:
        network, place: as of the restorer.
        half: frames on each side of the centre.
        weight, match: w and AdaIN of CodeFormer.decode.
        cleaner: see NetworkRestorer.cleaner.
    """

    def __init__(
        self,
        network: CodeFormer,
        place: Placement,
        task: Task,
        half: int,
        weight: float,
        match: bool,
        heartbeat: Heartbeat,
        cleaner: Cleaner = unchanged,
    ) -> None:
        super().__init__(place, network.config, task, half, half, heartbeat, cleaner)
        self.network = network
        self.shares = gaussian_weights(half)
        self.weight = weight
        self.match = match

    def _encode(self, picture: Tensor, index: int) -> CodedFrame:
        latent, features = self.network.encode(picture)
        return CodedFrame(index, self.network.logits(latent), latent, features)

    def _decode(self, window: list[CodedFrame], frame: CodedFrame) -> Tensor:
        logits = sum(share * other.seen for share, other in zip(self.shares, window, strict=True))
        codes = self.network.quantize.lookup(logits.argmax(-1))  # type: ignore[union-attr]
        return self.network.decode(codes, frame.latent, frame.features, self.weight, match=self.match)
