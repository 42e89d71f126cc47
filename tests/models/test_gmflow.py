"""GMFlow's parts: windows, masks, matching, upsampling. Its numbers are held to the official network's in tests/methods/test_keep_parity.py."""

import pytest
import torch
from helpers.seeded_weights import seed_weights
from torch.testing import assert_close

from fvr.models.gmflow import GMFlow, coordinate_grid, expected, from_windows, instance_norm, shifted_mask, sine_position, to_windows


@pytest.fixture(scope="module")
def network():
    return seed_weights(GMFlow(), "gmflow")


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize("shift", [(0, 0), (2, 3)])
def test_windows_and_back(shift):
    x = torch.randn(2, 8, 12, 5)
    windows = to_windows(x, shift)
    assert_close(windows[0, 1, 0], x[0, shift[0], 6 + shift[1]], rtol=0, atol=0)  # the second window is to the right of the first
    assert_close(from_windows(windows, (8, 12), shift), x, rtol=0, atol=0)


def test_the_mask_separates_what_only_rolling_brought_together():
    """In a shifted window, two places may attend to each other if and only if a window's size spans both where they came from."""
    height, width = 8, 12
    mask = shifted_mask(height, width, torch.device("cpu"))[0]
    places = to_windows(coordinate_grid(height, width, torch.device("cpu"))[None], (height // 4, width // 4))[0]
    gap = (places[:, :, None] - places[:, None]).abs()
    neighbours = (gap[..., 0] < width // 2) & (gap[..., 1] < height // 2)
    assert torch.equal(mask == 0, neighbours)
    assert set(mask.unique().tolist()) == {-100.0, 0.0}


def test_matching_finds_a_known_displacement():
    """Features that moved by (2, -1) places are found there."""
    features = torch.randn(1, 10, 10, 32, generator=torch.Generator().manual_seed(1)) * 8
    moved = features.roll((-1, 2), (1, 2))
    places = coordinate_grid(10, 10, features.device).flatten(0, 1)
    flow = (expected(features.flatten(1, 2), moved.flatten(1, 2), places[None]) - places).unflatten(1, (10, 10))
    assert_close(flow[0, 1:, :-2], torch.tensor([2.0, -1.0]).expand(9, 8, 2), atol=1e-3, rtol=0)


def test_what_is_expected_is_a_mean_by_likeness():
    query, key, value = torch.randn(2, 50, 16), torch.randn(2, 40, 16), torch.randn(2, 40, 2)
    assert_close(expected(query, key, value), (query @ key.mT / 4).softmax(-1) @ value)


def test_positions_differ_and_have_one_length():
    position = sine_position(6, 9, 128, torch.device("cpu")).flatten(0, 1)
    assert_close(position.square().sum(1), torch.full((54,), 64.0))
    assert torch.pdist(position).min() > 0.1


def test_an_even_flow_stays_even_when_enlarged(network):
    coarse = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 6, 6)
    fine = network._upsample(coarse, torch.randn(1, 128, 6, 6))
    assert_close(fine[..., 8:-8, 8:-8], 8 * coarse[..., :1, :1].expand(1, 2, 32, 32), atol=1e-4, rtol=0)


def test_instance_norm_is_pytorchs():
    x = torch.randn(2, 5, 40, 30) * 3 + 2
    for layout in (torch.contiguous_format, torch.channels_last):
        assert_close(instance_norm(x.contiguous(memory_format=layout)), torch.nn.functional.instance_norm(x), atol=2e-6, rtol=1e-5)


def test_features_once_per_frame_give_the_flow_of_pairs(network, images):
    with torch.inference_mode():
        features = [network.features(image[None]) for image in images]
        each = torch.cat([network.flow(features[1], features[0]), network.flow(features[2], features[1])])
        together = network(images[1:], images[:-1])
    assert_close(each, together, atol=1e-3, rtol=1e-4)
    assert (together[0] - network(images[:1], images[1:2])).abs().max() > 1  # direction matters


def test_sides_that_do_not_fit_are_named(network):
    with pytest.raises(ValueError, match="multiples of 16, got 40 x 64"):
        network.features(torch.zeros(1, 3, 40, 64))


def test_gradients_reach_every_parameter(network, images):
    network(images[1:], images[:-1]).abs().mean().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0] == []
    network.zero_grad()
