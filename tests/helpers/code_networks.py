"""Small CodeFormers and DicFaces with seeded weights, moving pictures for them, and the frames of the parity references."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from torch import Tensor

from fvr.faces.types import FaceTrack
from fvr.models.code_prediction import CodeConfig
from fvr.models.codeformer.network import CodeFormer
from fvr.models.dicface.network import DicFace
from fvr.models.vq import VQConfig
from helpers.seeded_weights import seed_weights

DATA = Path(__file__).parents[1] / "data"
SMALL = CodeConfig(VQConfig(64, 32, (1, 2, 2), 1, frozenset({16}), 32, 64), width=128, heads=2, layers=2, fused=(32, 64))


def small_codeformer() -> CodeFormer:
    return seed_weights(CodeFormer(SMALL), "small")  # type: ignore[return-value]


def small_dicface(frame_length: int = 5) -> DicFace:
    return seed_weights(DicFace(SMALL, frame_length), "small")  # type: ignore[return-value]


def moving(count: int, side: int = 128, first: int = 0) -> Tensor:
    """(count, 3, side, side) in [0, 1]: a portrait that moves by a pixel or two a frame."""
    picture = torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1) / 255
    picture = torch.nn.functional.interpolate(picture[None, :, :256, 96:352], (side + 40, side + 40), mode="area")[0]
    return torch.stack([picture[:, t % 7 : t % 7 + side, t % 11 : t % 11 + side] for t in range(first, first + count)])


def track(person: int, start: int = 0, n: int = 9) -> FaceTrack:
    """The track of one person's crops."""
    flags = torch.ones(n)
    return FaceTrack(person, start, torch.zeros(n, 4), torch.zeros(n, 5, 2), torch.eye(2, 3).repeat(n, 1, 1), flags, flags.bool(), flags, (64, 64))


def published_frames(reference: dict[str, Tensor]) -> Tensor:
    """(n, 3, 512, 512) in [0, 1]: the lossless WebP pictures frame_0, frame_1... of a reference."""
    names = sorted(name for name in reference if name.startswith("frame_"))
    pictures = [cv2.imdecode(reference[name].numpy(), cv2.IMREAD_COLOR)[..., ::-1] for name in names]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255


def relative(x: Tensor, reference: Tensor) -> float:
    """Largest difference in units of the reference's largest value."""
    return float((x.double() - reference.double()).abs().max() / reference.double().abs().max())
