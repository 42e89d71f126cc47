"""Distances between sets of images in a network's features: the formulas of FID and KID, and an FVD-like distance over pieces of clips.

Values are comparable only for the same network: published ones use TensorFlow's Inception (FID, KID) and I3D (FVD), which are not available here.
Features therefore carry the name of their network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.checkpoints.fill import fill
from .identity import EmbeddedIdentity, identity_crop

INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"
"""torchvision's weights of Inception v3, searched for in model folders and torch's checkpoint folder; never downloaded."""
PIECE_LENGTH, STRIDE = 16, 8
"""Frames per piece of a clip, as for I3D, and their stride."""


@dataclass(frozen=True)
class Features:
    """Maps images (n, 3, H, W) in [0, 1] to features (n, D) float64 on the CPU; `name` is the network's display name."""

    name: str
    of: Callable[[Tensor], Tensor]


def inception_features(weights: Path, device: torch.device | str = "cpu") -> Features:
    """The 2048 pooled features of torchvision's Inception v3 at 299 x 299.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else.
    """
    from torchvision.models import inception_v3

    with torch.device("meta"):
        network = inception_v3(weights=None, init_weights=False, transform_input=True)
    fill(network, weights, "Inception v3", "take it out of the model folder, and the embedded features are taken", device)
    network.fc = torch.nn.Identity()  # type: ignore[assignment]

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        seen = F.interpolate(pictures.to(device, torch.float32), (299, 299), mode="bilinear", antialias=True)
        mean, deviation = (seen.new_tensor(numbers)[:, None, None] for numbers in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return network((seen - mean) / deviation).cpu().double()

    return Features("torchvision's Inception v3", features)


def identity_features(landmarks: Tensor, device: torch.device | str = "cpu") -> Features:
    """The bundled identity embedding of aligned crops with this landmark template (5, 2)."""
    embed = EmbeddedIdentity(device)

    def features(pictures: Tensor) -> Tensor:
        return embed(torch.stack([identity_crop(picture, landmarks, *embed.place) for picture in pictures]))

    return Features("the embedded identity network", features)


def available_features(landmarks: Tensor, folders: Iterable[Path] = (), device: torch.device | str = "cpu") -> Features:
    """`inception_features` if its file is in `folders` or torch's checkpoint folder, else `identity_features`."""
    for folder in (*folders, Path(torch.hub.get_dir()) / "checkpoints"):
        if (folder / INCEPTION_FILE).is_file():
            return inception_features(folder / INCEPTION_FILE, device)
    return identity_features(landmarks, device)


def over_time(features: Tensor) -> Tensor:
    """Temporal features (n, 2 D) of a clip's features (T, D): mean and mean absolute frame difference over pieces of 16 frames with stride 8.

    Shorter clips are one piece.

    Raises:
        ValueError: for fewer than two frames.
    """
    if len(features) < 2:
        raise ValueError(f"features over time are of two frames or more, got {len(features)}")
    starts = range(0, max(len(features) - PIECE_LENGTH, 0) + 1, STRIDE)
    pieces = [features[start : start + PIECE_LENGTH] for start in starts]
    return torch.stack([torch.cat([piece.mean(0), piece.diff(dim=0).abs().mean(0)]) for piece in pieces])


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of features (n, D) and (m, D): FID's formula (Heusel et al. 2017, eq. 6).

    Covariances of few images are biased, so sets of different sizes are not comparable.

    Raises:
        ValueError: for fewer than two pictures, or features of two widths.

    >>> features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(features, features + 1), 3)  # moved by 1 in 4 directions
    4.0
    """
    _check(first, second)
    (m1, c1), (m2, c2) = ((x.mean(0), torch.cov(x.mT).reshape(x.shape[1], -1)) for x in (first.double(), second.double()))
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp_min(0).sqrt().sum()
    return float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * cross)


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """The unbiased squared MMD with the kernel (x y / D + 1)^3 of features (n, D) and (m, D): KID's formula (Binkowski et al. 2018); may be negative.

    Raises:
        ValueError: as `frechet_distance`.
    """
    _check(first, second)
    x, y = first.double(), second.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def _check(first: Tensor, second: Tensor) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(f"sets of at least 2 features (n, D) of one width are compared, got {tuple(first.shape)}, {tuple(second.shape)}")
