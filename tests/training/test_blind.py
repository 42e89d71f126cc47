"""The recipe of the blind restorer: frames with a loss, and their run-up."""

from dataclasses import replace

import pytest
import torch

from fvr.models.blind import BlindSizes, BlindUNet
from fvr.training.blind import BLIND_512, RecurrentStage, unroll
from fvr.training.data.pairs import FRAMES


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 5, 3, 64, 64, generator=generator)
    return {
        "clean": clean,
        "damaged": (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1),
        "flows": torch.zeros(1, 4, 2, 64, 64),
        "positions": torch.zeros(1, 2, 16, 16),
        "scale": torch.ones(1),
        "pool": torch.ones(1),
    }


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = BlindUNet(BlindSizes((8, 8), (1, 1)))
    torch.nn.init.normal_(network.tail.weight, std=0.02)
    return network


def test_run_up_frames_have_no_loss(network, batch):
    every, last = unroll(network, batch), unroll(network, batch, 2)
    assert every.shape[1] == 5 and last.shape[1] == 2
    assert torch.allclose(every[:, 3:], last, atol=1e-6)


@pytest.mark.parametrize("reduced", (False, True))
def test_the_run_up_does_not_change_the_gradient_of_the_other_frames(network, batch, reduced):
    """Weights that autocast keeps from frames without a gradient had none afterwards."""
    gradients = []
    for frames in (None, 2):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, reduced):
            unroll(network, batch, frames)[:, -2:].square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.allclose(a, b, rtol=0.1, atol=1e-3) for a, b in zip(*gradients, strict=True)) and any(
        part.abs().max() > 1e-3 for part in gradients[1]
    )


def test_all_sequence_lengths_are_drawn(network):
    stage = RecurrentStage(replace(BLIND_512, frames=3, run_up=FRAMES - 3), [], [], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    assert {stage.sequence_length(generator) for _ in range(60)} == set(range(3, FRAMES + 1))
