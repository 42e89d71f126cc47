"""Boxes, landmarks, and similarity transforms to the 512 template."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from .types import CROP

TEMPLATE = torch.tensor(
    [[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043], [313.08905, 371.15118]], dtype=torch.float64
)
"""(5, 2) FFHQ landmarks in a 512 crop: left eye, right eye, nose, left and right mouth corner."""

FACE_BOX = (115.0, 98.0, 378.0, 456.0)
"""Mean detector box on the template (x0, y0, x1, y1), over MTCNN's upright detections on nine clips."""


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Pairwise IoU of boxes a (N, 4) and b (M, 4), as (N, M) in [0, 1]; 0 where either box is empty."""
    corner = torch.maximum(a[:, None, :2], b[None, :, :2])
    shared = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - corner).clamp(min=0).prod(-1)
    union = area(a)[:, None] + area(b)[None] - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def area(boxes: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4) in square pixels, 0 for inverted boxes."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def side(boxes: Tensor) -> Tensor:
    """Side in pixels of the square with the same area as the box: sqrt(area)."""
    return area(boxes).sqrt()


def landmarks_in_box(boxes: Tensor) -> Tensor:
    """The template's landmarks (..., 5, 2) placed in boxes (..., 4), for detectors without landmarks."""
    x0, y0, x1, y1 = FACE_BOX
    share = (TEMPLATE - torch.tensor([x0, y0])) / torch.tensor([x1 - x0, y1 - y0])
    share = share.to(boxes)
    return boxes[..., None, :2] + share * (boxes[..., None, 2:] - boxes[..., None, :2])


def similarity(landmarks: Tensor, aspect: float = 1.0) -> Tensor:
    """The transform S diag(aspect, 1), (2, 3) float32, from landmarks (5, 2) to the template; the similarity S is a least-median-of-squares fit.

    aspect: width / height of one pixel; S acts in display space. Deterministic. Falls back to the least-squares similarity of `umeyama` where
    the robust fit fails (coincident or collinear points).

    Raises:
        ValueError: if a landmark is not finite.
    """
    stretch = torch.tensor([[aspect, 0, (aspect - 1) / 2], [0, 1, 0]], dtype=torch.float64)  # pixel centres on integers
    points = landmarks.detach().cpu().double() @ stretch[:, :2].mT + stretch[:, 2]
    if not torch.isfinite(points).all():
        raise ValueError(f"landmarks must be finite to align a face, got {points.tolist()}; drop the detection")
    cv2.setRNGSeed(0)
    fit, _ = cv2.estimateAffinePartial2D(points.numpy(), TEMPLATE.numpy(), method=cv2.LMEDS)
    if fit is not None and np.isfinite(fit).all() and np.linalg.det(fit[:, :2]) > 1e-8:
        return compose_affine(torch.from_numpy(fit), stretch).float()
    return compose_affine(umeyama(points, TEMPLATE), stretch).float()


def compose_affine(outer: Tensor, inner: Tensor) -> Tensor:
    """The affine transform (2, 3) outer(inner(x))."""
    return torch.cat([outer[:, :2] @ inner[:, :2], (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]], 1)


def umeyama(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares similarity without reflection: argmin over (s, R, t) of sum |s R p + t - q|^2, as (2, 3) (Umeyama 1991).

    source, target: (K, 2). Coincident source points give a pure translation.
    """
    p_mean, q_mean = source.mean(0), target.mean(0)
    p, q = source - p_mean, target - q_mean
    spread = (p**2).sum()
    if spread < 1e-9:
        linear = torch.eye(2, dtype=source.dtype)
    else:
        a = (p * q).sum() / spread
        b = (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / spread
        linear = torch.stack([torch.stack([a, -b]), torch.stack([b, a])])
        if torch.linalg.det(linear) < 1e-8:
            linear = torch.eye(2, dtype=source.dtype) * ((q**2).sum() / spread).sqrt()
    return torch.cat([linear, (q_mean - linear @ p_mean)[:, None]], 1)


def inverse(matrices: Tensor) -> Tensor:
    """Inverse transforms (..., 2, 3) of affine transforms (..., 2, 3), float64."""
    linear = torch.linalg.inv(matrices[..., :2].double())
    return torch.cat([linear, -linear @ matrices[..., 2:].double()], -1)


def scales(matrices: Tensor) -> Tensor:
    """Crop pixels per frame pixel, (...) float64: sqrt|det| of the linear part."""
    return torch.linalg.det(matrices[..., :2].double()).abs().sqrt()


def smooth(values: Tensor, sigma: float) -> Tensor:
    """Gaussian filter along the first axis, sigma in frames, half-sample reflection, truncated at 4 sigma; computed in float64.

    values: (N, ...). sigma 0 returns them unchanged. Constants are preserved up to rounding.
    """
    if sigma <= 0 or len(values) < 2:
        return values
    rows, taps = values.double().reshape(len(values), -1).numpy(force=True), 2 * int(4 * sigma + 0.5) + 1
    smoothed = cv2.GaussianBlur(rows, (1, taps), sigma, sigma, borderType=cv2.BORDER_REFLECT)
    return torch.from_numpy(smoothed).reshape(values.shape).to(values)


def smooth_path(places: Tensor, sigma: float, slack: Tensor) -> Tensor:
    """`smooth` of points (N, 2) that deviates from them by at most `slack` (N,), in pixels; float64.

        p = s + (1 - slack / |x - s|)+ (x - s),  s = smooth(x)

    Smooths noise below `slack` without lagging behind a face that accelerates, shakes with the camera, or moves at an end of its track, where s
    alone lags by up to 1.6 times the motion per frame at sigma 2.
    """
    smoothed = smooth(places.double(), sigma)
    miss = places.double() - smoothed
    return smoothed + (1 - slack.double() / miss.norm(dim=-1).clamp(min=1e-9)).clamp(min=0)[:, None] * miss


def steady(matrices: Tensor, sigma: float, path: Tensor | float = 0.0) -> Tensor:
    """Similarities (N, 2, 3) smoothed over time (centre and axes of the crop in the frame; Gaussian, sigma in frames); float32.

    A robust fit to smooth landmarks still jumps where its inliers change; this removes those jumps.

    path: (N, 2) frame positions relative to which the centre is smoothed.
    """
    back = inverse(matrices)
    middle = torch.full((2,), (CROP - 1) / 2, dtype=torch.float64)
    centre = smooth(back[..., :2] @ middle + back[..., 2] - path, sigma) + path
    axes = smooth(back[..., :2], sigma)
    return inverse(torch.cat([axes, (centre - axes @ middle)[..., None]], -1)).float()


def zoomed(matrices: Tensor, zoom: float) -> Tensor:
    """Transforms (..., 2, 3) to crops that are magnified `zoom` times about their centre; float64."""
    if zoom == 1:
        return matrices.double()
    middle = torch.full((2, 1), (CROP - 1) / 2, dtype=torch.float64)
    return torch.cat([zoom * matrices[..., :2].double(), zoom * (matrices[..., 2:].double() - middle) + middle], -1)


def crop_corners(matrix: Tensor, size: int = CROP) -> Tensor:
    """(4, 2) corners, in frame pixels, of the crop of `size` pixels under `matrix` (2, 3)."""
    corners = torch.tensor([[0, 0], [size - 1, 0], [size - 1, size - 1], [0, size - 1]], dtype=torch.float64)
    back = inverse(matrix)
    return corners @ back[:, :2].mT + back[:, 2]
