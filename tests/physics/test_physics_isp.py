"""A camera's processing: exact inverses, what a mosaic keeps, and the noise of the sensor as the picture shows it."""

from __future__ import annotations

from typing import get_args

import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from fvr.physics import CameraNoise, Isp, degradation, parse
from fvr.physics.nonlinear.cameras import LIGHTS, SENSORS, camera_pool, sampled_isp
from fvr.physics.nonlinear.isp import COLOUR, NOISE, Mosaic, demosaic, inverse_tone_curve, mosaic_raw, noise_std, tone_curve

MOSAICS = [mosaic for mosaic in get_args(Mosaic) if mosaic != "none"]
MATTE = ((0.8, 0.15, 0.05), (0.1, 0.8, 0.1), (0.02, 0.18, 0.8))
CAMERAS = [Isp(), Isp(tone=False), Isp(gamma=1.0, tone=False), Isp(gains=(1.3, 1.0, 2.9), colour=MATTE), Isp(gamma=2.4, gains=(1, 1, 1))]


@pytest.fixture
def portrait() -> torch.Tensor:
    """(3, 128, 128) float64 in [0, 1]."""
    return torch.from_numpy(skimage.data.astronaut()[:256:2, 96:352:2].copy()).permute(2, 0, 1).double() / 255


def test_the_tone_curve_and_its_inverse() -> None:
    v = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert_close(inverse_tone_curve(tone_curve(v)), v, atol=1e-7, rtol=0)
    assert_close(tone_curve(inverse_tone_curve(v)), v, atol=1e-14, rtol=0)


@pytest.mark.parametrize("isp", CAMERAS, ids=str)
def test_processing_undoes_unprocessing_on_every_picture(isp: Isp, rng: torch.Generator) -> None:
    """P(P^-1(x)) = x, black and white included, where no sensor value had to be beyond [0, 1]."""
    x = torch.rand((2, 3, 24, 24), generator=rng, dtype=torch.float64)
    x[..., :2, :], x[..., 2:4, :] = 0, 1
    raw = isp.unprocess(x)
    inside = ((raw >= 0) & (raw <= 1)).all(-3, keepdim=True).expand_as(x)
    assert inside.float().mean() > (0.99 if isp.colour == COLOUR else 0.3)
    expected = x if isp.tone else x.clamp(min=1e-8 ** (1 / isp.gamma))  # linear values below 1e-8 count as that much, for the slope of gamma at 0
    assert_close(isp.process(raw)[inside], expected[inside], atol=1e-6, rtol=0)


@pytest.mark.parametrize("isp", CAMERAS, ids=str)
def test_unprocessing_undoes_processing_inside_the_gamut(isp: Isp, rng: torch.Generator) -> None:
    """P^-1(P(r)) = r for sensor values whose linear colours lie in [0, 1]."""
    linear = 0.02 + 0.96 * torch.rand((2, 3, 16, 16), generator=rng, dtype=torch.float64)
    colour = torch.tensor(isp.colour, dtype=torch.float64)
    raw = torch.einsum("dc,nchw->ndhw", torch.linalg.inv(colour), linear) / torch.tensor(isp.gains, dtype=torch.float64)[:, None, None]
    inside = ((raw > 0) & (raw < 1)).all(1, keepdim=True).expand_as(raw)
    assert inside.float().mean() > 0.2
    assert_close(isp.unprocess(isp.process(raw))[inside], raw[inside], atol=1e-7, rtol=0)


def test_white_balance_makes_green_the_strongest_on_grey() -> None:
    grey = Isp().unprocess(torch.full((3, 1, 1), 0.5, dtype=torch.float64))[:, 0, 0]
    assert grey[1] > grey[2] > grey[0]
    assert_close(grey * torch.tensor([2.0, 1.0, 1.6], dtype=torch.float64), grey[1].expand(3), atol=1e-12, rtol=0)


@pytest.mark.parametrize("mosaic", MOSAICS)
def test_sites_have_the_colours_of_their_name(mosaic: Mosaic) -> None:
    raw = torch.arange(1.0, 4.0)[:, None, None].expand(3, 5, 7)  # red 1, green 2, blue 3
    cell = mosaic_raw(raw, mosaic)[0, :2, :2].flatten()
    assert cell.tolist() == ["?rgb".index(letter) for letter in mosaic]
    assert torch.equal(mosaic_raw(raw, mosaic)[0, 2:4, 4:6].flatten(), cell)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(MOSAICS), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_what_a_site_measured_stays(mosaic: Mosaic, height: int, width: int, seed: int) -> None:
    z = torch.rand((2, 1, height, width), generator=torch.Generator().manual_seed(seed))
    full = demosaic(z, mosaic)
    assert full.isfinite().all()
    assert_close(mosaic_raw(full, mosaic), z, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mosaic", MOSAICS)
def test_what_is_filled_in_is_exact_where_colours_are_even(mosaic: Mosaic) -> None:
    """A colour that is the same everywhere, and inside the border a ramp of grey."""
    plain = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)[:, None, None].expand(3, 6, 9)
    assert_close(demosaic(mosaic_raw(plain, mosaic), mosaic), plain, atol=1e-12, rtol=0)
    ramp = (torch.arange(12.0, dtype=torch.float64)[:, None] * 0.03 + torch.arange(10.0, dtype=torch.float64) * 0.02).expand(3, 12, 10)
    assert_close(demosaic(mosaic_raw(ramp, mosaic), mosaic)[:, 2:-2, 2:-2], ramp[:, 2:-2, 2:-2], atol=1e-12, rtol=0)


def test_a_mosaic_makes_noise_coarser(portrait: torch.Tensor) -> None:
    """Filling in spreads noise into neighbours: it loses height, and neighbours go together."""
    correlations = []
    for mosaic in ("none", "grbg"):
        operator = CameraNoise(1600, Isp(mosaic=mosaic))  # type: ignore[arg-type]
        noise = operator.observe(portrait, torch.Generator().manual_seed(0)) - operator.forward(portrait)
        correlations.append(float((noise[:, :, 1:] * noise[:, :, :-1]).mean() / noise.square().mean()))
    assert abs(correlations[0]) < 0.05 and correlations[1] > 0.2


@pytest.mark.parametrize("iso", NOISE)
def test_the_level_behind_a_mosaic_is_that_of_its_samples(iso: int) -> None:
    operator = CameraNoise(iso, Isp(mosaic="rggb"))
    linear = 0.18 ** (1 / 2.2)
    grey = torch.full((3, 96, 96), 3 * linear**2 - 2 * linear**3, dtype=torch.float64)
    sample = operator.observe(grey, torch.Generator().manual_seed(5))
    assert (sample - grey).square().mean().sqrt().item() == pytest.approx(operator.noise_level, rel=0.05)


def test_noise_on_the_sensor_is_heteroscedastic() -> None:
    """Its variance over many samples is shot v + read, at three brightnesses."""
    generator = torch.Generator().manual_seed(0)
    for value in (0.0, 0.2, 0.8):
        raw = torch.full((3, 100, 100), value, dtype=torch.float64)
        sample = noise_std(raw, 3200) * torch.randn(raw.shape, generator=generator, dtype=torch.float64)
        shot, read = torch.tensor(NOISE[3200], dtype=torch.float64)
        assert_close(sample.var((1, 2)), shot * value + read, rtol=0.05, atol=0)


def test_what_a_mosaic_loses_is_about_what_is_said(portrait: torch.Tensor) -> None:
    operator = CameraNoise(800, Isp(mosaic="grbg"))
    lost = (operator.forward(portrait) - portrait).square().mean().sqrt().item()
    assert operator.distortion / 2 < lost < 3 * operator.distortion
    assert CameraNoise(800).distortion == 0


def test_kinds_and_text_lead_here() -> None:
    assert parse("isp_noise(iso=3200, mosaic=rggb, tone=plain, red_gain=1.5)") == CameraNoise(
        3200, Isp(gains=(1.5, 1.0, 1.6), tone=False, mosaic="rggb")
    )
    assert degradation("isp_noise", mosaic="none") == CameraNoise(1600) == parse("camera_noise")
    assert str(parse("bicubic + isp_noise")) == "Bicubic down x4, camera noise at ISO 1600 through a GRBG mosaic"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Isp(gains=(0.0, 1.0, 1.0)), "from 0.1 to 10, got"),
        (lambda: Isp(colour=((1, 0, 0), (1, 0, 0), (0, 0, 1))), "3 x 3 with an inverse"),
        (lambda: Isp(gamma=0.5), "from 1 to 4, got 0.5"),
        (lambda: Isp(mosaic="xtrans"), "one of none, rggb"),  # type: ignore[arg-type]
        (lambda: CameraNoise(100), "ISO 800, 1600, 3200, got 100"),
        (lambda: CameraNoise().observe(torch.rand(1, 8, 8)), "needs RGB frames"),
    ],
)
def test_errors_are_one_sentence(make, says: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert says in str(error.value) and "\n" not in str(error.value)


def test_cameras_of_the_pool_are_like_cameras() -> None:
    """Grey stays grey, green counts most, red rises and blue falls as light turns from the lamp to daylight, and matrices sharpen colours."""
    found = camera_pool()
    assert_close(torch.from_numpy(found.matrices).sum(-1), torch.ones(len(found.matrices), 3, dtype=torch.float64))
    assert (torch.from_numpy(found.matrices).diagonal(0, 1, 2) > 1).all()
    gains = 1 / found.lights.reshape(SENSORS, len(LIGHTS), 2)
    assert (gains[:, 1:, 0] > gains[:, :-1, 0]).all() and (gains[:, 1:, 1] < gains[:, :-1, 1]).all()
    daylight = gains[:, LIGHTS.index(5500)].mean(0)
    assert 1.7 < daylight[0] < 2.4 and 1.5 < daylight[1] < 2.4


def test_a_camera_is_drawn_as_the_official_script_draws_one() -> None:
    """Gains within the pool's, scattered as its lights are; the matrix is the mean of its three nearest by one over squared distance."""
    found = camera_pool()
    draws = [found.draw(seed) for seed in range(200)]
    lights = 1 / torch.tensor([(gains[0], gains[2]) for gains, _ in draws], dtype=torch.float64)
    own = torch.from_numpy(found.lights)
    assert (lights > own.amin(0)).all() and (lights < own.amax(0)).all()
    assert ((lights.mean(0) - own.mean(0)).abs() < own.std(0) / 4).all() and (lights.std(0) / own.std(0)).log().abs().max() < 0.35
    (_, matrix), light = draws[3], lights[3]
    near = torch.from_numpy(found.matrices)[(own - light).square().sum(1).argsort()[:3]]
    weights = 1 / (own - light).square().sum(1).sort().values[:3]
    torch.testing.assert_close(torch.tensor(matrix, dtype=torch.float64), torch.tensordot(weights / weights.sum(), near, 1))
    assert sampled_isp(5) == sampled_isp(5) != sampled_isp(6)


def test_every_frame_may_have_a_camera_of_its_own(portrait: torch.Tensor) -> None:
    clip = portrait.expand(3, -1, -1, -1)
    each = degradation("any_camera", iso="3200", of="frame", seed=4)
    seen = each.observe(clip, torch.Generator().manual_seed(0))
    own = degradation("any_camera", iso="3200", seed=5)
    assert torch.equal(each.at_frames(1, 1).forward(clip[:1]), own.forward(clip[:1]))
    error = (seen - clip).mean((2, 3))
    assert not torch.allclose(error[0], error[1], atol=1e-3)  # the clipping of each camera's colours differs
