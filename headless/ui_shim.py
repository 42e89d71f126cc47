"""Nodes' `ui` results without ComfyUI: the same dictionaries, from which `fvr run` lists the written files."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import host
from .io_shim import FolderType


class SavedResult(dict):
    """One written file: its name, its folder below the input, output or temp directory, and which of the three."""

    def __init__(self, filename: str, subfolder: str, type: FolderType) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)


class PreviewVideo:
    """Plays saved videos inside the node."""

    def __init__(self, values: Sequence[SavedResult], **_: Any) -> None:
        self.values = list(values)

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (True,)}


class PreviewImage:
    """Writes every image of a batch (B, H, W, C), in [0, 1], as a PNG into the temp directory and shows them."""

    def __init__(self, image: torch.Tensor, cls: Any = None, **_: Any) -> None:
        import cv2

        run = uuid.uuid4().hex[:12]
        self.values = []
        for index, picture in enumerate(image.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()):
            name = f"preview_{run}_{index:05}_.png"
            order = [2, 1, 0, 3][: picture.shape[-1]]
            written, png = cv2.imencode(".png", np.ascontiguousarray(picture[..., order]))
            if not written:
                raise ValueError(f"a preview of shape {picture.shape} cannot be written as PNG; pass 3 or 4 channels")
            (host.temp_directory() / name).write_bytes(png.tobytes())
            self.values.append(SavedResult(name, "", FolderType.temp))

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (False,)}
