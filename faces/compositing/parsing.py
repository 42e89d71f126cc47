"""Face parsing: ParseNet's classes as a soft face mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.checkpoints.fill import fill
from ...models.device import Placed, Placement, on
from ...models.facexlib_networks import facexlib_class
from ..types import CROP

Parser = Callable[[Tensor], Tensor]
"""Maps crops (n, 3, 512, 512) in [0, 1] to masks (n, 512, 512) in [0, 1]."""
FACE_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15)
"""ParseNet's classes that count as face: all but background (0), hat (14), necklace (16), neck (17) and clothes (18)."""
WORKING_BYTES = 1 << 29
"""Upper bound of working memory per crop."""
BORDER = 10
"""Width in pixels of the crop's border that is masked out."""


def load_parser(weights: Path | str, *, device: str | torch.device = "cpu", placed: Placed | None = None) -> Parser:
    """ParseNet from a local parsing_parsenet.pth (read with weights_only), as a `Parser`.

    Args:
        placed: decides where the network runs; None keeps it on `device`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else.
        ImportError: if facexlib cannot be imported.
    """
    net = facexlib_class("parsing.parsenet", "ParseNet")(in_size=CROP, out_size=CROP, parsing_ch=19)
    fill(net, weights, "ParseNet", "take it out of the model folder, and faces are masked without a parser")
    return NetworkParser(net, on(net, device) if placed is None else placed(net), 1 if torch.device(device).type == "cpu" else 4)


@dataclass(frozen=True, eq=False)
class NetworkParser:
    """ParseNet as a `Parser`, run on `batch` crops at a time."""

    network: nn.Module
    place: Placement
    batch: int

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Tensor:
        masks = [soft_mask(self.classes(chunk)) for chunk in crops.split(self.batch)]
        return torch.cat(masks) if masks else crops.new_zeros((0, CROP, CROP))

    def classes(self, crops: Tensor) -> Tensor:
        """Class indices (n, 512, 512) on the CPU."""
        return self.network(crops.to(self.place(len(crops) * WORKING_BYTES)) * 2 - 1)[0].argmax(1).cpu()


def soft_mask(classes: Tensor) -> Tensor:
    """Mask (n, H, W) in [0, 1] from class indices: FACE_CLASSES, blurred twice with sigma 11, 0 within BORDER."""
    hard = torch.isin(classes, torch.tensor(FACE_CLASSES)).float()
    soft = []
    for mask in hard.numpy():
        for _ in range(2):
            mask = cv2.GaussianBlur(mask, (101, 101), 11)
        soft.append(torch.from_numpy(mask))
    inner = torch.stack(soft)[:, BORDER:-BORDER, BORDER:-BORDER]
    return F.pad(inner, (BORDER, BORDER, BORDER, BORDER))
