"""RestoreFormer and RestoreFormer++: the published names and shapes, the same numbers as the official class and as spandrel's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.code_networks import relative
from helpers.seeded_weights import seed_weights, seeded_state
from safetensors.torch import load_file

from fvr.models.restoreformer.network import RestoreFormer, RestoreFormerConfig

DATA = Path(__file__).parents[1] / "data"
MANIFESTS = Path(__file__).parents[3] / "shared" / "manifests"
SMALL = RestoreFormerConfig(32, (1, 2, 2), 1, attended=(2,), crossed=(2,), heads=8, code_dim=32, codes=64)
SMALL_PLUS_PLUS = RestoreFormerConfig(32, (1, 2, 2), 1, attended=(2,), crossed=(1, 2), heads=4, code_dim=32, codes=64)
SIZES = {"plain": SMALL, "plus_plus": SMALL_PLUS_PLUS}


@pytest.mark.parametrize(
    ("name", "config"), [("restoreformer", RestoreFormerConfig()), ("restoreformer_pp", RestoreFormerConfig(crossed=(4, 5), heads=4))]
)
def test_names_and_shapes_are_the_published_ones(name, config):
    path = MANIFESTS / f"{name}.json"
    if not path.exists():
        pytest.skip("needs ../shared/manifests")
    published = json.loads(path.read_text())["shapes"]
    with torch.device("meta"):
        network = RestoreFormer(config)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == published
    assert RestoreFormerConfig.of({key: torch.empty(shape, device="meta") for key, shape in published.items()}) == config


@pytest.mark.parametrize("variant", SIZES)
def test_the_same_numbers_as_the_official_class(variant):
    reference = load_file(DATA / "restoreformer_small.safetensors")
    network = seed_weights(RestoreFormer(SIZES[variant]))
    x = reference["frames_u8"].float() / 127.5 - 1
    with torch.inference_mode():
        assert torch.equal(network.encode(x)[0], reference[f"{variant}_codes"].long())
        assert relative(network(x), reference[variant]) < 1e-3


def test_the_same_numbers_as_spandrel_at_full_size():
    theirs = pytest.importorskip("spandrel.architectures.RestoreFormer").RestoreFormer()
    theirs.load_state_dict(seeded_state(theirs.state_dict()))
    ours = RestoreFormer.of(theirs.state_dict()).to(memory_format=torch.channels_last)
    frame = load_file(DATA / "restoreformer_small.safetensors")["frames_u8"][:1].float() / 127.5 - 1
    x = torch.nn.functional.interpolate(frame, (256, 256), mode="bicubic").clamp(-1, 1)  # its side follows the input
    with torch.inference_mode():
        assert relative(ours(x), theirs.eval()(x)[0]) < 1e-3


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES)
def test_the_variant_is_read_from_the_names(config):
    network = seed_weights(RestoreFormer(config))
    again = RestoreFormer.of(network.state_dict())
    assert again.config == config
    assert again.label == ("RestoreFormer++" if config is SMALL_PLUS_PLUS else "RestoreFormer")
    x = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again(x), network.eval()(x))


def test_the_side_follows_the_input_and_frames_do_not_mix():
    network = seed_weights(RestoreFormer(SMALL_PLUS_PLUS))
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        both = network(x)
        assert both.shape == x.shape
        torch.testing.assert_close(both[1:], network(x[1:]), rtol=0, atol=1e-4)
        assert (both[0] - both[1]).abs().mean() > 0.01


def test_a_half_precision_decoder_changes_no_code_and_little_else():
    network = seed_weights(RestoreFormer(SMALL_PLUS_PLUS))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        index, whole = network.encode(x)[0], network(x)
        for part in network.decoder_parts():
            part.to(torch.bfloat16)
        half = network(x)
        assert torch.equal(network.encode(x)[0], index)
    assert half.dtype == torch.float32
    assert 0 < relative(half, whole) < 0.05


def test_gradients_reach_the_encoder_and_the_decoder():
    network = seed_weights(RestoreFormer(SMALL))
    network(torch.rand(1, 3, 32, 32) * 2 - 1).square().mean().backward()
    for name in ("encoder.conv_in.weight", "decoder.up.2.attn.0.q.weight", "decoder.conv_out.weight", "quantize.embedding.weight"):
        assert network.get_parameter(name).grad.abs().sum() > 0, name
