"""CodeFormer's laws on a small network; its outputs against the official network's are in tests/methods/test_codeformer_parity.py."""

from __future__ import annotations

import pytest
import torch
from helpers.code_networks import moving, relative, small_codeformer

PICTURES = moving(2, 64) * 2 - 1


def test_fidelity_and_adain_reach_the_picture():
    network = small_codeformer()
    with torch.no_grad():
        plain = network(PICTURES, 0.0, match=False)
        others = [network(PICTURES, 0.0, match=True), network(PICTURES, 0.5, match=False), network(PICTURES, 1.0, match=False)]
    assert all(relative(other, plain) > 1e-2 for other in others)
    assert relative(others[1], others[2]) > 1e-2


def test_at_weight_zero_only_the_codes_count():
    """Other features under the same codes change nothing."""
    network = small_codeformer()
    with torch.no_grad():
        latent, features = network.encode(PICTURES)
        codes = network.quantize.lookup(network.logits(latent).argmax(-1))
        foreign = {side: torch.zeros_like(feature) for side, feature in features.items()}
        assert torch.equal(network.decode(codes, latent, features, 0.0), network.decode(codes, latent, foreign, 0.0))
        assert not torch.equal(network.decode(codes, latent, features, 0.1), network.decode(codes, latent, foreign, 0.1))


def test_pictures_of_a_batch_do_not_meet():
    network = small_codeformer()
    with torch.no_grad():
        both, second = network(PICTURES), network(PICTURES[1:])
    assert relative(both[1:], second) < 1e-4


def test_gradients_reach_every_parameter():
    """Through the logits to what names the codes; through the picture to the codebook and all behind it."""
    network = small_codeformer()
    latent, features = network.encode(PICTURES[:1])
    logits = network.logits(latent)
    picture = network.decode(network.quantize.lookup(logits.argmax(-1)), latent, features, 0.5)
    (picture.square().mean() + logits.square().mean()).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_decoder_in_half_precision_changes_no_code(dtype):
    network = small_codeformer()
    given = []
    network.generator.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    with torch.no_grad():
        full = network(PICTURES)
        for part in network.decoder_parts():
            part.to(dtype)
        half = network(PICTURES)
    assert torch.equal(given[0], given[1]) and given[1].dtype == half.dtype == torch.float32
    assert 0 < relative(half, full) < 0.05
