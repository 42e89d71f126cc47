"""Independent implementations of the same operators: deepinv, torch, and the tables of MATLAB's imresize."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fvr.physics import AveragePool, BicubicDownsample, Blur
from fvr.physics.linalg.convolve import gram_spectrum
from fvr.physics.linear.bicubic import bicubic_matrix


@pytest.fixture
def picture(rng: torch.Generator) -> torch.Tensor:
    return torch.rand((1, 3, 48, 64), generator=rng)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bicubic_is_deepinv_imresize(picture: torch.Tensor, factor: int) -> None:
    imresize = pytest.importorskip("deepinv.physics.functional.imresize").imresize_matlab
    expected = imresize(picture, scale=1 / factor, kernel="cubic", antialiasing=True, padding_type="reflect")
    assert_close(BicubicDownsample(factor).forward(picture), expected, atol=1e-5, rtol=0)


def test_bicubic_is_torch_antialias_in_the_interior(picture: torch.Tensor) -> None:
    expected = F.interpolate(picture, scale_factor=0.25, mode="bicubic", antialias=True, align_corners=False)
    assert_close(BicubicDownsample(4).forward(picture)[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3], atol=1e-5, rtol=0)


def test_facts_of_matlab_imresize() -> None:
    """imresize(., 1/2) weighs eight pixels by (-3, -9, 29, 111, 111, 29, -9, -3) / 256 and mirrors them, with the edge, at the ends."""
    taps = torch.tensor([-3, -9, 29, 111, 111, 29, -9, -3], dtype=torch.float64) / 256
    matrix = bicubic_matrix(16, 2)
    assert_close(matrix[3, 3:11], taps)
    assert_close(matrix[0, :5], torch.tensor([111 + 29 - 0.0, 111 - 9, 29 - 3, -9, -3], dtype=torch.float64) / 256)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("size", [(5, 5), (9, 4), (1, 7)])
def test_the_spectrum_of_a_blur_is_that_of_its_autocorrelation(size: tuple[int, int], factor: int, rng: torch.Generator) -> None:
    """Summed lag by lag."""
    kernel = torch.rand(size, generator=rng, dtype=torch.float64)
    low = (12, 10)
    lags = torch.zeros(low, dtype=torch.float64)
    for dy in range(-(size[0] - 1), size[0]):
        for dx in range(-(size[1] - 1), size[1]):
            if dy % factor == 0 and dx % factor == 0:
                here = kernel[max(dy, 0) : size[0] + min(dy, 0), max(dx, 0) : size[1] + min(dx, 0)]
                there = kernel[max(-dy, 0) : size[0] + min(-dy, 0), max(-dx, 0) : size[1] + min(-dx, 0)]
                lags[dy // factor % low[0], dx // factor % low[1]] += (here * there).sum()
    blur = Blur(kernel / kernel.sum(), factor)
    expected = torch.fft.rfft2(lags / kernel.sum() ** 2).real.clamp(min=0)
    assert_close(gram_spectrum(blur, low, torch.float64, torch.device("cpu")), expected, atol=1e-10, rtol=1e-8)


def test_a_wide_blur_is_inverted_at_once() -> None:
    """Its autocorrelation as a direct sum would take 90 GB."""
    blur = Blur.gaussian(40, 20, 30)
    assert min(blur.weights.shape) > 200
    assert gram_spectrum(blur, (64, 64), torch.float32, torch.device("cpu")).shape == (64, 33)


@pytest.mark.parametrize(("length", "factor"), [(13, 2), (512, 8), (97, 16), (5, 16), (7, 3)])
def test_bicubic_keeps_flat_frames_and_ramps(length: int, factor: int) -> None:
    """Rows sum to 1; away from the ends a ramp becomes the ramp of the block centres; ceil(length / factor) rows, as imresize."""
    matrix = bicubic_matrix(length, factor)
    assert matrix.shape == (-(-length // factor), length)
    assert_close(matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64))
    ramp = matrix @ torch.arange(length, dtype=torch.float64)
    centre = (torch.arange(len(matrix), dtype=torch.float64) + 0.5) * factor - 0.5
    inside = (centre > 2 * factor) & (centre < length - 2 * factor)
    assert_close(ramp[inside], centre[inside])


@pytest.mark.parametrize(("boundary", "padding"), [("circular", "circular"), ("replicate", "replicate"), ("reflect", "reflect")])
@pytest.mark.parametrize("kernel", ["separable", "any"])
def test_blur_is_deepinv_blur(picture: torch.Tensor, boundary, padding: str, kernel: str) -> None:
    """deepinv convolves, that is, it correlates with the kernel turned by 180 degrees."""
    conv2d = pytest.importorskip("deepinv.physics.functional").conv2d
    blur = Blur.gaussian(1.3, boundary=boundary) if kernel == "separable" else Blur.motion(9, 0.6, seed=4, boundary=boundary)
    expected = conv2d(picture, blur.weights.float().flip(0, 1)[None, None], padding=padding)
    assert_close(blur.forward(picture), expected, atol=1e-5, rtol=0)


def test_decimated_circular_inverse_is_deepinv_prox(picture: torch.Tensor) -> None:
    """deepinv's closed-form proximal step of |A x - y|^2 from 0 with weight 1 / d is the inverse damped by d."""
    physics = pytest.importorskip("deepinv.physics")
    blur = Blur(torch.rand(5, 5, generator=torch.Generator().manual_seed(1)), factor=2, boundary="circular", offset=0)
    theirs = physics.Downsampling(img_size=(3, 48, 64), filter=blur.weights.flip(0, 1)[None, None], factor=2, padding="circular")
    picture = picture.double()
    y = theirs.A(picture)
    assert_close(blur.forward(picture), y)
    expected = theirs.prox_l2(torch.zeros_like(picture), y, gamma=1 / 0.05)
    assert_close(blur.pinv(y, damping=0.05), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kernel", [(3, 3), (4, 6), (1, 7), (33, 33)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_direct_and_fourier_sums_agree(kernel: tuple[int, int], factor: int, monkeypatch, rng) -> None:
    """Both ways of correlating are the same operator, for odd, even, thin and large kernels (larger than the frame)."""
    from fvr.physics.linalg import convolve

    blur = Blur(torch.rand(kernel, generator=rng, dtype=torch.float64), factor, "reflect")
    x = torch.rand((2, 17, 23), generator=rng, dtype=torch.float64)
    results = []
    for taps in (0, 10**6):
        monkeypatch.setattr(convolve, "DIRECT_TAPS", taps)
        y = blur.forward(x)
        results.append((y, blur.adjoint(y, (17, 23))))
    assert_close(results[0], results[1])


def test_separable_and_general_paths_agree(monkeypatch, rng) -> None:
    """The matrices of a separable kernel do what the sum over its taps does, and its exact inverse is what iteration converges to."""
    separable = Blur.gaussian(1.4, 0.8, factor=3, boundary="replicate")
    general = Blur(separable.weights, 3, "replicate")
    general.__dict__["taps"] = None
    assert separable.taps is not None
    x = torch.rand((2, 19, 25), generator=rng, dtype=torch.float64)
    y = separable.forward(x)
    assert_close(general.forward(x), y)
    assert_close(general.adjoint(y, (19, 25)), separable.adjoint(y, (19, 25)))
    assert_close(general.pinv(y, (19, 25), 0.01), separable.pinv(y, (19, 25), 0.01), atol=1e-7, rtol=1e-6)


def test_average_pool_is_torch(picture: torch.Tensor) -> None:
    assert_close(AveragePool(4).forward(picture), F.interpolate(picture, scale_factor=0.25, mode="area"))


@pytest.mark.parametrize(
    "blur", [Blur.gaussian(2, factor=4), Blur.gaussian(1.5, factor=3), Blur.motion(15, seed=2, factor=2), Blur.motion_line(9, 40, factor=4)], ids=str
)
def test_decimation_does_not_shift(blur: Blur) -> None:
    """A ramp becomes the ramp of the block centres: what is upsampled from y lies where it lay in x."""
    ramp = torch.arange(96, dtype=torch.float64).expand(96, 96)
    low = blur.forward(ramp)
    centre = (torch.arange(low.shape[-1], dtype=torch.float64) + 0.5) * blur.factor - 0.5
    inside = slice(low.shape[-1] // 3, -low.shape[-1] // 3)
    tolerance = 1e-6 if blur.sigmas or "degrees" in str(blur) else 0.05
    assert_close(low[:, inside], centre[inside].expand(len(low), -1), atol=tolerance, rtol=0)
