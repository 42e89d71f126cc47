"""Fusion of a small network's output with the crop: the output fills in what the input lacks, octave by octave, and nothing else.

A network of side S sees a crop of 512 pixels averaged down to S. Enlarging its output alone would soften every face that is sharper than S pixels
can show, and a small network's errors would replace what was right. So the input x and the output a are compared in the octaves of a Laplacian
pyramid, at sides 16, 32, ... up to S, after the contrast of the output is matched to the input's. With X_k and A_k their octaves (X_0 and A_0 the
coarse means) the result is

    y_0 = A_0 + W_0 (X_0 - A_0)        y_k = up(y_(k-1)) + A_k + c_k W_k (X_k - A_k)

and beyond S, where there is no output, y_k = up(y_(k-1)) + W_k X_k. Coarse means remain the input's; an octave that is weaker in the input than in
the output becomes the output's, and one that is as strong remains the input's, but for noise.

- c_k in [0, 1] is a smoothstep of b = <X_k, A_k> / <A_k, A_k> over the whole crop. Blur lowers b; noise in the input does not raise it.
- W_k = max(E - 3 s^2, 0) / E is a local Wiener gain, with the energy E around a place and the input's noise s^2 at that side (`noise_variance`; a
  quarter of that one side up for the coarse means; `octave_noise` beyond S).

A clean, sharp crop is returned unchanged. Where the blind restorer cleaned the crops, all of y - x is scaled by one Wiener gain per crop at last,
max(E - e^2, 0) / E with the energy E of y - x over the face: changes no larger than the network's own error e are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..box_filter import box_filter
from ..faces.compositing.strength import smoothstep
from ..faces.types import CROP
from ..resampling import interpolated, pooled
from .base import from_network, resized
from .blind.self_ensemble import FACE_PIXELS

COARSE_SIDE = 16
"""Side of the coarse means; with 32, noise of the benchmark degradations remained (0.1 to 0.2 dB)."""
LACKING, PRESENT = 0.6, 0.95
"""b up to which an octave is the output's, and from which it is the input's."""
LACKING_CLEANED, PRESENT_CLEANED = 0.45, 0.8
"""The same for crops that the blind restorer cleaned: 0.6 and 0.95 cost up to 4 dB on sharp small faces, 0.3 and 0.6 up to 0.8 dB on soft ones."""
TEXTURE = {32: 7.9 / 255, 64: 4.0 / 255, 128: 2.4 / 255}
"""By side, the standard deviation that `noise_variance` measures on clean faces: the 95th percentile of portraits. Other sides take the nearest."""
NOISY_TEXTURE_RATIO = 1.3
"""The coarse means count as noisy if the octave above them exceeds this multiple of its `TEXTURE`: faces with much detail keep theirs."""
NOISE_OVERSUBTRACTION = 3.0
"""Multiple of the noise energy that is subtracted from the energy of a place; what remains is kept."""
FLATTEST = 0.1
"""Share of the places of an octave beyond S that noise is measured in: those with the least energy."""
GRAIN = {256: 0.8 / 255, 512: 0.5 / 255}
"""By side, the standard deviation of clean faces in those places."""
FLATTEST_ENERGY_OVER_NOISE = 2.5 / 3
"""Factor from the energy of those places to the noise: it is the octave's own, coding included, so less of it is subtracted. Tried 1/3 to 1.2."""
CLIPPED_MARGIN, CLIPPED_SHARE = 1.5 / 255, 0.25
"""Values this near to black or white have lost their noise: places with more than this share of them are ignored."""
CODEBOOK_ERROR = 2 / 255
"""e: what the codebooks change by mistake of sharp faces of 50 pixels has a standard deviation of 0.9 to 1.4 levels, what soft ones lack 4 to 10."""
NEIGHBOURHOOD = 7
"""Side of the window in which energy is averaged, in pixels of the octave."""


def completed(images: Tensor, crops: Tensor, cleaned: bool = False) -> Tensor:
    """A network's images as restored crops of 512 pixels, completed by what the input crops show; images of 512 pixels are only converted.

    Args:
        images: (n, 3, S, S) around [-1, 1], on any device: network(to_network(crops, S, device)).
        crops: (n, 3, H, W) in [0, 1], what `to_network` was given.
        cleaned: whether they are the blind restorer's.

    Returns:
        (n, 3, 512, 512) float32 in [0, 1] on the CPU.

    Raises:
        ValueError: if the numbers of images and crops differ.
    """
    if len(images) != len(crops):
        raise ValueError(f"every crop is completed with its own image, got {len(images)} images and {len(crops)} crops; pass both of the same frames")
    if images.shape[-1] >= CROP or not len(images):
        return from_network(images)
    if images.device.type == "cpu" and len(images) > 1:  # one at a time all passes stay in the cache
        return torch.cat([completed(image, crop, cleaned) for image, crop in zip(images.split(1), crops.split(1), strict=True)])
    answer = (images.detach().float().clamp(-1, 1) + 1) / 2
    side = answer.shape[-1]
    levels = [resized(crops.float(), CROP, "bicubic").to(answer)]
    while levels[-1].shape[-1] >= 2 * side:
        levels.append(pooled(levels[-1], 2))
    if levels[-1].shape[-1] != side:
        levels.append(resized(levels[-1], side, "bilinear"))
    below = levels.pop()
    result = fused(answer, below, cleaned)
    while levels:
        level = levels.pop()
        octave = level - enlarged(below, level)
        result = enlarged(result, level) + (octave if cleaned else denoised(octave, octave_noise(octave, level)))
        below = level
    if cleaned:
        change = result - below
        energy = change[FACE_PIXELS].square().mean((1, 2, 3), keepdim=True)
        result = below + change * ((energy - CODEBOOK_ERROR**2).clamp_min(0) / energy.clamp_min(1e-12))
    return result.clamp(0, 1).cpu().contiguous()


def fused(answer: Tensor, seen: Tensor, cleaned: bool = False) -> Tensor:
    """The part of `completed` up to the network's side: output and input (n, 3, S, S) in [0, 1] to the same size, not clamped."""
    limits = (LACKING_CLEANED, PRESENT_CLEANED) if cleaned else (LACKING, PRESENT)
    pairs = [(seen, answer * contrast(seen, answer))]
    while pairs[-1][0].shape[-1] % 2 == 0 and pairs[-1][0].shape[-1] >= 2 * COARSE_SIDE:
        pairs.append((pooled(pairs[-1][0], 2), pooled(pairs[-1][1], 2)))
    below = pairs.pop()
    result = below[0]
    if pairs:
        coarse = below[0] - below[1]
        result = below[1] + (coarse if cleaned else denoised(coarse, noise_variance(pairs[-1][0], NOISY_TEXTURE_RATIO) / 4))
    while pairs:
        x, a = pairs.pop()
        given, wanted = x - enlarged(below[0], x), a - enlarged(below[1], a)
        lacks = given - wanted
        kept = presence(given, wanted, *limits)[:, None, None, None] * (lacks if cleaned else denoised(lacks, noise_variance(x)))
        result = enlarged(result, x) + wanted + kept
        below = x, a
    return result


def contrast(seen: Tensor, answer: Tensor) -> Tensor:
    """The factor (n, 1, 1, 1) in 1/2..2 that matches the output's coarse contrast to the input's; excess contrast would be taken for sharpness."""
    x, a = (F.adaptive_avg_pool2d(image, COARSE_SIDE) for image in (seen, answer))
    x, a = (image - image.mean((2, 3), keepdim=True) for image in (x, a))
    every = (1, 2, 3)
    return ((x * a).sum(every, keepdim=True) / (a.square().sum(every, keepdim=True) + 1e-6)).clamp(0.5, 2)


def anchored(answer: Tensor, seen: Tensor) -> Tensor:
    """`answer` with the coarse means of `seen` only, (n, 3, S, S) both, in one range: differentiable, for training."""
    return answer + enlarged(F.adaptive_avg_pool2d(seen - answer, COARSE_SIDE), answer)


def presence(given: Tensor, wanted: Tensor, lacking: float = LACKING, present: float = PRESENT) -> Tensor:
    """c per crop (n,): 0 where the input's octave is much weaker than the output's, 1 where it is as strong."""
    x, a = (octave.mean(1).flatten(1) for octave in (given, wanted))
    return smoothstep((x * a).sum(1) / (a.square().sum(1) + 1e-8), lacking, present)


def denoised(octave: Tensor, noise: Tensor) -> Tensor:
    """An octave (n, 3, h, w) times the local Wiener gain W for noise of variance (n,)."""
    noise = noise[:, None, None, None]
    energy = box_filter(octave.square().mean(1, keepdim=True), NEIGHBOURHOOD)
    return octave * ((energy - NOISE_OVERSUBTRACTION * noise).clamp_min(0) / energy.clamp_min(1e-12))


def noise_variance(image: Tensor, texture_factor: float = 1.0) -> Tensor:
    """s^2 per crop (n,) of (n, 3, h, w), from the median of the Haar wavelet's diagonal coefficients (Donoho and Johnstone, 1994), minus `TEXTURE`.

    Args:
        texture_factor: multiplies the texture that is subtracted.
    """
    even, odd = image[..., ::2, :], image[..., 1::2, :]
    rows = min(even.shape[-2], odd.shape[-2])
    down = even[..., :rows, :] - odd[..., :rows, :]
    columns = down.shape[-1] // 2
    diagonal = (down[..., : 2 * columns : 2] - down[..., 1 : 2 * columns : 2]) / 2
    deviation = diagonal.abs().flatten(1).median(1).values / 0.6745  # of a Gaussian
    side = min(TEXTURE, key=lambda known: abs(known - image.shape[-1]))
    return (deviation.square() - (texture_factor * TEXTURE[side]) ** 2).clamp_min(0)


def octave_noise(octave: Tensor, image: Tensor) -> Tensor:
    """s^2 per crop (n,) of an octave (n, 3, h, w) beyond S: the energy of its flattest places minus `GRAIN`.

    `noise_variance` would not do here: JPEG and video codecs first drop the finest diagonals, which it measures, and leave the rest of the noise.
    """
    lost = ((image <= CLIPPED_MARGIN) | (image >= 1 - CLIPPED_MARGIN)).float()
    energy, lost = (F.avg_pool2d(part.mean(1, keepdim=True), NEIGHBOURHOOD, NEIGHBOURHOOD // 2).flatten(1) for part in (octave.square(), lost))
    informative = torch.where((lost < CLIPPED_SHARE) | (lost >= CLIPPED_SHARE).all(1, keepdim=True), energy, torch.nan)
    side = min(GRAIN, key=lambda known: abs(known - octave.shape[-1]))
    return (FLATTEST_ENERGY_OVER_NOISE * informative.nanquantile(FLATTEST, 1) - GRAIN[side] ** 2).clamp_min(0)


def enlarged(image: Tensor, like: Tensor) -> Tensor:
    """`image` at the size of `like`, bicubic."""
    return interpolated(image, (like.shape[-2], like.shape[-1]), "bicubic")
