"""Crops completed beyond a network's native side: sharp faces stay sharp, noise does not come back, blur is replaced."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.methods.base import from_network, to_network
from fvr.methods.detail_fusion import anchored, completed, denoised, fused, noise_variance
from fvr.metrics.fidelity import psnr
from fvr.physics import Blur, Jpeg

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def face(astronaut: Tensor) -> Tensor:
    """(1, 3, 512, 512): a portrait with fine texture, as sharp as its pixels."""
    return F.interpolate(astronaut[None, :, :256, 96:352], (512, 512), mode="bicubic").clamp(0, 1)


def softened(x: Tensor, factor: int) -> Tensor:
    """What a modest network gives back for a sharp x: a little less than it saw."""
    return F.interpolate(F.avg_pool2d(x, factor), x.shape[-2:], mode="bicubic")


def test_a_clean_face_comes_back_as_it_was(face: Tensor) -> None:
    seen = to_network(face, 128, CPU)
    modest = softened(seen, 2)
    assert psnr(from_network(modest), face).item() < 30
    assert psnr(completed(modest, face), face).item() > 38
    assert psnr(completed(seen, face), face).item() > 50  # what is missing is the grain of the film


def test_a_weak_answer_does_not_spoil_a_clean_face(face: Tensor) -> None:
    seen = to_network(face, 128, CPU)
    weak = 0.7 * softened(seen, 4) + 0.1  # too dark, too flat and too soft
    assert psnr(from_network(weak), face).item() < 22
    assert psnr(completed(weak, face), face).item() > 38


def test_what_is_no_larger_than_a_networks_own_error_is_left_out(face: Tensor) -> None:
    """Of crops that are clean already; what is missing there is still drawn."""
    crop = softened(face, 8)
    seen = to_network(crop, 128, CPU)
    error = softened(torch.randn(seen.shape, generator=torch.Generator().manual_seed(0)), 4)
    answer = seen + 3 / 255 * error / error.std()  # in [-1, 1], 1.5 levels
    assert torch.equal(completed(answer, crop, cleaned=True), crop.clamp(0, 1))
    assert psnr(completed(to_network(face, 128, CPU), crop, cleaned=True), face).item() > psnr(crop, face).item() + 2


def test_coarse_means_are_the_inputs(face: Tensor) -> None:
    seen = F.interpolate(face, (128, 128), mode="area")
    result = anchored(softened(seen, 2) * 0.8, seen)
    assert psnr(F.adaptive_avg_pool2d(result, 16), F.adaptive_avg_pool2d(seen, 16)).item() > 32
    fine, wanted = (x - F.interpolate(F.avg_pool2d(x, 2), (128, 128)) for x in (result, softened(seen, 2) * 0.8))
    assert torch.allclose(fine, wanted, atol=0.03)


def test_a_blurred_face_is_replaced(face: Tensor) -> None:
    crop = F.interpolate(F.avg_pool2d(face, 16), (512, 512), mode="bicubic").clamp(0, 1)
    ideal = to_network(face, 128, CPU)
    result = completed(ideal, crop)
    assert psnr(result, face).item() > psnr(crop, face).item() + 3
    assert psnr(result, face).item() > psnr(from_network(ideal), face).item() - 0.6


def test_noise_beyond_the_native_side_does_not_come_back(face: Tensor) -> None:
    noise = 0.04 * torch.randn(face.shape, generator=torch.Generator().manual_seed(0))
    crop = (face + noise).clamp(0, 1)
    answer = to_network(face, 128, CPU)
    result = completed(answer, crop)
    assert psnr(result, face).item() > psnr(crop, face).item() + 4
    assert psnr(result, face).item() > psnr(from_network(answer), face).item() - 0.3


def test_grain_as_coarse_as_the_means_does_not_come_back_and_a_change_of_light_does(face: Tensor) -> None:
    """A bad camera's noise is blotches of 8 pixels of 128; half of it is left at most, while what really differs stays the input's."""
    truth = F.interpolate(face, (128, 128), mode="area")
    coarse = 0.15 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    noisy = truth + F.interpolate(coarse, (128, 128), mode="bicubic")
    left = F.adaptive_avg_pool2d(fused(truth, noisy) - truth, 16).square().mean()
    assert left < 0.25 * F.adaptive_avg_pool2d(noisy - truth, 16).square().mean()
    lit = truth * torch.linspace(0.6, 1, 128)
    assert psnr(F.adaptive_avg_pool2d(fused(truth, lit), 16), F.adaptive_avg_pool2d(lit, 16)).item() > 45


def test_every_crop_is_judged_alone(face: Tensor) -> None:
    blurred = F.interpolate(F.avg_pool2d(face, 16), (512, 512), mode="bicubic").clamp(0, 1)
    crops = torch.cat([face, blurred, face.flip(-1)])
    images = to_network(torch.cat([face, face, face.flip(-1)]), 64, CPU)
    together = completed(images, crops)
    alone = torch.cat([completed(images[i : i + 1], crops[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("size", [(96, 96), (300, 300), (700, 700)])
def test_crops_of_any_size(face: Tensor, size: tuple[int, int]) -> None:
    crop = F.interpolate(face, size, mode="area")
    result = completed(to_network(crop, 128, CPU), crop)
    shown = F.interpolate(result, (64, 64), mode="area")
    assert psnr(shown, F.interpolate(face, (64, 64), mode="area")).item() > 30


def test_crops_that_are_not_square_are_refused(face: Tensor) -> None:
    with pytest.raises(ValueError, match=r"got pictures of 400 x 512 pixels, but crops of aligned faces are square; .* leave aligned off"):
        to_network(face[..., :400], 128, CPU)


def test_noise_that_a_codec_has_coded_does_not_come_back_either(face: Tensor) -> None:
    """JPEG takes the finest diagonals, where noise is looked for on the native side, and leaves the rest of it."""
    soft = Blur.gaussian(3).forward(face)
    crop = Jpeg(60).forward(soft + 0.03 * torch.randn(face.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    answer = to_network(soft, 128, CPU)
    assert noise_variance(crop).item() == 0
    assert psnr(completed(answer, crop), soft).item() > psnr(crop, soft).item() + 1.5


def test_a_white_wall_does_not_hide_noise(face: Tensor) -> None:
    """Clipped noise is none, and the flattest places of a portrait may all be clipped."""
    bright = face.clone()
    bright[..., :200] = 1
    noisy = bright + 0.04 * torch.randn(face.shape, generator=torch.Generator().manual_seed(0))
    crop = torch.where(bright == 1, bright, noisy).clamp(0, 1)
    result = completed(to_network(bright, 128, CPU), crop)
    assert psnr(result, bright).item() > psnr(crop, bright).item() + 4
    white = torch.ones(1, 3, 512, 512)
    assert psnr(completed(to_network(white, 128, CPU), white), white).item() > 60


def test_a_network_of_full_size_is_left_alone(face: Tensor) -> None:
    image = softened(face, 4) * 2 - 1
    assert torch.equal(completed(image, face), from_network(image))
    with pytest.raises(ValueError, match="2 images and 1 crops"):
        completed(torch.cat([image, image]), face)


def test_noise_is_told_from_detail() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = 0.05 * torch.randn(1, 3, 64, 64, generator=generator)
    assert denoised(noise, noise_variance(noise)).square().mean() < 0.02 * noise.square().mean()
    assert noise_variance(noise).sqrt().item() == pytest.approx(0.0475, rel=0.05)
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 31:33] = 0.5
    kept = denoised(edge + noise, noise_variance(edge + noise))
    assert (kept - edge)[..., 31:33].square().mean() < 0.1 * edge[..., 31:33].square().mean()
    quiet = 0.002 * torch.randn(1, 3, 64, 64, generator=generator)
    assert torch.equal(denoised(quiet, noise_variance(quiet)), quiet)  # what clean faces have is no noise
