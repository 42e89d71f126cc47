"""CodeFormer at its published size under seeded weights, through the method's session, against the official network's outputs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.code_networks import DATA, published_frames, relative
from helpers.seeded_weights import seed_weights
from safetensors.torch import load_file

from fvr.methods.codeformer import CodeFormerRestorer
from fvr.models.codeformer.network import CodeFormer


@pytest.fixture(scope="module")
def run():
    """One frame through a session (w = 0.5, AdaIN), with what the network computed on the way."""
    reference = load_file(DATA / "codeformer.safetensors")
    network = seed_weights(CodeFormer()).to(memory_format=torch.channels_last)
    seen = {"encoder": [], "idx_pred_layer": [], "generator": []}
    for name, outputs in seen.items():
        getattr(network, name).register_forward_hook(lambda module, args, output, outputs=outputs: outputs.append(output))
    restored = CodeFormerRestorer(network).open().push(published_frames(reference))
    ((latent, features),), (logits,), (output,) = seen.values()
    return SimpleNamespace(network=network, reference=reference, restored=restored, latent=latent, features=features, logits=logits, output=output)


def test_latent_logits_and_codes(run):
    assert relative(run.latent[:, ::4], run.reference["latent"]) < 1e-4
    assert relative(run.logits[0, ::4], run.reference["logits_stride4"]) < 1e-4
    assert torch.equal(run.logits[0].argmax(-1), run.reference["code_index"].long())


def test_picture_half_way_with_adain(run):
    assert relative(run.output[..., ::4, ::4], run.reference["output_w05_adain_stride4"]) < 1e-3
    assert relative(run.output[..., 200:264, 200:264], run.reference["output_w05_adain_crop"]) < 1e-3


@pytest.mark.parametrize(("name", "weight", "match"), [("w1_adain", 1.0, True), ("w0", 0.0, False)])
def test_picture_at_either_end_of_fidelity(run, name, weight, match):
    with torch.inference_mode():
        codes = run.network.quantize.lookup(run.logits.argmax(-1))
        output = run.network.decode(codes, run.latent, run.features, weight, match=match)
    assert relative(output[..., ::4, ::4], run.reference[f"output_{name}_stride4"]) < 1e-3


def test_the_session_hands_out_the_official_picture_in_8_bits(run):
    expected = ((run.reference["output_w05_adain_stride4"].float().clamp(-1, 1) + 1) * 127.5).round()
    error = ((run.restored[..., ::4, ::4] * 255).round() - expected).abs()
    assert (error <= 1).float().mean() >= 0.999
