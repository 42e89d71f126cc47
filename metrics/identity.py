"""Identity similarity: cosine of face embeddings, by ArcFace (Deng et al., CVPR 2019) or the bundled network.

ArcFace is facexlib's IR-SE-50 with weights from a local file; nothing is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.checkpoints.fill import fill
from ..models.embedded import load_embedded
from ..models.face_embedding import PLACES, FaceEmbedding
from ..models.face_embedding import SIDE as EMBEDDED_SIDE
from ..models.facexlib_networks import facexlib_class

SIDE = 112
"""Side of ArcFace's input in pixels."""
TEMPLATE = torch.tensor([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], dtype=torch.float64)
"""(5, 2) ArcFace's template in that input (InsightFace): left eye, right eye, nose, left and right mouth corner."""

Embed = Callable[[Tensor], Tensor]
"""Maps faces (n, 3, 112, 112) RGB in [0, 1] to unit vectors (n, D) float64 on the CPU."""


def load_arcface(weights: Path | str, device: torch.device | str = "cpu") -> Embed:
    """ArcFace from recognition_arcface_ir_se50.pth, read with weights_only.

    It was trained on BGR pictures in [-1, 1] (the author's data pipeline; TreB1eN/InsightFace_Pytorch, issue 13).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else.
        ImportError: if facexlib cannot be imported.
    """
    backbone = facexlib_class("recognition.arcface_arch", "Backbone")
    with torch.device("meta"):  # the weights are the file's, so none are drawn
        network = backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
    fill(network, weights, "ArcFace IR-SE-50", "take it out of the model folder, and identity is left out", device)

    @torch.no_grad()
    def embed(faces: Tensor) -> Tensor:
        found = network(faces.flip(1).to(device, torch.float32) * 2 - 1)
        return F.normalize(found.cpu().double(), dim=-1)

    return embed


class EmbeddedIdentity:
    """The bundled embedding as an `Embed` of faces (n, 3, 150, 150); `place` is its template and side for `identity_crop`."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.network, self.device = load_embedded(FaceEmbedding, device), device
        self.place = (torch.tensor(PLACES, dtype=torch.float64), EMBEDDED_SIDE)

    @torch.no_grad()
    def __call__(self, faces: Tensor) -> Tensor:
        return F.normalize(self.network(faces.to(self.device, torch.float32)).cpu().double(), dim=-1)


def alignment_of(embed: Embed) -> tuple[Tensor, int]:
    """Template and side of the aligned faces that a network expects."""
    return getattr(embed, "place", (TEMPLATE, SIDE))


def identity_crop(frame: Tensor, landmarks: Tensor, template: Tensor = TEMPLATE, side: int = SIDE) -> Tensor:
    """Aligned face (3, side, side) float32 at landmarks (5, 2) of frame (3, H, W), by default for ArcFace; border replicated.

    Larger faces are supersampled and averaged against aliasing.

    Raises:
        ValueError: if the landmarks are not five finite points.
    """
    if landmarks.shape != (5, 2) or not bool(landmarks.isfinite().all()):
        raise ValueError(f"a face is aligned by five finite landmarks (5, 2), got {landmarks.tolist()}; leave out frames without the face")
    turn, shift = _similarity(template, landmarks.cpu().double())
    dense = max(1, math.ceil(abs(turn)))
    steps = (torch.arange(side * dense, dtype=torch.float64) + 0.5) / dense - 0.5
    places = turn * torch.complex(steps.expand(len(steps), -1), steps[:, None].expand(-1, len(steps))) + shift
    height, width = frame.shape[-2:]
    grid = torch.stack([(2 * places.real + 1) / width - 1, (2 * places.imag + 1) / height - 1], -1).to(frame.device, torch.float32)
    found = F.grid_sample(frame[None].float(), grid[None], mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(found, dense)[0]


def _similarity(source: Tensor, target: Tensor) -> tuple[complex, complex]:
    """Least-squares similarity (a, b), target = a z + b, for source points z (K, 2), as complex numbers x + iy."""
    z, w = (torch.complex(points[:, 0], points[:, 1]) for points in (source, target))
    middle, aim = z.mean(), w.mean()
    turn = ((z - middle).conj() * (w - aim)).sum() / (z - middle).abs().square().sum()
    return complex(turn), complex(aim - turn * middle)
