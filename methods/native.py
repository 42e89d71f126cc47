"""Crops larger than a network's native side: its result at that side, completed by what the input itself knows better.

A network of side S sees a crop x of 512 pixels averaged down to S. Enlarging its answer a alone would soften every face that came in sharper
than S pixels show. So the crop is split into the part x_0 that the network saw and octaves h_1, h_2, ... above it (a Laplacian pyramid), and

    r = a + up(down(x_0 - a))        y_0 = r + c W_0 (x_0 - r)        y_k = up(y_(k-1)) + W_k h_k        result y_K

r keeps the input's own means over a 16 x 16 grid: no blur, noise or codec moves them much, and a small network does, by a few levels.
W_k is a Wiener gain from the local energy E of what it multiplies and its noise s^2: W = max(E - 3 s^2, 0) / E. The noise is the median
magnitude over the crop, less what clean faces have there; noise fills flat places too, detail does not. c in [0, 1] asks whether the input
is as sharp as the answer: it compares the two in the finest octave that the network saw,

    b = <B x_0, B r> / <B r, B r>

which noise does not raise, as it is uncorrelated with the answer. A blurred input (b small) is replaced (c = 0); one at least as sharp as
the answer (c = 1) keeps what it shows beyond its noise. A clean, sharp crop comes back as it was.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..faces.types import CROP
from .network import from_network, resized

GRID = 16
"""Cells along either side whose means the input decides; 8 gains 0.3 dB less on the embedded network, 32 brings noise back."""
BLURRED, SHARP = 0.6, 0.95
"""b up to which the network's answer replaces the input, and from which it does not; in between c rises smoothly."""
TEXTURE = 2.0 / 255
"""Median magnitude / 0.6745 of an octave of a clean face: what is above it counts as noise."""
CAUTION = 3.0
"""How many times its noise a place's energy must exceed before any of it is kept."""
NEIGHBOURHOOD = 7
"""Side of the window in which energy is averaged, in pixels of the octave."""


def completed(images: Tensor, crops: Tensor) -> Tensor:
    """A network's images as restored crops, with the detail that the input crops have beyond them.

    In a session, in place of `from_network(images)`:

        images = network(to_network(crops, side, device))
        restored = completed(images, crops)

    A network whose native side is 512 already gives what it should: nothing is completed.

    Args:
        images: (n, 3, S, S) around [-1, 1], on any device, what the network made of the crops.
        crops: (n, 3, H, W) in [0, 1], what `to_network` was given.

    Returns:
        (n, 3, 512, 512) float32 in [0, 1] on the CPU.

    Raises:
        ValueError: if the numbers of images and crops differ.
    """
    if len(images) != len(crops):
        raise ValueError(f"every crop is completed with its own image, got {len(images)} images and {len(crops)} crops; pass both of the same frames")
    side = images.shape[-1]
    if side >= CROP or not len(images):
        return from_network(images)
    restored = (images.detach().float().clamp(-1, 1) + 1) / 2
    return combined(restored, crops.to(restored)).clamp(0, 1).cpu().contiguous()


def combined(restored: Tensor, crops: Tensor) -> Tensor:
    """`completed` in [0, 1] on one device, not clamped: (n, 3, S, S) and (n, 3, H, W) to (n, 3, 512, 512)."""
    levels = [resized(crops, CROP, "bicubic")]
    while levels[-1].shape[-1] >= 2 * restored.shape[-1]:
        levels.append(F.avg_pool2d(levels[-1], 2))
    if levels[-1].shape[-1] != restored.shape[-1]:
        levels.append(resized(levels[-1], restored.shape[-1], "bilinear"))
    finer, seen = levels[:-1][::-1], levels[-1]
    restored = anchored(restored, seen)
    more = seen - restored
    result = restored + sharpness(seen, restored)[:, None, None, None] * clear_part(more)
    below = seen
    for level in finer:
        octave = level - enlarged(below, level)
        result = enlarged(result, level) + clear_part(octave)
        below = level
    return result


def anchored(restored: Tensor, seen: Tensor) -> Tensor:
    """`restored` with the coarse colours and light of `seen`: its means over a grid of GRID x GRID; (n, 3, S, S) both, in one range."""
    return restored + enlarged(F.adaptive_avg_pool2d(seen - restored, GRID), restored)


def sharpness(seen: Tensor, restored: Tensor) -> Tensor:
    """c per crop (n,): 0 where the network saw less detail than it gave back, 1 where it saw as much."""
    fine, reference = (_finest_octave(image.mean(1, keepdim=True)).flatten(1) for image in (seen, restored))
    projection = (fine * reference).sum(1) / (reference.square().sum(1) + 1e-8)
    share = ((projection - BLURRED) / (SHARP - BLURRED)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def clear_part(octave: Tensor) -> Tensor:
    """What of (n, 3, h, w) stands above its noise: the Wiener gain of each place times the octave."""
    level = octave.abs().flatten(1).median(1).values / 0.6745  # of a Gaussian, the standard deviation
    noise = (level.square() - TEXTURE**2).clamp_min(0)[:, None, None, None]
    margin = NEIGHBOURHOOD // 2
    energy = F.avg_pool2d(octave.square().mean(1, keepdim=True), NEIGHBOURHOOD, 1, margin, count_include_pad=False)
    return octave * ((energy - CAUTION * noise).clamp_min(0) / energy.clamp_min(1e-12))


def enlarged(image: Tensor, like: Tensor) -> Tensor:
    """`image` at the size of `like`, bicubic."""
    return F.interpolate(image, like.shape[-2:], mode="bicubic", align_corners=False)


def _finest_octave(image: Tensor) -> Tensor:
    return image - enlarged(F.avg_pool2d(image, 2), image)
