"""The interface of diffusion priors: clean-frame estimates on a known noise schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from ..diffusion.schedule import Schedule


class Prior(ABC):
    """A denoiser seen as a diffusion prior.

    Attributes:
        schedule: the training noise schedule; `t` below indexes it (0 is the cleanest step).
        native_size: the side in pixels the network was trained for, or None for any size.
        temporal: whether the frames of one call influence each other.
        conditional: whether the condition is used; if not, guidance needs no second call.
        batch: frames per call for priors that are not temporal.
        multiple: the sides of frames must be multiples of this, at every scale that the network works at.
        background: how much of the features propagated from frame to frame survives outside the face, in [0, 1] (FLAIR, eq. 17).
        learns_variance: whether the network predicts the variance of its steps, as DifFace's does (Nichol and Dhariwal 2021).
        upsampling: how a smaller observation is enlarged to the condition: "bicubic", or "area" (repeats pixels for whole factors).
    """

    schedule: Schedule
    native_size: int | None = None
    temporal: bool = False
    conditional: bool = True
    batch: int = 1
    upsampling: str = "bicubic"
    multiple: int = 1
    background: float = 1.0
    learns_variance: bool = False

    @abstractmethod
    def predict_x0(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t]: (N, 3, H, W) in [-1, 1] range from x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps.

        condition: the observation brought to the size of x_t, in [-1, 1], or None for the unconditional estimate.
        """

    def posterior(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
        """x_0 clamped to [-1, 1], without a condition, and the learnt variance: where it lies between the posterior's (0) and beta_t (1), on a
        logarithmic scale (Nichol and Dhariwal 2021, eq. 15); None where none was learnt."""
        return self.predict_x0(x_t, t).clamp(-1, 1), None

    def native(self) -> Prior:
        """The prior at the size its network was trained for: for a pyramid its coarse level, for others the prior itself."""
        return self

    def masked(self, parser: Callable[[Tensor], Tensor]) -> Prior:
        """The prior with a parser that finds the face; the prior itself where `background` makes no difference."""
        return self

    def scale_at(self, height: int, width: int) -> int:
        """How many times larger frames of this size are than the network's input."""
        return 1

    def working_bytes(self, frames: int, height: int, width: int) -> int:
        """Estimated memory of one call beside the weights, in bytes; 0 if unknown."""
        return 0
