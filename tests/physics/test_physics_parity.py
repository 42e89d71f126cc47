"""Parity with the operators of FLAIR's official code, in its range [-1, 1]."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.flair_gaussian import flair_gaussian
from safetensors.torch import load_file
from torch.testing import assert_close

from fvr.physics import BicubicDownsample, Jpeg
from fvr.physics.linear.bicubic import bicubic_matrix

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "parity" / "flair_operators.safetensors"


@pytest.fixture(scope="module")
def reference():
    if not REFERENCE.exists():
        pytest.skip("the parity references are not beside this checkout (../shared/parity)")
    return load_file(REFERENCE)


@pytest.mark.parametrize("factor", [8, 16])
def test_bicubic_matrices(reference, factor: int) -> None:
    matrix = bicubic_matrix(512, factor)
    assert_close(matrix.float(), reference[f"x{factor}_bicubic.A1d"], atol=1e-6, rtol=0)
    assert_close(torch.linalg.pinv(matrix).float(), reference[f"x{factor}_bicubic.pinv1d"], atol=5e-6, rtol=0)


@pytest.mark.parametrize("factor", [8, 16])
def test_bicubic_inverse(reference, factor: int) -> None:
    """A+ y is P y P^T with the reference's pseudo-inverse matrix; the upper left corner is the official result."""
    y, pinv = reference[f"x{factor}_bicubic.y"], reference[f"x{factor}_bicubic.pinv1d"]
    whole = BicubicDownsample(factor).pinv(y)
    assert_close(whole, pinv @ y @ pinv.mT, atol=2e-5, rtol=0)
    assert_close(whole[..., :64, :64], reference[f"x{factor}_bicubic.Apinv_y_crop"], atol=2e-5, rtol=0)


def test_gaussian_forward_with_its_border(reference) -> None:
    """The crop holds the upper and left border; its last rows read past the crop of x."""
    y = flair_gaussian().forward(reference["gaussian.x_crop_0_256"])
    assert_close(y[..., :62, :62], reference["gaussian.Ax_crop_0_64"][..., :62, :62], atol=2e-6, rtol=0)


def test_gaussian_kernel(reference) -> None:
    assert_close(flair_gaussian().weights.float(), reference["gaussian.kernel"].flip(0, 1), atol=1e-7, rtol=0)


def test_gaussian_inverse_away_from_the_border(reference) -> None:
    inverse = flair_gaussian().pinv(reference["gaussian.y"])
    assert_close(inverse[..., 192:320, 192:320], reference["gaussian.Apinv_y_crop_192_320"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("quality", [10, 30, 60, 90])
def test_jpeg(reference, quality: int) -> None:
    """Coefficients are equal integers; decoded frames agree to a hundredth of a grey level."""
    jpeg = Jpeg(quality)
    code = jpeg.encode((reference[f"jpeg_q{quality}.x"] + 1) / 2)
    assert torch.equal(code.luma, reference[f"jpeg_q{quality}.luma"])
    assert torch.equal(code.chroma, reference[f"jpeg_q{quality}.chroma"])
    assert_close(jpeg.decode(code) * 2 - 1, reference[f"jpeg_q{quality}.dec"], atol=1e-4, rtol=0)
