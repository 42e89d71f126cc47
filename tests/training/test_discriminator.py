"""The discriminator: the published names and shapes, the gradient it gives, and that it learns to tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fvr.training.discriminator import Adversary, UNetDiscriminator

MANIFEST = Path(__file__).parents[3] / "shared" / "manifests" / "unet_discriminator_sn.json"
CPU = torch.device("cpu")
NORMALISED = {1: (128, 64, 4), 2: (256, 128, 4), 3: (512, 256, 4), 4: (256, 512, 3), 5: (128, 256, 3), 6: (64, 128, 3)}
NORMALISED |= {7: (64, 64, 3), 8: (64, 64, 3)}


def shapes() -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in UNetDiscriminator().state_dict().items()}


def test_names_and_shapes_are_the_published_ones() -> None:
    expected = {"conv0.weight": [64, 3, 3, 3], "conv0.bias": [64], "conv9.weight": [1, 64, 3, 3], "conv9.bias": [1]}
    for number, (out, width, side) in NORMALISED.items():
        expected |= {f"conv{number}.weight_orig": [out, width, side, side]}
        expected |= {f"conv{number}.weight_u": [out], f"conv{number}.weight_v": [width * side**2]}
    assert shapes() == expected
    assert sum(parameter.numel() for parameter in UNetDiscriminator().parameters()) == 4_376_897
    if not MANIFEST.exists():
        pytest.skip("needs ../shared/manifests")
    assert shapes() == json.loads(MANIFEST.read_text())["shapes"]


def test_inner_convolutions_have_spectral_norm_one() -> None:
    torch.manual_seed(0)
    net = UNetDiscriminator(8)
    with torch.no_grad():
        net.conv5.weight_orig.mul_(50)
        for _ in range(30):
            net(torch.rand(1, 3, 16, 16))  # each pass improves the estimate of the largest singular value
    assert torch.linalg.matrix_norm(net.conv5.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_discriminator_logits_have_a_wide_receptive_field() -> None:
    torch.manual_seed(0)
    net = UNetDiscriminator(8).eval()
    x = torch.rand(1, 3, 32, 32)
    other = x.clone()
    other[..., 20:, 20:] = 0
    changed = (net(x) - net(other)).abs()[0, 0] > 1e-7
    assert changed[20:, 20:].float().mean() > 0.9 and changed[17, 17] and changed.shape == (32, 32)


def test_the_generator_gets_the_gradient_of_its_own_loss() -> None:
    torch.manual_seed(0)
    adversary = Adversary(0.1, 0.0, 1, CPU, width=8)
    adversary.net.eval()  # singular values stand still
    output, real = (torch.rand(2, 3, 16, 16) * 2 - 1 for _ in range(2))
    output.requires_grad_()
    logits = adversary.net((output + 1) / 2)
    direct = 0.1 * F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    (wanted,) = torch.autograd.grad(direct, output)
    adversary.begin()
    term = adversary.term(output, real)
    (got,) = torch.autograd.grad(term, output)
    assert term.item() == pytest.approx(direct.item(), rel=1e-5)
    torch.testing.assert_close(got, wanted)


def test_the_discriminator_learns_and_takes_one_step_per_generator_step() -> None:
    torch.manual_seed(0)
    adversary = Adversary(1.0, 2e-3, 2, CPU, width=8)
    fake, real = torch.full((2, 3, 16, 16), -0.5), torch.full((2, 3, 16, 16), 0.5)
    gaps = []
    for _ in range(25):
        adversary.begin()
        before = adversary.net.conv9.weight.detach().clone()
        adversary.term(fake, real)
        assert torch.equal(adversary.net.conv9.weight, before)
        adversary.term(fake, real)
        assert not torch.equal(adversary.net.conv9.weight, before)
        with torch.no_grad():
            gaps.append((adversary.net((real + 1) / 2).mean() - adversary.net((fake + 1) / 2).mean()).item())
    assert gaps[-1] > 1 > abs(gaps[0]), gaps
