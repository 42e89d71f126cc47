"""CodeFormer as a restorer (Zhou et al., NeurIPS 2022): frame by frame, or with code predictions averaged over neighbouring frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import Self

from ..faces.types import FaceTrack
from ..models.device import CheckInterrupt, Placement, in_batches, no_check
from ..models.tuning import Use
from ..options import parameter
from .base import Capability, NetworkRestorer, Session, WarmUp, batch_parameter, from_network, joined, to_network
from .detail_fusion import completed
from .fidelity import LEAST, weight_of
from .sliding_window import CodedFrame, WindowSession, working_bytes
from .tasks import Mode, TaskOptions

if TYPE_CHECKING:
    from ..models.codeformer.network import CodeFormer


def gaussian_weights(half: int) -> list[float]:
    """exp(-d^2 / 2 s^2), s = (half + 1) / 2, for d = -half to half, with sum 1."""
    weights = [math.exp(-2 * (d / (half + 1)) ** 2) for d in range(-half, half + 1)]
    return [weight / sum(weights) for weight in weights]


class SmoothedSession(WindowSession):
    """Each place's code is argmax_k sum_d g_d l_{t+d,k}: logits l averaged over the window, which is the normalised geometric mean of the
    frames' distributions. As faces are aligned, a place shows the same part of the face in all frames. The encoder's features and AdaIN's
    statistics remain those of the frame itself.
    """

    restorer: CodeFormerRestorer

    def __init__(self, restorer: CodeFormerRestorer, track: FaceTrack | None, check_interrupt: CheckInterrupt) -> None:
        half = restorer.options.smoothing
        super().__init__(restorer, restorer.options.task, track, half, half, check_interrupt)
        self.weights = gaussian_weights(half)

    def _encode(self, picture: Tensor, index: int) -> CodedFrame:
        latent, features = self.network.encode(picture)
        return CodedFrame(index, self.network.logits(latent), latent, features)

    def _decode(self, window: list[CodedFrame], frame: CodedFrame) -> Tensor:
        logits = sum(weight * other.seen for weight, other in zip(self.weights, window, strict=True))
        codes = self.network.quantize.lookup(logits.argmax(-1))  # type: ignore[union-attr]
        return self.network.decode(codes, frame.latent, frame.features, self.restorer.weight, match=self.restorer.match)


@dataclass(frozen=True)
class Trained:
    """The settings that suit some weights, for options that are None; the defaults are those of the official tools.

    Attributes:
        fidelity: w of each mode.
        adain: AdaIN of each mode.
        least: the w that fidelity 0 stands for.
    """

    fidelity: dict[Mode, float] = field(default_factory=lambda: {"restore": 0.5, "colourise": 0.0, "inpaint": 1.0})
    adain: dict[Mode, bool] = field(default_factory=lambda: {"restore": True, "colourise": True, "inpaint": False})
    least: float = 0.0


FAITHFUL = Trained({"restore": 1.0, "colourise": 0.0, "inpaint": 1.0}, {"restore": False, "colourise": False, "inpaint": False}, LEAST)
"""For networks trained with w = 1 and without AdaIN, such as the embedded one."""


@dataclass(frozen=True)
class CodeFormerOptions(TaskOptions):
    """CodeFormer's parameters; the defaults are the official tools'. Mode colourise is for the checkpoint codeformer_colorization, inpaint for
    codeformer_inpainting. With `smoothing` a session looks that many frames ahead.

    Attributes:
        fidelity: w of eq. 5: 0 uses the codes alone (more detail, less likeness), 1 all of the input's features. None takes what suits the
            weights and the mode: 0.5, 0 and 1 for restoring, colourising and inpainting with the published weights, 1 with the embedded ones.
        adain: whether the codes take on the statistics of the input's latent, which keeps its colours. None takes what suits the weights and
            the mode: on for the published weights except for inpainting, off for the embedded ones.
        batch: frames per forward pass, without `smoothing`; streamed clips come in chunks of eight. More is faster on a large GPU, and changes
            results by rounding only.
    """

    fidelity: float | None = parameter(
        None, 0, 1, advice="0 invents the cleanest face, 1 keeps what the input shows; -1 takes the mode's own.", unset=-1.0, step=0.05
    )
    adain: bool | None = None
    smoothing: int = parameter(
        0, 0, 8, unit="frames on each side", advice="Frames on each side whose codes are averaged in: less flicker, a little less likeness; 0 is off."
    )
    batch: int = batch_parameter(1)


class CodeFormerRestorer(NetworkRestorer):
    """CodeFormer for clips of any length; frames are independent unless `smoothing` is on.

    Args:
        network, options, place: as NetworkRestorer.
        trained: the settings that suit the weights; None is the published ones'.
    """

    name = "codeformer"
    options_type = CodeFormerOptions
    network: CodeFormer
    options: CodeFormerOptions

    def __init__(self, network: CodeFormer, options: Any = None, *, place: Placement | None = None, trained: Trained | None = None) -> None:
        super().__init__(network, options, place=place)
        self.trained = trained or Trained()

    @classmethod
    def of_file(cls, network: CodeFormer, options: Any = None, *, place: Placement | None = None, notes: Mapping[str, str]) -> Self:
        """See NetworkRestorer.of_file; `fvr train codebook` writes adain "off"."""
        return cls(network, options, place=place, trained=FAITHFUL if notes.get("adain") == "off" else None)

    @property
    def weight(self) -> float:
        """w of the generator, from the option `fidelity` or what suits weights and mode."""
        given = self.options.fidelity
        return weight_of(self.trained.fidelity[self.options.mode] if given is None else given, self.trained.least)

    @property
    def match(self) -> bool:
        """Whether AdaIN is on, from the option `adain` or what suits weights and mode."""
        return self.trained.adain[self.options.mode] if self.options.adain is None else self.options.adain

    @property
    def use(self) -> Use:
        return Use(self.weight, self.match)

    @property
    def look_ahead(self) -> int:  # type: ignore[override]
        return self.options.smoothing

    @property
    def supports(self) -> frozenset[Capability]:  # type: ignore[override]
        return frozenset({"masks"} if self.options.smoothing else {"masks", "single_frames"})

    def repaints(self, track: FaceTrack | None = None) -> bool:
        return self.options.task.repaints

    @property
    def own_warm_up(self) -> WarmUp:
        return WarmUp(before=self.options.smoothing)

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        """See Restorer.open; nothing is random, so the seed does not matter."""
        kind = SmoothedSession if self.options.smoothing else CodeFormerSession
        return kind(self, track, check_interrupt)


class CodeFormerSession(Session):
    """Restores crops in independent batches."""

    def __init__(self, restorer: CodeFormerRestorer, track: FaceTrack | None, check_interrupt: CheckInterrupt) -> None:
        self.restorer = restorer
        self._cleaned = restorer.cleaner(track, check_interrupt)
        self.check_interrupt = check_interrupt

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        """See Session.push; masks are for inpainting only."""
        options, task = self.restorer.options, self.restorer.options.task
        task.check(crops, masks)
        crops = self._cleaned(crops) if task.mode == "restore" else crops
        with torch.inference_mode():
            shown, kept = task.prepare(crops, masks)
            restored = task.finish(in_batches(self._restored, shown, options.batch, self.check_interrupt), kept)
        return joined([restored])

    def close(self) -> Tensor:
        return joined([])

    def _restored(self, shown: Tensor) -> Tensor:
        restorer, network = self.restorer, self.restorer.network
        device = restorer.place(working_bytes(network.config, len(shown)))
        images = network(to_network(shown, network.config.side, device), restorer.weight, match=restorer.match)
        return completed(images, shown, self._cleaned.is_clean(shown)) if restorer.options.mode == "restore" else from_network(images)
