"""DifFace's diffusion network: published names and shapes, the official numbers, and its laws on small sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from helpers.code_networks import relative
from helpers.seeded_weights import seed_weights
from safetensors.torch import load_file

from fvr.models.difface_unet import DifFaceConfig, DifFaceUNet

DATA = Path(__file__).parents[1] / "data"
SHARED = Path(__file__).parents[3] / "shared"
SMALL = DifFaceConfig(channels=32, multipliers=(1, 2, 2), res_blocks=(1, 2, 1), attended=(1, 2), head=32)
PICTURES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
"""Their sides need not be equal."""


def small(config: DifFaceConfig = SMALL) -> DifFaceUNet:
    return seed_weights(DifFaceUNet(config), "small")  # type: ignore[return-value]


def test_names_shapes_and_sizes_are_the_published_ones():
    path = SHARED / "manifests" / "difface_unet.json"
    if not path.exists():
        pytest.skip("needs ../shared/manifests")
    published = json.loads(path.read_text())["shapes"]
    with torch.device("meta"):
        network = DifFaceUNet()
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == published
    assert DifFaceConfig.of({key: torch.empty(shape, device="meta") for key, shape in published.items()}) == DifFaceConfig()
    assert DifFaceConfig().side == 512


def test_noise_and_variance_are_the_official_ones():
    """One forward pass at full size, at t = 598."""
    reference = load_file(DATA / "difface_unet.safetensors")
    frame = torch.from_numpy(cv2.imdecode(reference["frame_0"].numpy(), cv2.IMREAD_COLOR)[..., ::-1].copy())
    network = seed_weights(DifFaceUNet())
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        output = network(frame.permute(2, 0, 1)[None] / 127.5 - 1, 598, variance=True)
    for part in (slice(0, 3), slice(3, 6)):
        assert relative(output[:, part, ::8, ::8], reference["output_stride8"][:, part]) < 1e-3
        assert relative(output[:, part, 216:248, 216:248], reference["output_crop"][:, part]) < 1e-3


def test_the_published_tiny_network_loads_with_its_heads():
    """DifFace's class as pseudo-targets' reference has it; weights show neither the 32 channels of a head nor the 64 pixels."""
    path = SHARED / "parity" / "pseudo_target_tiny_unet.safetensors"
    if not path.exists():
        pytest.skip("needs ../shared/parity")
    network = DifFaceUNet.of(load_file(path))
    assert network.config == DifFaceConfig(32, (1, 2), (1, 1), attended=(), head=32)
    assert network.config.side == 64


@pytest.mark.parametrize("config", [SMALL, DifFaceConfig(64, (1, 1), (2, 1), (0,), head=32, inputs=6, outputs=3)], ids=["small", "conditional"])
def test_sizes_are_read_from_the_weights(config):
    network = small(config)
    again = DifFaceUNet.of(network.state_dict())
    assert again.config == config and not again.training
    x = torch.rand(1, config.inputs, 16, 16)
    with torch.inference_mode():
        assert torch.equal(again(x, 5), network(x, 5))


def test_heads_can_be_named_and_matter():
    state = small().state_dict()
    assert DifFaceConfig.of(state).head == 32
    one = DifFaceUNet.of(state, replace(DifFaceConfig.of(state), head=64))
    with torch.inference_mode():
        assert relative(one(PICTURES, 3), small()(PICTURES, 3)) > 1e-3


def test_skipping_the_variance_changes_no_noise():
    network = small()
    with torch.inference_mode():
        whole, noise = network(PICTURES, 400, variance=True), network(PICTURES, 400)
    assert whole.shape[1] == 6 and noise.shape == PICTURES.shape
    torch.testing.assert_close(noise, whole[:, :3], rtol=0, atol=1e-6)


def test_frames_do_not_meet_and_each_has_its_time():
    network = small()
    with torch.inference_mode():
        both = network(PICTURES, torch.tensor([10, 700]))
        apart = torch.cat([network(PICTURES[:1], 10), network(PICTURES[1:], 700)])
        torch.testing.assert_close(both, apart, rtol=0, atol=1e-5)
        assert relative(network(PICTURES, 10)[1:], apart[1:]) > 1e-2


def test_memory_format_does_not_matter():
    network = small()
    with torch.inference_mode():
        torch.testing.assert_close(network(PICTURES.contiguous(memory_format=torch.channels_last), 9), network(PICTURES, 9), rtol=0, atol=1e-5)


def test_half_precision_stays_near_and_gives_float32():
    network = small()
    with torch.inference_mode():
        full = network(PICTURES, 300)
        half = network.to(torch.bfloat16)(PICTURES, 300)
    assert half.dtype == torch.float32
    assert 0 < relative(half, full) < 0.05


def test_gradients_reach_every_parameter_and_the_input():
    network = small()
    x = PICTURES.clone().requires_grad_()
    network(x, 50, variance=True).square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []
    assert x.grad is not None and x.grad.abs().min() > 0


def test_the_estimate_of_memory_covers_what_a_pass_holds():
    """Bytes of all maps that live at once, counted by hooks: those on the way down, and the largest block's own."""
    network = small()
    held = []
    for stage in network.input_blocks:
        stage.register_forward_hook(lambda module, args, output: held.append(output.nbytes))
    with torch.inference_mode():
        network(PICTURES, 1)
    estimate = network.working_bytes(2, 32, 48)
    assert sum(held) < estimate < 20 * sum(held)


@pytest.mark.parametrize(("shape", "match"), [((1, 3, 30, 32), "multiples of 4, got 30 x 32"), ((1, 6, 32, 32), "takes 3 channels, got 6")])
def test_wrong_frames_are_refused(shape, match):
    with pytest.raises(ValueError, match=match):
        small()(torch.zeros(shape), 0)
