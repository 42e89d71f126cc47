"""Blind degradations: inside their ranges, repeatable, and able to leave a face alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fvr.metrics.fidelity import psnr
from fvr.physics import BicubicDownsample
from fvr.training.data.degradations import BENCHMARK, HEAVY, MILD, NATIVE_128, Blind, KnownDegradation, benchmark_input
from fvr.training.prior import paper


def smooth_picture(side: int = 64) -> torch.Tensor:
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)[0]


def test_draws_stay_in_their_ranges_and_reach_their_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [HEAVY.draw(generator) for _ in range(400)]
    for values, (low, high) in (
        ([s for d in draws for s in d.sigmas or ()], HEAVY.sigma),
        ([d.factor for d in draws], HEAVY.factor),
        ([255 * (d.noise or 0) for d in draws], HEAVY.noise),
        ([d.quality or 0 for d in draws], HEAVY.quality),
    ):
        assert low <= min(values) < low + 0.05 * (high - low) and high - 0.05 * (high - low) < max(values) <= high
    round_share = sum(d.sigmas is not None and d.sigmas[0] == d.sigmas[1] for d in draws) / 400
    assert abs(round_share - HEAVY.round) < 0.1


def test_skipping_leaves_a_face_as_it_is() -> None:
    clean = Blind(64, (0.1, 3.0), skip=0.999)
    face = smooth_picture()
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(clean.draw(generator)(face, generator), face)


def test_the_same_seed_degrades_alike_and_noise_differs_between_frames() -> None:
    face = smooth_picture()

    def degraded(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return HEAVY.at(64).draw(generator)(face, generator)

    assert torch.equal(degraded(5), degraded(5)) and not torch.equal(degraded(5), degraded(6))
    generator = torch.Generator().manual_seed(1)
    noisy = Blind(64, (0.1, 0.1), factor=(1, 1), noise=(10, 10), quality=(100, 100))
    clip = noisy.draw(generator)(torch.stack([face, face]), generator)
    assert 20 < psnr(clip[:1], clip[1:]).item() < 30  # two noises of 10 / 255: 25.1 dB apart


def test_heavier_families_lose_more() -> None:
    faces = [smooth_picture() + 0.2 * torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(9)) for _ in range(1)]

    def loss(blind: Blind) -> float:
        generator = torch.Generator().manual_seed(0)
        face = faces[0].clamp(0, 1)
        return sum(psnr(blind.draw(generator)(face, generator)[None], face[None]).item() for _ in range(20)) / 20

    assert loss(MILD.at(64)) > loss(HEAVY.at(64)) + 1


def test_ranges_scale_with_the_side() -> None:
    small = HEAVY.at(128)
    assert small.sigma == (0.25, 3.75) and small.factor == (1.0, 7.5) and small.noise == HEAVY.noise
    assert NATIVE_128.at(128) == NATIVE_128


def test_judged_degradations_are_the_issues() -> None:
    faces = torch.stack([smooth_picture(128)] * 2)
    noisy, low, coded = (benchmark_input(name, faces, seed=0) for name in BENCHMARK)
    assert noisy.shape == low.shape == coded.shape == faces.shape
    again = benchmark_input(next(iter(BENCHMARK)), faces, seed=0)
    assert torch.equal(noisy, again) and not torch.equal(noisy[0], noisy[1])
    # bicubic enlargement of 16 x 16 keeps what a bicubic picture of 8 x 8 knots holds
    assert psnr(low, faces).min() > psnr(noisy, faces).max()


def test_the_papers_prior_learns_the_operator_that_its_sampler_inverts() -> None:
    """x8 conditions are the judged operator's, that of physics: no other kernel, no JPEG."""
    x8 = paper("x8").blind
    assert x8 == KnownDegradation(512, BENCHMARK["x8 bicubic"])
    generator = torch.Generator().manual_seed(0)
    face = smooth_picture(512)
    condition = x8.draw(generator)(face, generator)
    assert torch.equal(condition, benchmark_input("x8 bicubic", face[None], seed=7)[0])
    known = F.interpolate(BicubicDownsample(8).forward(face[None]), (512, 512), mode="bicubic", align_corners=False).clamp(0, 1)
    assert torch.allclose(condition, known[0], atol=1e-6)
    clip = torch.stack([face, face.flip(-1)])
    assert torch.equal(x8.draw(generator)(clip, generator)[0], condition)


@pytest.mark.parametrize(("values", "said"), [(dict(sigma=(2.0, 1.0)), "sigma"), (dict(factor=(0.5, 2.0)), "factor"), (dict(skip=1.0), "skip")])
def test_impossible_ranges_are_refused(values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Blind(**values)
