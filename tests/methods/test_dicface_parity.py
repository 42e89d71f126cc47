"""DicFace at its published size under seeded weights, through the method's session, against the official network's outputs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.code_networks import DATA, published_frames, relative
from helpers.seeded_weights import seed_weights
from safetensors.torch import load_file

from fvr.methods.dicface import DicFaceRestorer, DicFaceSession
from fvr.models.dicface.network import DicFace


class OnlyTheThird(DicFaceSession):
    """A session that decodes the third frame alone: the reference window's centre; the others would cost seconds for nothing."""

    def _decode(self, window, frame):
        return super()._decode(window, frame) if frame.index == 2 else torch.zeros(1, 3, 512, 512)


@pytest.fixture(scope="module")
def run():
    """Five frames through a session, with what the network computed on the way."""
    reference = load_file(DATA / "dicface.safetensors")
    network = seed_weights(DicFace()).to(memory_format=torch.channels_last)
    latents, outputs, alphas = [], [], []
    network.multiscale.register_forward_hook(lambda module, args, output: latents.append(output))
    network.generator.register_forward_hook(lambda module, args, output: outputs.append(output))
    alpha = network.alpha
    network.alpha = lambda *args: alphas.append(alpha(*args)) or alphas[-1]
    session = OnlyTheThird(DicFaceRestorer(network), None, 0, lambda: None)
    restored = session.push(published_frames(reference))
    return SimpleNamespace(reference=reference, latent=torch.cat(latents), alpha=alphas, output=outputs, restored=restored[2:3])


def test_latents_of_the_window(run):
    assert relative(run.latent[:, ::16], run.reference["latent"]) < 1e-4


def test_alpha_of_the_centre(run):
    """The official network returns its parameters plus 1e-6, for its loss."""
    assert len(run.alpha) == 1 and run.alpha[0].shape == (1, 1, 256, 1024)
    assert relative(run.alpha[0][0, 0, ::16] + 1e-6, run.reference["alpha_centre_stride16"]) < 1e-4


def test_picture_under_the_dirichlet_mean(run):
    assert len(run.output) == 1
    assert relative(run.output[0][..., ::4, ::4], run.reference["output_stride4"]) < 1e-3
    assert relative(run.output[0][..., 200:264, 200:264], run.reference["output_crop"]) < 1e-3


def test_the_session_hands_out_the_official_picture_in_8_bits(run):
    expected = ((run.reference["output_stride4"].float().clamp(-1, 1) + 1) * 127.5).round()
    error = ((run.restored[..., ::4, ::4] * 255).round() - expected).abs()
    assert (error <= 1).float().mean() >= 0.999
