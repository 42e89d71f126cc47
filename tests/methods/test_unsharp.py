"""Unsharp masking of the blind restorer: which faces get it, and that it is what it says."""

import math

import pytest
import torch
import torch.nn.functional as F

from fvr.colour import luma
from fvr.methods.base import resized
from fvr.methods.blind.self_ensemble import FACE_PIXELS, EnsembleStatistics
from fvr.methods.blind.unsharp import (
    CONSTANT,
    CROP_WEIGHTS,
    DECORRELATION_WEIGHT,
    MAX_AMOUNT,
    RESTORED_WEIGHTS,
    SHARPENING_WEIGHT,
    luma_octaves,
    unsharp_amount,
    unsharp_mask,
)


@pytest.fixture(scope="module")
def texture() -> torch.Tensor:
    """Octaves of about equal strength, as faces have them, (1, 3, 512, 512)."""
    torch.manual_seed(0)
    octaves = [resized(torch.randn(1, 1, 512 // size, 512 // size), 512, "bicubic") for size in (1, 2, 4, 8, 16)]
    return (0.5 + 0.02 * sum(octaves)).expand(-1, 3, -1, -1)


def blurred(images: torch.Tensor, width: int) -> torch.Tensor:
    return F.avg_pool2d(images, width, 1, width // 2, count_include_pad=False)


def statistics(sharpening: float = 0.0, decorrelation: float = 0.0) -> EnsembleStatistics:
    nothing = torch.zeros(1, 1, 1, 1)
    return EnsembleStatistics(torch.full((1, 2, 1, 1), decorrelation), torch.full((1, 1, 1, 1), sharpening), nothing, nothing, nothing)


def test_octaves_add_up_with_the_mean_that_is_left(texture):
    coarse = luma(texture)
    for octave in luma_octaves(texture, 1):
        assert torch.allclose(octave + resized(F.avg_pool2d(coarse, 2), 512, "bilinear"), coarse, atol=1e-6)
    assert [tuple(octave.shape) for octave in luma_octaves(texture, 3)] == 3 * [(1, 1, 512, 512)]


def test_the_amount_is_linear_in_the_logarithms_of_octaves(texture):
    crop, restored = blurred(texture, 5), blurred(texture, 7)
    amount = CONSTANT + SHARPENING_WEIGHT * 0.05 + DECORRELATION_WEIGHT * 0.1
    for images, weights in ((restored, RESTORED_WEIGHTS), (crop, CROP_WEIGHTS)):
        amount += sum(w * math.log(255 * float(o[FACE_PIXELS].std())) for w, o in zip(weights, luma_octaves(images, 3), strict=False))
    assert 0 < amount < MAX_AMOUNT
    assert float(unsharp_amount(crop, restored, statistics(0.05, 0.1))) == pytest.approx(amount, abs=1e-4)


def test_a_face_restored_softly_gets_more_than_one_restored_sharply(texture):
    crop = blurred(texture, 5)
    soft, sharp = (float(unsharp_amount(crop, restored, statistics(0.4))) for restored in (crop, texture))
    assert soft > 0.1 and sharp == 0


def test_corrections_that_remove_noise_sharpen_nothing(texture):
    noisy = texture + 0.04 * torch.randn(texture.shape, generator=torch.Generator().manual_seed(1))
    assert not unsharp_amount(noisy, texture, statistics(-0.8)).any()


def test_small_faces_are_not_sharpened(texture):
    crop = blurred(texture, 5)
    full, half, none = (float(unsharp_amount(crop, crop, statistics(0.4), scale)) for scale in (1.5, 1.75, 2.0))
    assert full > 0 and half == pytest.approx(full / 2) and none == 0


def test_the_mask_amplifies_fine_luma_alone_where_the_amount_says(texture):
    images = texture * torch.tensor([0.8, 1.0, 0.9])[:, None, None]
    amount = torch.zeros(1, 1, 512, 512)
    amount[..., :256] = 1
    result = unsharp_mask(images, amount)
    assert torch.equal(result[..., 256:], images[..., 256:])
    added = (result - images)[..., :256]
    assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-6)  # grey: colours do not change
    pairs = zip(luma_octaves(result, 3), luma_octaves(images, 3), strict=True)
    first, second, third = (float(after[..., 16:240].std() / before[..., 16:240].std()) for after, before in pairs)
    assert 1.4 < first < 1.6 < second < 2 and 1 < third < 1.4


def test_flat_images_stay(texture):
    flat = torch.full((1, 3, 512, 512), 0.4)
    assert torch.allclose(unsharp_mask(flat, torch.ones(1, 1, 512, 512)), flat, atol=1e-6)
