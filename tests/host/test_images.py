"""IMAGE and MASK against frames: nothing is lost, nothing that came in changes, what is wrong is said."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.host.images import from_image, from_mask, to_image, to_mask

sizes = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
floats = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])


def values(shape: tuple[int, ...], seed: int, dtype: torch.dtype, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low).to(dtype)


@settings(max_examples=60, deadline=None)
@given(sizes, st.sampled_from([3, 4]), floats, st.integers(0, 2**31))
def test_round_trip_is_exact_and_leaves_the_input_alone(size, channels, dtype, seed):
    """to_image(from_image(x)) = x without alpha, in every dtype, through memory of its own."""
    image = values((*size, channels), seed, dtype)
    before = image.clone()
    frames = from_image(image)
    assert frames.dtype == torch.float32 and frames.is_contiguous() and frames.device.type == "cpu"
    assert torch.equal(to_image(frames, dtype=dtype), before[..., :3])
    frames.add_(1)
    assert torch.equal(image, before)


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_channels_and_pixels_keep_their_places(size, seed):
    """frames[t, c, i, j] = image[t, i, j, c]."""
    image = values((*size, 3), seed, torch.float32)
    frames = from_image(image)
    for c in range(3):
        assert torch.equal(frames[:, c], image[..., c])


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_what_leaves_is_a_fresh_contiguous_batch_in_range(size, seed):
    frames = values((size[0], 3, *size[1:]), seed, torch.float32, -2, 3)
    before = frames.clone()
    image = to_image(frames)
    assert image.is_contiguous() and image.dtype == torch.float32
    assert torch.equal(image, before.clamp(0, 1).permute(0, 2, 3, 1))
    image.zero_()
    assert torch.equal(frames, before)


@settings(max_examples=40, deadline=None)
@given(sizes, floats, st.integers(0, 2**31))
def test_masks_round_trip(size, dtype, seed):
    mask = values(size, seed, dtype)
    held = from_mask(mask)
    assert torch.equal(to_mask(held, dtype=dtype), mask) and torch.equal(to_mask(held[:, 0], dtype=dtype), mask)
    held.zero_()
    assert torch.equal(from_mask(mask)[:, 0], mask.float())


def test_a_single_mask_is_a_batch_of_one():
    mask = values((4, 5), 0, torch.float32)
    assert torch.equal(from_mask(mask), mask[None, None])


def test_a_view_of_a_bigger_batch_goes_through():
    """Crops and strided batches, as other nodes hand them over."""
    big = values((6, 8, 9, 4), 1, torch.float32)
    part = big[::2, 1:7:2, 2:, :3]
    assert torch.equal(to_image(from_image(part)), part)


def test_inference_tensors_come_and_go():
    """ComfyUI runs nodes under inference mode; what a method trains on must not inherit it."""
    with torch.inference_mode():
        image = torch.rand(1, 4, 4, 3)
    with torch.inference_mode(False):
        assert not from_image(image).is_inference()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.rand(4, 5, 3), r"\(4, 5, 3\)"),
        (torch.rand(1, 2, 4, 5, 3), r"\(1, 2, 4, 5, 3\)"),
        (torch.rand(2, 3, 8, 8), "this one has 8"),
        (torch.rand(2, 8, 8, 1), "this one has 1"),
        (torch.rand(0, 8, 8, 3), "empty"),
        (torch.rand(2, 0, 8, 3), "empty"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "torch.uint8"),
        (torch.full((1, 40, 40, 3), 255.0), "go up to 255; divide 8-bit values by 255"),
        (None, "got NoneType: the node before gave no picture"),
        ([torch.rand(1, 8, 8, 3)], "got list: the node before gave no picture"),
    ],
)
def test_a_wrong_image_is_named(image, words):
    with pytest.raises(ValueError, match=words):
        from_image(image)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (torch.rand(2, 8, 8, 3), "dimension 1"),
        (torch.rand(3, 8, 8), "rank|dimension"),
        (torch.rand(0, 3, 8, 8), "empty"),
        (torch.zeros(1, 3, 2, 2).int(), "float"),
    ],
)
def test_wrong_frames_are_named(frames, words):
    with pytest.raises(ValueError, match=words):
        to_image(frames)


@pytest.mark.parametrize("mask", [torch.rand(2, 3, 4, 4), torch.rand(5), torch.rand(0, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool), None])
def test_a_wrong_mask_is_refused(mask):
    with pytest.raises(ValueError, match=r"mask|MASK"):
        from_mask(mask)
    with pytest.raises(ValueError, match=r"mask"):
        to_mask(mask)


@pytest.mark.parametrize("convert", [from_image, to_image])
def test_what_is_not_a_number_is_refused_at_the_door(convert):
    """A half-precision model that overflowed gives NaN; a face detector far behind it would fail with an unreadable error."""
    picture = torch.rand(1, 3, 3, 3)
    picture[0, 1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match="1 of 27 values are NaN"):
        convert(picture)
    picture[0, 1, 2, 0] = torch.inf
    assert convert(picture).max() == 1
