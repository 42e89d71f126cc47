"""The few core nodes of ComfyUI that our workflows use, for `fvr run` without ComfyUI: they load a picture, and save or show pictures and texts.

Ids, sockets and pixels are as in ComfyUI (nodes.py of 0.33); inside ComfyUI its own nodes run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import host
from ..host.local_paths import check_prefix
from .io import io, ui


class LoadImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadImage",
            display_name="Load Image",
            category="image",
            inputs=[io.Combo.Input("image", options=host.input_files("image"), upload=io.UploadType.image)],
            outputs=[io.Image.Output("IMAGE"), io.Mask.Output("MASK")],
        )

    @classmethod
    def validate_inputs(cls, image):
        try:
            host.resolve_input(image)
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, image):
        return host.file_fingerprint(image)

    @classmethod
    def execute(cls, image):
        from PIL import Image, ImageOps

        with Image.open(host.resolve_input(image)) as opened:
            upright = ImageOps.exif_transpose(opened)
            pixels = _unit(np.asarray(upright.convert("RGB")))
            alpha = _unit(np.asarray(upright.getchannel("A"))) if "A" in upright.getbands() else None
        return io.NodeOutput(pixels[None], torch.zeros(1, 64, 64) if alpha is None else 1 - alpha[None])


class SaveImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SaveImage",
            display_name="Save Image",
            category="image",
            is_output_node=True,
            inputs=[io.Image.Input("images"), io.String.Input("filename_prefix", default="ComfyUI")],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix="ComfyUI"):
        try:
            check_prefix(filename_prefix or "ComfyUI", host.output_directory())
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, images, filename_prefix="ComfyUI"):
        return io.NodeOutput(images, ui={"images": _write(images, filename_prefix, "output")})


class PreviewImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PreviewImage", display_name="Preview Image", category="image", is_output_node=True, inputs=[io.Image.Input("images")]
        )

    @classmethod
    def execute(cls, images):
        return io.NodeOutput(ui={"images": _write(images, "preview", "temp")})


class PreviewAny(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PreviewAny",
            display_name="Preview as Text",
            category="utilities",
            is_output_node=True,
            inputs=[io.AnyType.Input("source")],
            outputs=[io.String.Output("STRING")],
        )

    @classmethod
    def execute(cls, source=None):
        text = source if isinstance(source, str) else _as_text(source)
        return io.NodeOutput(text, ui={"text": (text,)})


CORE_NODES: dict[str, type[io.ComfyNode]] = {"LoadImage": LoadImage, "SaveImage": SaveImage, "PreviewImage": PreviewImage, "PreviewAny": PreviewAny}


def _as_text(value: Any) -> str:
    """Numbers and switches as Python prints them, plain data as JSON, anything else as it describes itself."""
    if value is None or isinstance(value, (int, float, bool)):
        return str(value)
    try:
        return json.dumps(value, indent=4, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def _unit(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def _write(images: Tensor, prefix: str, kind: str) -> Sequence[ui.SavedResult]:
    """PNG files of an IMAGE, each value cut to 8 bits as ComfyUI does, not rounded."""
    from PIL import Image

    written = []
    for image in images:
        path, subfolder, name = host.next_output_path(prefix, ".png", kind=kind, width=image.shape[1], height=image.shape[0])
        Image.fromarray(np.clip(255.0 * image.float().cpu().numpy(), 0, 255).astype(np.uint8)).save(path, compress_level=4)
        written.append(ui.SavedResult(name, subfolder, io.FolderType[kind]))
    return written
