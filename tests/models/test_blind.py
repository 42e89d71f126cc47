"""The blind restorer's network: what it begins as, what a file says of its sizes, its recurrent inputs."""

import pytest
import torch
import torch.nn.functional as F

from fvr.models.architectures import recognise
from fvr.models.blind import BlindRestorers, BlindSizes, BlindUNet, recurrent_inputs
from fvr.models.blind.network import position_grid, quantiles, statistics, unshuffle_and_concat

SMALL = BlindSizes((8, 12, 16), (1, 2, 1))


def small(seed: int = 0) -> BlindUNet:
    torch.manual_seed(seed)
    network = BlindUNet(SMALL).eval()
    torch.nn.init.normal_(network.tail.weight, std=0.01)
    return network


def test_an_untrained_network_is_the_identity():
    images = torch.rand(2, 9, 64, 96)
    assert torch.equal(BlindUNet(SMALL)(images, torch.ones(2, 1, 64, 96)), images[:, :3])


def test_a_file_says_the_sizes():
    networks = BlindRestorers(SMALL)
    state = networks.state_dict()
    assert BlindSizes.of(small().state_dict()) == SMALL and recognise(set(state)).kind == "blind"
    again = BlindRestorers.of(state)
    assert again.faithful.sizes == SMALL and again.detailed is not None
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_a_file_may_hold_the_faithful_weights_alone():
    networks = BlindRestorers(SMALL, with_detail=False)
    again = BlindRestorers.of(networks.state_dict())
    assert again.detailed is None and again.weights_at(0.7).keys() == dict(networks.faithful.named_parameters()).keys()


@pytest.mark.parametrize("detail", [0.0, 0.3, 1.0])
def test_detail_goes_between_the_two_sets_of_weights(detail):
    networks = BlindRestorers(SMALL).eval()
    networks.faithful.load_state_dict(small(0).state_dict())
    networks.detailed.load_state_dict(small(1).state_dict())
    between = BlindUNet(SMALL).eval()
    first, second = small(0).state_dict(), small(1).state_dict()
    between.load_state_dict({name: value + detail * (second[name] - value) for name, value in first.items()})
    images, valid = torch.rand(1, 9, 64, 64), torch.ones(1, 1, 64, 64)
    assert torch.allclose(networks(images, valid, networks.weights_at(detail)), between(images, valid), atol=1e-5)


def test_the_previous_frame_and_output_are_warped_along_the_flow():
    before, restored = torch.rand(2, 1, 3, 32, 48).unbind(0)
    now = before.roll((2, -3), (2, 3))  # what was at (x, y) is at (x - 3, y + 2)
    flow = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 32, 48)
    images, valid = recurrent_inputs(now, before, restored, flow)
    inner = (..., slice(4, -4), slice(4, -4))
    assert torch.allclose(images[:, 3:6][inner], now[inner], atol=1e-5)
    assert torch.allclose(images[:, 6:][inner], restored.roll((2, -3), (2, 3))[inner], atol=1e-5)
    assert valid[..., 2:, :-3].all() and not valid[..., :2, :].any() and not valid[..., -3:].any()
    assert not images[:, 3:][..., :2, :].any()  # nothing is made up beyond the frame before


def test_the_first_frame_has_no_previous_one():
    crops = torch.rand(1, 3, 32, 32)
    images, valid = recurrent_inputs(crops, None, None, None)
    assert torch.equal(images[:, :3], crops) and not images[:, 3:].any() and not valid.any()


def test_positions_run_from_one_edge_to_the_other():
    positions = position_grid(4, 8, torch.device("cpu"))
    assert positions.shape == (1, 2, 4, 8)
    assert torch.allclose(positions[0, 0, 0], torch.linspace(-0.875, 0.875, 8)) and torch.allclose(
        positions[0, 1, :, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75])
    )


def test_statistics_tell_noise_from_blur():
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    sharp = (0.5 + 0.3 * torch.sin(x / 3) * torch.sin(y / 5)).expand(1, 3, -1, -1)
    noisy = sharp + 0.05 * torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(sharp, (3, 3, 3, 3), mode="reflect"), 7, 1)
    plain, grainy, blurred = (statistics(images)[0] for images in (sharp, noisy, soft))
    assert grainy[0] > plain[0] + 0.3  # flat regions, mixed difference, at full size
    assert blurred[5] < plain[5] - 0.1  # busy regions, horizontal difference


def test_it_is_conditioned_on_the_crops_scale():
    """From 1 to 4; None is 1."""
    network = small()
    torch.nn.init.normal_(network.tail.weight, std=0.1)
    images, valid = torch.rand(2, 9, 64, 64), torch.ones(2, 1, 64, 64)
    plain, one, two, far, farther = (network(images, valid, None, None if e is None else torch.tensor([e, e])) for e in (None, 1.0, 2.0, 4.0, 9.0))
    assert torch.equal(plain, one) and torch.equal(far, farther)
    assert not torch.equal(one, two) and not torch.equal(two, far)


def test_a_batch_is_its_clips_one_by_one():
    """FiLM modulates the kernels of one clip alone, and the features of several."""
    network = small()
    for module in network.modules():
        if hasattr(module, "film"):
            torch.nn.init.normal_(module.film.bias, std=0.3)
    torch.nn.init.normal_(network.tail.weight, std=0.1)
    images, valid = torch.rand(3, 9, 64, 64), torch.ones(3, 1, 64, 64)
    alone = torch.cat([network(images[n : n + 1], valid[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(network(images, valid), alone, rtol=0, atol=1e-5)


def test_quantiles_are_torchs():
    values, levels = torch.rand(3, 37), (0.0, 0.1, 0.5, 0.93, 1.0)
    torch.testing.assert_close(quantiles(values, levels), torch.quantile(values, torch.tensor(levels), dim=1).T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_pixel_unshuffled_and_concatenated_with_maps(dtype):
    images, maps = [torch.rand(2, 9, 32, 48), torch.rand(2, 9, 32, 48)], [torch.rand(2, 1, 8, 12), torch.rand(1, 2, 8, 12).expand(2, -1, -1, -1)]
    expected = torch.cat([F.pixel_unshuffle(torch.cat(images, 1), 4), *maps], 1).to(dtype)
    found = unshuffle_and_concat(images, maps, dtype)
    assert torch.equal(found, expected) and found.is_contiguous(memory_format=torch.channels_last)
    images[0].requires_grad_()
    assert torch.equal(unshuffle_and_concat(images, maps, dtype), expected) and unshuffle_and_concat(images, maps, dtype).requires_grad


def test_half_precision_gives_the_same_correction():
    networks = BlindRestorers(SMALL).eval()
    networks.faithful.load_state_dict(small().state_dict())
    images, valid = torch.rand(1, 9, 64, 64), torch.ones(1, 1, 64, 64)
    exact = networks(images, valid, networks.weights_at(0))
    for part in networks.decoder_parts():
        part.bfloat16()
    half = networks(images, valid, networks.weights_at(0))
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    correction = (exact - images[:, :3]).square().mean()
    assert (half - exact).square().mean() < 1e-3 * correction
