"""Occluded fraction of a face, without a network: colours at mesh vertices compared with the same track's other frames."""

from __future__ import annotations

import base64
from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor

from ..align import warp_crop
from ..compositing.strength import smoothstep, structural_dissimilarity
from ..geometry import compose_affine, similarity

# fmt: off
POINTS = (
    275, 299, 170, 46, 394, 345, 187, 108, 14, 133, 433, 374, 322, 428, 165, 118, 276, 285, 214, 209, 91, 266, 201, 412, 65, 335, 434, 347, 267,
    123, 144, 282, 355, 216, 427, 151, 3, 327, 210, 35, 313, 72, 97, 337, 168, 105, 55, 265, 205, 280, 120, 9, 402, 466, 442, 199, 364, 36, 398,
    352, 287, 262, 84, 348, 61, 50, 425, 45, 376, 326, 235, 296, 194, 158, 325, 122, 29, 422, 42, 192, 130, 248, 204, 431, 269, 350, 18, 416, 164,
    279, 12, 436, 406, 114, 178, 207, 119, 293, 423, 203, 1, 315, 411, 426, 206, 169, 107, 336, 346, 22, 444, 208, 363, 261, 430, 43, 117, 417, 228,
    5, 395, 449, 197, 212, 257, 329, 32, 181,
)
"""Evenly spread vertices inside the mesh outline whose colours are compared: they move with head, lids and mouth."""
# fmt: on


def _decoded(text: str, *shape: int) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b85decode(text), np.uint8).astype(np.float32)).reshape(shape)


# by tools/fit_face_coverage.py on 443 portraits
TEMPLATE_POSITIONS = (
    "gPELGVAo4;snEZPNTzO8f52{gzpkBpoUM%AXsc3-vu}!RP`qrFXuzJBbk&D~WNDeiu)C~^hp|AGTYRKwkdRoeuc>}kc#DyuS;$9ziOzPkcBPJ0esxx4a&5SMRiLq#W{7@fjlQaQnQnjH",
    "vdCYVk$JzBq_&sWcF3TLV75(|sh@Y5z@mnwY@nHBYS3hMn7Vj=S8}7lYqm(XQF?-lW6Gb<k+G14f6uwKeyWn0f3~KrlFD(0alTNhUW%}0nxJE$eV~ZMxTT?{U8h*kaAk~Tw1{SasBd%K",
    "h?B8^r^sNwONoYdQG<Pvq1UH`euG!JpmCRtXxDDV",
)
"""Positions (x, y) of POINTS on the template, in units of POSITION_UNIT pixels."""
POSITION_UNIT = 2.0
FACE_BRIGHTNESS = (
    "cXnZ2R$XI)XHHc|TyAc9QDtXxXm)mCRb*duXjo2CY+hc3cv5I*XJA-=dvIi4b#HWlRXRv@R((cWTWM=^Q+028T1#Vbb2&e4TWLyPP;_!+U1w=pSYcgRV{%?*cVAmzYiC?rUtWBCZedq-",
    "YF}b#bYyRSS!aE0RCaP|",
)
"""Mean brightness of faces at POINTS, in units of 1/255, normalised to MEDIAN_BRIGHTNESS."""
SIDE = 96
"""Side in pixels of the aligned crop from which colours are sampled; it covers 352 template pixels around the mesh."""
MEDIAN_BRIGHTNESS = 0.4
"""Median to which the brightness of every face is normalised."""
NEIGHBOURS = 17
"""Number of nearest points, itself included, over which structure is compared."""
COLOUR, STRUCTURE, LIGHT = (0.10, 0.25), (0.35, 0.70), (0.80, 1.30)
"""Smoothstep edges, from visible to occluded, of a point's excess difference from the track's reference: in colour (opponents over brightness), in
1 - SSIM around it, and in log brightness. Shadows change only the last, and by less."""
TOLERANCE = 2.0
"""Multiple of a point's median difference that is tolerated: noise, moving lids and lips."""
CLEAR_ONE_IN = 3
"""One in this many frames, those most similar to a mean face in structure, forms the reference of the visible face."""
MIN_DETECTIONS = 8
"""With fewer detections there is no reference, and the occluded fraction is 0."""
MAX_REFERENCE_FRAMES = 240
"""Largest number of frames, spread over the track, from which the reference is taken."""


def colours(frame: Tensor, landmarks: Tensor, mesh: Tensor, aspect: float = 1.0) -> Tensor:
    """(P, 3) uint8 RGB at POINTS of a mesh (468, 2 or 3) in a frame (3, H, W), aligned by landmarks (5, 2) and low-passed to SIDE pixels.

    aspect: width / height of one pixel.
    """
    zoom = SIDE / 352
    crop = torch.tensor([[zoom, 0, -82 * zoom], [0, zoom, -126 * zoom]], dtype=torch.float64)
    matrix = compose_affine(crop, similarity(landmarks, aspect).double())
    picture = cv2.GaussianBlur(warp_crop(frame, matrix, SIDE).permute(1, 2, 0).numpy(), (0, 0), 1.2)
    x, y = (mesh[list(POINTS), :2].double() @ matrix[:, :2].mT + matrix[:, 2]).float().numpy().T
    found = cv2.remap(picture, np.ascontiguousarray(x)[:, None], np.ascontiguousarray(y)[:, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy((found[:, 0] * 255).round().clip(0, 255).astype(np.uint8))


def covered(seen: Tensor) -> Tensor:
    """(n,) fraction of occluded points in [0, 1], from one track's colours (n, P, 3) uint8.

    A point is occluded where its colour, brightness or local structure differs from the track's reference. Global illumination, white balance and
    local light strength are normalised away. Whatever is there in all frames counts as face: beards, glasses, make-up, and objects that never leave.
    """
    if len(seen) < MIN_DETECTIONS:
        return torch.zeros(len(seen))
    some = seen[torch.linspace(0, len(seen) - 1, min(len(seen), MAX_REFERENCE_FRAMES)).round().long()]
    light, tint = appearance(some)
    usual = _decoded("".join(FACE_BRIGHTNESS), 1, len(POINTS)) / 255
    clear = structure(light, usual).mean(1).argsort(dim=0, stable=True)[: max(len(some) // CLEAR_ONE_IN, MIN_DETECTIONS // 2)]
    face = light[clear].median(0, keepdim=True).values, tint[clear].median(0, keepdim=True).values
    tolerance = [TOLERANCE * d.quantile(0.5, 0) for d in differences((light[clear], tint[clear]), face)]
    out = []
    for part in seen.split(512):
        parts = zip(differences(appearance(part), face), tolerance, (COLOUR, STRUCTURE, LIGHT), strict=True)
        out.append(torch.stack([smoothstep((d - usual).clamp(min=0), *between) for d, usual, between in parts]).amax(0).mean(1))
    return torch.cat(out).float()


def appearance(seen: Tensor) -> tuple[Tensor, Tensor]:
    """From colours (n, P, 3) uint8: brightness (n, P) with median MEDIAN_BRIGHTNESS, opponent colours over brightness (n, P, 2) with median 0."""
    rgb = seen.float() / 255
    rgb = rgb * (MEDIAN_BRIGHTNESS / rgb.mean(-1).median(1).values.clamp(min=0.02))[:, None, None]
    light = rgb.mean(-1)
    tint = torch.stack([rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]], -1) / (light + 0.1)[..., None]
    return light, tint - tint.median(1, keepdim=True).values


def differences(face: tuple[Tensor, Tensor], usual: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Differences (n, P) in colour, structure and light between two appearances."""
    (light, tint), (light_usual, tint_usual) = face, usual
    return (tint - tint_usual).norm(dim=-1), structure(light, light_usual), ((light + 0.04) / (light_usual + 0.04)).log().abs()


def structure(a: Tensor, b: Tensor) -> Tensor:
    """`structural_dissimilarity` of locally normalised brightness (n, P) around each point."""

    def local(light: Tensor) -> Tensor:
        near = light[:, neighbours()]
        near = near / (near.mean(-1, keepdim=True) + 0.05)
        return near - near.mean(-1, keepdim=True)

    x, y = local(a), local(b)
    return structural_dissimilarity((x * y).mean(-1), x.square().mean(-1), y.square().mean(-1))


@cache
def neighbours() -> Tensor:
    """(P, NEIGHBOURS) indices of each point's nearest points on the template, itself first."""
    places = POSITION_UNIT * _decoded("".join(TEMPLATE_POSITIONS), len(POINTS), 2)
    return torch.cdist(places, places).argsort(dim=1, stable=True)[:, :NEIGHBOURS]
