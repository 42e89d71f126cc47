"""What a sampler needs of a diffusion model: clean-frame estimates on a known noise schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..diffusion.schedule import Schedule


class Prior(ABC):
    """A denoiser seen as a diffusion prior.

    Attributes:
        schedule: the training noise schedule; `t` below indexes it (0 is the cleanest step).
        native_size: the side in pixels the network was trained for, or None for any size.
        temporal: whether the frames of one call influence each other.
        conditional: whether a condition makes a difference; guidance needs no second call where it does not.
        batch: frames that one call should have where they do not influence each other.
        upsampling: how a smaller observation becomes its condition: "bicubic", or "area", which for whole factors repeats pixels.
    """

    schedule: Schedule
    native_size: int | None = None
    temporal: bool = False
    conditional: bool = True
    batch: int = 1
    upsampling: str = "bicubic"

    @abstractmethod
    def predict_x0(self, x_t: Tensor, t: int, condition: Tensor | None = None) -> Tensor:
        """E[x_0 | x_t]: (N, 3, H, W) in [-1, 1] range from x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps.

        condition: the observation brought to the size of x_t, in [-1, 1], or None for the unconditional estimate.
        """
