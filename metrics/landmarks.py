"""Landmark distances between the restored clip and the reference.

Landmarks are (T, K, 2) from any detector, x to the right and y down, NaN in frames without the face. Results are in the same unit; papers use pixels
of an aligned 512 x 512 crop.
"""

from __future__ import annotations

import torch
from torch import Tensor


def landmark_distance(found: Tensor, truth: Tensor) -> Tensor:
    """d_t = mean over points of |l_t - g_t| per frame: (T,) float64, NaN where either is unknown.

    Its mean over the frames is AKD, the average keypoint distance (KEEP, after Tzaban et al. 2022; DicFace), its standard deviation
    sigma_AKD (KEEP).

    Raises:
        ValueError: if the two are not (T, K, 2) of one shape.

    >>> truth = torch.zeros(2, 5, 2)
    >>> landmark_distance(truth + torch.tensor([3.0, 4.0]), truth)
    tensor([5., 5.], dtype=torch.float64)
    """
    _check(found, truth)
    return (found.double() - truth.double()).norm(dim=-1).mean(-1)


def landmark_motion_error(found: Tensor, truth: Tensor) -> Tensor:
    """e_t = mean over points of |(l_t - l_(t-1)) - (g_t - g_(t-1))|, per frame: (T,) float64, NaN for the first and where a point is unknown.

    Its mean over the frames is our TLME. PGTFormer and DicFace report a "TLME" without a definition (DicFace's issue 8 asks); this reading fits
    its name and use: the error of the landmarks' motion.

    Raises:
        ValueError: if the two are not (T, K, 2) of one shape.
    """
    _check(found, truth)
    away = found.double() - truth.double()
    return torch.cat([away.new_full((min(len(away), 1),), torch.nan), away.diff(dim=0).norm(dim=-1).mean(-1)])


def _check(found: Tensor, truth: Tensor) -> None:
    if found.shape != truth.shape or found.ndim != 3 or found.shape[-1] != 2:
        raise ValueError(f"landmarks to compare are (T, K, 2) of one shape, got {tuple(found.shape)} and {tuple(truth.shape)}")
