"""Networks that torch.compile takes, and those that it fails on."""

import pytest
import torch

from fvr.methods.base import restore_frames
from fvr.methods.blind.restorer import BlindRestorer
from fvr.models.blind import BlindRestorers, BlindSizes
from fvr.models.compiled import compile_parts


def restorer() -> BlindRestorer:
    torch.manual_seed(0)
    networks = BlindRestorers(BlindSizes((8, 12), (1, 1)), with_detail=False).eval().requires_grad_(False)
    torch.nn.init.normal_(networks.faithful.tail.weight, std=0.02)
    return BlindRestorer(networks)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)


@pytest.fixture(autouse=True)
def forgotten():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_compiled_networks_restore_the_same(crops):
    compiled, graphs, said = restorer(), [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_parts([compiled.network], said.append, backend)
    torch.testing.assert_close(restore_frames(compiled, crops), restore_frames(restorer(), crops), rtol=0, atol=1e-5)
    assert not said and 1 <= len(graphs) <= 3  # not frame after frame


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(crops):
    other, said = restorer(), []

    def backend(graph, inputs):
        raise RuntimeError("no compiler is here\nand more lines")

    compile_parts([other.network], said.append, backend)
    assert torch.equal(restore_frames(other, crops), restore_frames(restorer(), crops))
    assert len(said) == 1 and "torch.compile failed on BlindUNet" in said[0] and "no compiler is here" in said[0] and "\n" not in said[0]


def test_errors_of_the_network_are_raised_as_they_are():
    other, said = restorer(), []
    compile_parts([other.network], said.append, "eager")
    images, valid = torch.rand(1, 9, 64, 64), torch.ones(1, 1, 64, 64)
    weights = other.network.weights_at(0)
    for _ in range(2):
        other.network(images, valid, weights)
    with pytest.raises(RuntimeError):
        other.network(images[:, :5], valid, weights)
    assert not said
