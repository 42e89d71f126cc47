"""What is known beforehand comes back: luminance and pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.code_networks import moving
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.colour import luma
from fvr.methods.tasks import Task, white_pixels, with_luminance

COLOUR = st.tuples(*[st.floats(0, 1, width=32)] * 3)


def hole(side=512, n=1):
    masks = torch.zeros(n, 1, side, side)
    masks[..., side // 4 : side // 2, side // 3 : side // 2] = 1
    return masks


def test_grey_is_the_grey_the_networks_were_trained_with():
    crops = (moving(1, 64) * 255).round() / 255
    expected = cv2.cvtColor((crops[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    assert np.abs(luma(crops)[0, 0].numpy() * 255 - expected).max() <= 0.51
    shown, kept = Task("colourise").prepare(crops)
    assert kept is None and torch.equal(shown[:, 0], shown[:, 2]) and torch.equal(shown[:, :1], luma(crops))


@settings(max_examples=200, deadline=None)
@given(COLOUR, st.floats(0, 1, width=32))
def test_luminance_is_kept_for_every_colour_and_stays_in_range(colour, level):
    image, wanted = torch.tensor(colour).view(1, 3, 1, 1), torch.tensor(level).view(1, 1, 1, 1)
    out = with_luminance(image, wanted)
    assert out.min() >= 0 and out.max() <= 1
    assert (luma(out) - wanted).abs().max() <= 1e-6
    moved = image + (wanted - luma(image))
    if moved.min() >= 0 and moved.max() <= 1:
        torch.testing.assert_close(out, moved, rtol=0, atol=1e-5)  # Cb and Cr as they were
    chroma, before = out - wanted, image - luma(image)
    assert torch.linalg.cross(chroma.flatten(), before.flatten(), dim=0).abs().max() < 1e-5  # the same hue


def test_clamping_instead_would_lose_luminance():
    image, wanted = torch.tensor([0.9, 0.2, 0.1]).view(1, 3, 1, 1), torch.full((1, 1, 1, 1), 0.8)
    clamped = (image + wanted - luma(image)).clamp(0, 1)
    assert (luma(clamped) - wanted).abs() > 0.05 and (luma(with_luminance(image, wanted)) - wanted).abs() < 1e-6


def test_known_pixels_come_back_bit_for_bit_and_holes_are_filled():
    crops, masks = moving(2, 512), hole(n=2)
    task = Task("inpaint")
    shown, kept = task.prepare(crops, masks)
    assert shown[masks.expand_as(shown) > 0].eq(1).all() and torch.equal(shown * (1 - masks), crops * (1 - masks))
    out = task.finish(torch.full_like(crops, 0.3), kept)
    known = masks.expand_as(out) == 0
    assert torch.equal(out[known], crops[known]) and out[~known].eq(torch.tensor(0.3)).all()
    broken = task.finish(torch.full_like(crops, torch.nan), kept)
    assert torch.equal(broken[known], crops[known])


def test_a_soft_mask_mixes_and_what_it_touches_is_hidden_from_the_network():
    crops = torch.full((1, 3, 512, 512), 0.5)
    masks = torch.full((1, 1, 512, 512), 0.25)
    shown, kept = Task("inpaint").prepare(crops, masks)
    assert shown.eq(1).all()
    torch.testing.assert_close(Task("inpaint").finish(torch.full_like(crops, 0.9), kept), torch.full_like(crops, 0.6))


def test_white_is_missing_where_no_mask_says_otherwise():
    crops = moving(1, 512).clamp(0, 0.9)
    crops[..., 100:140, 200:300] = 1
    crops[..., 10, 10] = torch.tensor([1.0, 1.0, 0.99])  # yellowish: known
    assert white_pixels(crops).sum() == 40 * 100
    eight_bit = (crops * 255).round().to(torch.uint8).float() / 255
    assert torch.equal(white_pixels(eight_bit), white_pixels(crops))
    shown, kept = Task("inpaint").prepare(crops)
    assert torch.equal(shown, crops)
    out = Task("inpaint").finish(torch.zeros_like(crops), kept)
    assert torch.equal(out, crops * (1 - white_pixels(crops)))


def test_a_hole_in_a_smaller_crop_leaves_no_white_rim():
    """Known 0.5, filled 0.5: the white that stood in the hole must not bleed into the enlarged border."""
    crops, masks = torch.full((1, 3, 128, 128), 0.5), hole(128)
    crops[masks.expand_as(crops) > 0] = 1.0
    _, kept = Task("inpaint").prepare(crops)
    out = Task("inpaint").finish(torch.full((1, 3, 512, 512), 0.5), kept)
    torch.testing.assert_close(out, torch.full_like(out, 0.5))


@pytest.mark.parametrize("side", [256, 512, 700])
def test_luminance_is_that_of_the_crop_at_512(side):
    crops = moving(1, side)
    _, kept = Task("colourise", True).prepare(crops)
    expected = luma(F.interpolate(crops, (512, 512), mode="area" if side > 512 else "bilinear"))
    torch.testing.assert_close(kept, expected)


def test_misuse_is_one_clear_sentence():
    crops = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match="keep_luminance belongs to the mode 'colourise', got the mode 'inpaint'"):
        Task("inpaint", True)
    with pytest.raises(ValueError, match="mode must be one of restore, colourise, inpaint, got 'paint'"):
        Task("paint")
    with pytest.raises(ValueError, match="but the mode is 'restore'"):
        Task().check(crops, torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"must be \(2, 1, 8, 8\), got \(1, 1, 8, 8\)"):
        Task("inpaint").check(crops, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="crops must be RGB"):
        Task().check(torch.zeros(2, 1, 8, 8), None)
