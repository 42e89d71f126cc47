"""Backward warping, as a law of translations."""

import pytest
import torch
from torch.testing import assert_close

from fvr.motion.warp import warp


def even(x, y, like):
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(len(like), 2, *like.shape[-2:])


def test_no_motion_changes_nothing():
    image = torch.rand(2, 3, 20, 30)
    assert_close(warp(image, even(0.0, 0.0, image)), image, atol=1e-5, rtol=0)


def test_a_whole_shift_shows_what_lies_there_and_nothing_beyond():
    image = torch.rand(1, 3, 20, 30) + 1
    moved = warp(image, even(4.0, -3.0, image))
    assert_close(moved[..., 3:, :-4], image[..., :-3, 4:], atol=1e-5, rtol=0)
    assert moved[..., :3, :].abs().max() < 1e-5 and moved[..., -4:].abs().max() < 1e-5


def test_half_a_pixel_is_the_mean_of_two():
    image = torch.rand(1, 1, 8, 8)
    assert_close(warp(image, even(0.5, 0.0, image))[..., :-1], (image[..., :-1] + image[..., 1:]) / 2, atol=1e-5, rtol=0)


def test_half_precision_images_are_warped_in_float32():
    image = torch.rand(1, 3, 64, 64)
    flow = torch.rand(1, 2, 64, 64) * 3
    moved = warp(image.half(), flow.half())
    assert moved.dtype == torch.float32
    assert_close(moved, warp(image.half().float(), flow.half().float()))


def test_gradients_reach_image_and_flow():
    image, flow = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 2, 8, 8, requires_grad=True)
    warp(image, flow).square().sum().backward()
    assert image.grad.abs().sum() > 0 and flow.grad.abs().sum() > 0


def test_a_flow_of_another_size_is_refused():
    with pytest.raises(ValueError, match="resize one of them"):
        warp(torch.rand(1, 3, 8, 8), torch.rand(1, 2, 4, 4))
