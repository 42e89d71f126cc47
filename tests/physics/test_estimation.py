"""What undescribed footage went through: right where a blur and noise explain it, and no claim where they do not."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fvr.demo import moving_portrait
from fvr.physics import parse
from fvr.physics.crops import crop_operator
from fvr.physics.estimation import NOTHING, contradiction, estimate_degradation, unexplained
from fvr.physics.traces import Traces


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    return moving_portrait(8)


def stored(frames: torch.Tensor, damage: str) -> torch.Tensor:
    """Frames after `damage`, in 8 bits."""
    return (parse(damage).observe(frames, torch.Generator().manual_seed(0)).clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("sigma", [1.2, 2.0, 3.0])
@pytest.mark.parametrize("noise", [0.0, 0.006])
def test_a_blur_under_even_noise_is_found_within_a_tenth(portrait, sigma, noise):
    seen = stored(portrait, f"gaussian_blur(sigma={sigma}) + noise(sigma={noise})" if noise else f"gaussian_blur(sigma={sigma})")
    found = estimate_degradation(seen)
    assert found.trusted and abs(found.sigma / sigma - 1) < 0.1
    assert found.noise == pytest.approx(max(0.67 * noise, 0.19 / 255), rel=0.15)
    assert found.operator.noise_level == pytest.approx(max(noise, 0.5 / 255), rel=0.15)


def test_a_blur_is_told_in_pixels_of_the_frame(portrait):
    """A crop of twice the size holds twice the blur in its own pixels."""
    seen = F.interpolate(stored(portrait[..., 32:288, 32:288], "gaussian_blur(sigma=1.5)"), scale_factor=2.0, mode="bicubic").clamp(0, 1)
    assert estimate_degradation(seen, 2.0).sigma == pytest.approx(1.5, rel=0.2)


@pytest.mark.parametrize(
    "damage",
    ["gaussian_blur(sigma=0.3)", "gaussian_blur(sigma=1.5) + h264(crf=26)", "h264(crf=30)", "noise(sigma=0.02)", "noise(sigma=0.03) + h264(crf=24)"],
)
def test_nothing_is_claimed_of_sharp_coded_or_noisy_footage(portrait, damage):
    assert not estimate_degradation(stored(portrait, damage)).trusted


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarged_footage_is_no_blur(portrait, factor):
    small = F.interpolate(portrait, scale_factor=1 / factor, mode="area")
    assert not estimate_degradation((F.interpolate(small, portrait.shape[-2:], mode="bicubic").clamp(0, 1) * 255).round() / 255).trusted


@pytest.mark.parametrize("traces", [Traces(2.0), Traces(blocks=8.0), Traces(1.5, 12.0)])
def test_no_blur_is_trusted_in_enlarged_or_blocky_footage(portrait, traces):
    found = estimate_degradation(stored(portrait, "gaussian_blur(sigma=2)"), 1.0, traces)
    assert replace(found, traces=Traces(), held_out=0.0).trusted and not found.fits and not found.trusted
    assert found.describe().startswith(f"{traces.describe()}, detail up to ")
    assert float(found.describe().split("detail up to ")[1].split("%")[0]) <= 100 / traces.enlargement + 0.5
    assert "noise of 0.2 grey levels" in found.describe()
    assert estimate_degradation(torch.zeros(4, 3, 320, 320), 1.0, traces).describe() == f"{traces.describe()}, and too little to see to tell more"


def test_frames_that_were_not_fitted_have_their_say(portrait):
    """Frames 1, 3, ... are sharp: the blur that the others show does not hold for the clip."""
    mixed = stored(portrait, "gaussian_blur(sigma=2)")
    assert estimate_degradation(mixed).trusted
    mixed[1::2] = portrait[1::2]
    found = estimate_degradation(mixed)
    assert found.fits and not found.trusted


def test_footage_without_a_picture_tells_nothing():
    for clip in (torch.zeros(4, 3, 320, 320), torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))):
        found = estimate_degradation(clip)
        assert found == NOTHING and not found.trusted and "too little" in found.describe()


def test_a_description_that_cannot_be_is_contradicted(portrait):
    seen = stored(portrait, "gaussian_blur(sigma=1.5)")

    def said(description: str) -> str:
        return contradiction(seen, crop_operator(parse(description), 1.0))

    assert said("gaussian_blur(sigma=1.5)") == said("gaussian_blur(sigma=1)") == said("noise(sigma=0.005)") == ""
    assert "would have taken away" in said("gaussian_blur(sigma=5)")
    assert "noise of 17 grey levels" in said("noise(sigma=0.1)")


def test_what_an_operator_cannot_explain_grows_with_its_width(portrait):
    seen = stored(portrait, "gaussian_blur(sigma=1.5)")
    rest = [unexplained(seen, parse(f"gaussian_blur(sigma={sigma})"), 0.2 / 255) for sigma in (1.4, 2.2, 4)]
    assert rest[0] < 1.1 < rest[1] < rest[2]
