"""Blind degradations: inside their ranges, repeatable, and able to leave a face alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fvr.metrics.fidelity import psnr
from fvr.physics import BicubicDownsample
from fvr.training.data.degradations import BENCHMARK, HEAVY, MILD, NATIVE_128, Blind, Coded, KnownDegradation, benchmark_input
from fvr.training.prior import paper


def smooth_picture(side: int = 64) -> torch.Tensor:
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)[0]


def test_blind_parameters_cover_their_ranges() -> None:
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


def test_skipping_every_part_is_the_identity() -> None:
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


FAINT = Coded(64, (0.1, 0.1), noise=(0, 0), rate=(0, 0))
"""Nothing but the smaller size, and 8 bits."""


def under(family: Coded, clip: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return family.draw(generator)(clip, generator)


def test_a_coded_clip_is_enlarged_by_its_downsampling_interpolation() -> None:
    clip = smooth_picture().mean(0).expand(3, 3, 64, 64)
    wanted = {mode: F.interpolate(F.interpolate(clip, (16, 16), mode=mode), (64, 64), mode=mode) for mode, _ in FAINT.modes}
    found = []
    for seed in range(60):
        away = {mode: float((under(FAINT, clip, seed) - picture).abs().max()) for mode, picture in wanted.items()}
        found.append(min(away, key=lambda mode: away[mode]))
        assert away[found[-1]] < 4 / 255
    assert 4 <= found.count("area") <= 22 and all(12 <= found.count(mode) <= 36 for mode in ("bilinear", "bicubic"))


def test_coded_clips_have_independent_noise_half_of_it_grey() -> None:
    """DicFace's options file: blur to 10, noise to 10 levels, crf from 18 up to below 25."""
    assert (Coded().sigma, Coded().round, Coded().factor, Coded().noise, Coded().rate) == ((0.1, 10.0), 0.7, 4, (0.0, 10.0), (18, 24))
    grey = torch.full((40, 3, 64, 64), 0.5)
    one = replace(FAINT, modes=(("area", 1.0),))
    noise = 255 * (under(replace(one, noise=(10, 10)), grey) - 0.5)[..., ::4, ::4]
    colourless = [frame for frame in noise if float((frame[0] - frame[2]).abs().max()) < 6]
    assert 10 <= len(colourless) <= 30
    assert torch.stack(colourless).std().item() == pytest.approx(10, rel=0.1)
    strengths = torch.stack([frame[1].std() for frame in 255 * (under(replace(one, noise=(0, 10)), grey) - 0.5)])
    assert strengths.min() < 2 and strengths.max() > 6
    clip = torch.stack([smooth_picture().roll(n, -1) for n in range(4)])
    lost = [float(psnr(under(replace(one, rate=(rate, rate)), clip), under(one, clip)).mean()) for rate in (18, 24, 40)]
    assert lost[0] > lost[1] > lost[2]


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


def test_benchmark_degradations_are_deterministic_and_have_independent_noise() -> None:
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
