"""Metric Q on pictures whose gradients are known, and its law: blur lowers it and so does noise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.moving_texture import texture
from skimage import data

from fvr.faces.tracking.appearance import sharpness
from fvr.metrics.metric_q import content_gain, directed, image_content
from fvr.physics import parse


def portrait() -> torch.Tensor:
    """A face with hair, cloth and a background, (1, 3, 128, 128)."""
    astronaut = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None, :, :256, 96:352] / 255
    return F.avg_pool2d(astronaut, 2)


def noisy(x: torch.Tensor, deviation: float) -> torch.Tensor:
    return (x + deviation * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def blotchy(x: torch.Tensor, deviation: float) -> torch.Tensor:
    """Noise as a restorer leaves it: without its finest part."""
    noise = F.avg_pool2d(torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), 3, 1, 1) * 3
    return (x + deviation * noise).clamp(0, 1)


def test_a_ramp_has_one_singular_value():
    """Slope g at each of 64 pixels: s1 = 8 g, s2 = 0, in any direction; two crossed ramps are still one direction."""
    ramp = (torch.arange(40.0) * 3 / 255).expand(1, 3, 32, 40)
    for turned in (ramp, ramp.mT, ramp.flip(-1)):
        assert image_content(turned.contiguous()).item() == pytest.approx(24, rel=1e-4)
    slanted = ((torch.arange(32.0)[:, None] + torch.arange(32.0)) * 3 / 255).expand(1, 3, 32, 32)
    assert image_content(slanted).item() == pytest.approx(24 * 2**0.5, rel=1e-4)


def test_a_saddle_has_equal_singular_values_and_no_content():
    """f = c x y inside a patch: gradients (c y, c x) of equal sums and no correlation."""
    across = torch.arange(8.0) - 3.5
    saddle = (0.5 + across[:, None] * across * 0.02).expand(1, 3, 8, 8)
    assert not directed(saddle).any() and image_content(saddle).item() == 0
    assert image_content(saddle, torch.ones(1, 1, 1, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-4)
    assert image_content(torch.full((1, 3, 16, 16), 0.4)).item() == 0


def test_white_noise_has_a_direction_in_few_patches():
    noise = torch.rand(4, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    assert directed(noise).double().mean() < 0.01
    assert directed(portrait()).double().mean() > 0.4


def test_blur_lowers_metric_q():
    x = portrait()
    patches = directed(x)
    values = [image_content(x if sigma == 0 else parse(f"gaussian_blur(sigma={sigma})").forward(x), patches).item() for sigma in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[-1] < 0.7 * values[0], values


@pytest.mark.parametrize("spoil", [noisy, blotchy])
def test_noise_lowers_metric_q_where_other_measures_rise(spoil):
    x = portrait()
    patches = directed(x)
    spoilt = [x, *(spoil(x, deviation) for deviation in (0.02, 0.04, 0.08, 0.16))]
    values = [image_content(each, patches).item() for each in spoilt]
    assert values == sorted(values, reverse=True) and values[-1] < 0.85 * values[0], values
    assert sharpness(spoilt[-1][0]) > sharpness(x[0])


def test_a_cleaner_copy_gains_and_a_blurred_one_loses():
    x = torch.cat([portrait(), portrait().flip(-1)])
    rough = noisy(x, 0.08)
    assert torch.equal(content_gain(x, x), torch.zeros(2, dtype=torch.float64))
    assert (content_gain(x, rough) > 0.1).all() and (content_gain(rough, x) < -0.1).all()
    assert (content_gain(parse("gaussian_blur(sigma=2)").forward(x), x) < -0.1).all()
    smeared = parse("gaussian_blur(sigma=3)").forward(rough)  # without noise, and without edges
    assert (content_gain(smeared, x) < -0.2).all()
    flat = torch.full((1, 3, 16, 16), 0.4)
    assert content_gain(texture()[:1, :, :16, :16], flat).item() == 0


def test_metric_q_is_per_frame():
    x = torch.cat([portrait(), noisy(portrait(), 0.05)])
    torch.testing.assert_close(image_content(x), torch.cat([image_content(x[:1]), image_content(x[1:])]))
    torch.testing.assert_close(image_content(x[..., :125, :123]), image_content(x[..., :120, :120]))


@pytest.mark.parametrize("shape", [(1, 3, 7, 20), (3, 20, 20), (1, 1, 20, 20)])
def test_frames_that_are_not_rgb_are_refused(shape):
    with pytest.raises(ValueError, match="at least 8 x 8 pixels, got"):
        image_content(torch.zeros(shape))
