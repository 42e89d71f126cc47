"""Data residual: whether the restored clip x explains the footage y, A x = y."""

from __future__ import annotations

from torch import Tensor


def residual_rms(explained: Tensor, observation: Tensor) -> Tensor:
    """RMS of A x - y per frame, for frames in [0, 1]: (N,) float64, 0 to 1.

    Relative to the noise's standard deviation it is about 1 for the true x. Above that, x does not explain y (or the degradation is wrong);
    far below, x fits the noise. 20 log10(1 / rms) is the PSNR of A x against y.

    explained, observation: A x and y, (N, C, H, W) of one shape.

    Raises:
        ValueError: if the shapes differ.
    """
    if explained.shape != observation.shape or observation.ndim != 4:
        raise ValueError(
            f"under the degradation the restored frames become {tuple(explained.shape)} and the observation is {tuple(observation.shape)}; "
            "wire the degradation that leads from the restored size to the observation's"
        )
    return (explained.double() - observation.double()).square().mean((1, 2, 3)).sqrt()
