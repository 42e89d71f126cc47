"""DicFace as a restorer: the centred window of the paper (section 3.5) as a stream, each frame encoded once and decoded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from ..diffusion.rng import seeded_noise
from ..faces.types import CROP, FaceTrack
from ..models.device import CheckInterrupt, Placement, no_check
from ..models.dicface.network import DicFace, dirichlet_mean
from ..models.tuning import Use
from ..models.vq import as_map
from ..options import parameter
from .base import Capability, NetworkRestorer, WarmUp
from .fidelity import LEAST, weight_of
from .sliding_window import CodedFrame, WindowSession
from .tasks import Mode, Task, TaskOptions


def dirichlet_sample(alpha: Tensor, *key: int) -> Tensor:
    """w ~ Dir(alpha) along the last axis: w_k = g_k / sum g, g_k ~ Gamma(alpha_k, 1).

    Drawn on the CPU in float64, a pure function of alpha and of the integers of `key`, whatever the device.
    """
    generator = torch.Generator().manual_seed(int(seeded_noise((2,), *key).view(torch.int64)))
    gamma = torch._standard_gamma(alpha.detach().cpu().double(), generator)
    return (gamma / gamma.sum(-1, keepdim=True)).to(alpha)


def code_variance(alpha: Tensor, codebook: Tensor) -> Tensor:
    """tr Cov[v] of v = sum_k w_k c_k, w ~ Dir(alpha): (sum_k p_k |c_k|^2 - |sum_k p_k c_k|^2) / (A + 1), p = alpha / A, A = sum_k alpha_k.

    Args:
        alpha: (..., K).
        codebook: (K, code_dim), the c_k.

    Returns:
        (...), in squared units of the codes.
    """
    total = alpha.sum(-1)
    mean = alpha / total[..., None]
    entries = codebook - codebook.mean(0)  # variance does not see a shift; rounding does
    spread = mean @ entries.square().sum(-1) - (mean @ entries).square().sum(-1)
    return spread.clamp_min(0) / (total + 1)


def uncertainty(alpha: Tensor, codebook: Tensor, at_prior: float = 1.0) -> Tensor:
    """Where the network hallucinates: u = V / (V + V0) in [0, 1], V the code's variance (code_variance), V0 that of the prior Dir(at_prior).

    1/2 is as uncertain as the prior (alpha = 1 in the paper, eq. 8): the frames carry no information about this place. Towards 0 the input
    determines the code; above 1/2 a few distant codes compete, and a sample takes one of them. A stable blend of similar codes counts as certain,
    as it would not under the entropy of the mean.
    """
    variance = code_variance(alpha, codebook)
    prior = code_variance(torch.full_like(alpha[..., :1, :], at_prior), codebook)
    return variance / (variance + prior)


@dataclass(frozen=True)
class DicFaceOptions(TaskOptions):
    """DicFace's parameters. Mode colourise is for the checkpoint color_100k, inpaint for inpainting_100k.

    Attributes:
        dirichlet: "mean" weighs the codes by the mean of their distribution; "sample" draws the weights, as the official code does, from
            the seed, the person and the frame's number.
    """

    fidelity: float = parameter(1.0, 0, 1, advice="0 invents the cleanest face, 1 keeps what the input shows.", step=0.05)
    dirichlet: Literal["mean", "sample"] = parameter(
        "mean", advice="mean takes the expected face; sample draws one by the seed, as the official script does."
    )


SMALL_PRIOR = 0.1
"""alpha of the Dirichlet prior in the training of small networks, as in the options file of the paper's code."""


@dataclass(frozen=True)
class Trained:
    """How weights were trained, as `fvr train dicface` records it; the defaults are those of the published weights.

    Attributes:
        task: the only mode they are for; None if the file does not say.
        filled: whether they expect holes filled from their surroundings instead of white.
        least: the w that fidelity 0 stands for.
        prior: alpha of the Dirichlet prior.
    """

    task: Mode | None = None
    filled: bool = False
    least: float = 0.0
    prior: float = 1.0

    def check(self, mode: Mode) -> None:
        """Raises ValueError for a mode that they were not trained for."""
        if self.task is not None and mode != self.task:
            raise ValueError(
                f"these DicFace weights were trained to {self.task}, and the mode is {mode}: set the mode to {self.task}, or load weights "
                f"trained to {mode} (the embedded ones have that in their name)"
            )


class DicFaceRestorer(NetworkRestorer):
    """DicFace for clips of any length, from one frame up; the ends of a clip are repeated to fill the window."""

    name = "dicface"
    supports: frozenset[Capability] = frozenset({"masks", "uncertainty"})
    options_type = DicFaceOptions
    network: DicFace
    options: DicFaceOptions

    def __init__(self, network: DicFace, options: Any = None, *, place: Placement | None = None, trained: Trained | None = None) -> None:
        trained = trained or Trained()
        if options is None and trained.task is not None:
            options = DicFaceOptions(mode=trained.task)
        super().__init__(network, options, place=place)
        trained.check(self.options.mode)
        self.trained = trained
        self.look_ahead = (network.frame_length - 1) // 2

    @classmethod
    def of_file(cls, network: DicFace, options: Any = None, *, place: Placement | None = None, notes: Mapping[str, str]) -> Self:
        """See NetworkRestorer.of_file; `fvr train dicface` writes task, holes, fidelity and prior."""
        task: Any = notes.get("task")
        trained = Trained(
            task,
            notes.get("holes") == "filled",
            LEAST if notes.get("fidelity") == "1" else 0.0,
            SMALL_PRIOR if notes.get("prior") == f"{SMALL_PRIOR:g}" else 1.0,
        )
        return cls(network, options, place=place, trained=trained)

    def configured(self, **changes: Any) -> Self:
        other = super().configured(**changes)
        other.trained.check(other.options.mode)
        return other

    @property
    def task(self) -> Task:
        """The task of the options, adapted to the weights. Networks smaller than the crops only colourise: their luminance would blur the crops."""
        task = self.options.task
        small = task.mode == "colourise" and self.side < CROP
        return replace(task, keep_luminance=task.keep_luminance or small, filled=self.trained.filled)

    @property
    def weight(self) -> float:
        """w of the generator: fidelity mapped to the range of w that suits the weights."""
        return weight_of(self.options.fidelity, self.trained.least)

    @property
    def use(self) -> Use:
        return Use(self.weight)

    def repaints(self, track: FaceTrack | None = None) -> bool:
        return self.options.task.repaints

    @property
    def own_warm_up(self) -> WarmUp:
        return WarmUp(before=self.network.frame_length - 1 - self.look_ahead)

    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> DicFaceSession:
        """See Restorer.open; the seed matters only where weights are sampled."""
        return DicFaceSession(self, track, seed, check_interrupt)

    def resume(self, track: FaceTrack | None, first: int, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> DicFaceSession:
        return DicFaceSession(self, track, seed, check_interrupt, first)


class DicFaceSession(WindowSession):
    """One person's clip. Holds the tokens of a window (0.5 MB a frame) and the encoder's features of `look_ahead` + 1 frames (45 MB each)."""

    restorer: DicFaceRestorer

    def __init__(self, restorer: DicFaceRestorer, track: FaceTrack | None, seed: int, check_interrupt: CheckInterrupt, first: int = 0) -> None:
        super().__init__(restorer, restorer.task, track, restorer.own_warm_up.before, restorer.look_ahead, check_interrupt)
        self._person = (seed, 0 if track is None else track.person)
        self._start = first + (0 if track is None else track.start)
        self._maps: list[Tensor] = []

    def maps(self) -> dict[str, Tensor]:
        """See Session.maps. "uncertainty" is `uncertainty` at the code map's places, enlarged bilinearly."""
        maps, self._maps = self._maps, []
        return {"uncertainty": F.interpolate(torch.cat(maps).float(), (CROP, CROP), mode="bilinear")} if maps else {}

    def _encode(self, picture: Tensor, index: int) -> CodedFrame:
        latent, features = self.network.encode(picture)
        return CodedFrame(index, self.network.tokens(latent), latent, features)

    def _decode(self, window: list[CodedFrame], frame: CodedFrame) -> Tensor:
        centre = self._window.before
        alpha = self.network.alpha(torch.stack([other.seen for other in window], 1), slice(centre, centre + 1))[:, 0]
        if self.return_maps:
            self._maps.append(as_map(uncertainty(alpha, self.network.quantize.embedding.weight, self.restorer.trained.prior)[..., None]).half().cpu())
        if self.restorer.options.dirichlet == "sample":
            weights = dirichlet_sample(alpha, *self._person, self._start + frame.index)
        else:
            weights = dirichlet_mean(alpha)
        return self.network.decode(weights, frame.features, self.restorer.weight)
