"""The recipe of the blind restorer: what a step learns from, and what it is only shown."""

from dataclasses import replace

import pytest
import torch

from fvr.models.blind import BlindSizes, BlindUNet
from fvr.training.blind import BLIND_512, RecurrentStage, restored
from fvr.training.data.pairs import FRAMES


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(1, 5, 3, 64, 64, generator=generator)
    return {
        "clean": clean,
        "damaged": (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1),
        "flows": torch.zeros(1, 4, 2, 64, 64),
        "place": torch.zeros(1, 2, 16, 16),
        "enlarged": torch.ones(1),
        "pool": torch.ones(1),
    }


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = BlindUNet(BlindSizes((8, 8), (1, 1)))
    torch.nn.init.normal_(network.tail.weight, std=0.02)
    return network


def test_a_step_learns_from_its_last_frames_and_is_shown_those_before(network, batch):
    every, last = restored(network, batch), restored(network, batch, 2)
    assert every.shape[1] == 5 and last.shape[1] == 2
    assert torch.allclose(every[:, 3:], last, atol=1e-6)


@pytest.mark.parametrize("reduced", (False, True))
def test_frames_shown_first_do_not_change_what_is_learnt_from_the_others(network, batch, reduced):
    """Weights that autocast keeps from frames without a gradient had none afterwards."""
    gradients = []
    for shown in (None, 2):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, reduced):
            restored(network, batch, shown)[:, -2:].square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.allclose(a, b, rtol=0.1, atol=1e-3) for a, b in zip(*gradients, strict=True)) and any(
        part.abs().max() > 1e-3 for part in gradients[1]
    )


def test_clips_of_all_lengths_are_shown(network):
    stage = RecurrentStage(replace(BLIND_512, frames=3, run_up=FRAMES - 3), [], [], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    assert {stage.shown(generator) for _ in range(60)} == set(range(3, FRAMES + 1))
