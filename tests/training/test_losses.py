"""Losses against their definitions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Dirichlet, kl_divergence

from fvr.models.vq import Codebook, Encoder, VQConfig
from fvr.training.losses import (
    EncoderFeatures,
    PatchDiscriminator,
    adaptive_weight,
    code_losses,
    dirichlet_divergence,
    hinge_loss,
    quantised,
)

SIZES = VQConfig(side=32, channels=32, multipliers=(1, 2), res_blocks=1, attention=frozenset({16}), code_dim=8, codes=16)


def codebook() -> Codebook:
    torch.manual_seed(0)
    return Codebook(SIZES)


def test_nearest_codes_pass_gradients_straight_through() -> None:
    book, latent = codebook(), torch.randn(2, 8, 4, 4, requires_grad=True)
    codes, loss, index = quantised(latent, book, 0.25)
    assert torch.allclose(codes, book.lookup(index), atol=1e-6)
    weight = torch.randn_like(codes)
    (codes * weight).sum().backward(retain_graph=True)
    assert torch.equal(latent.grad, weight) and book.embedding.weight.grad is None
    latent.grad = None
    loss.backward()
    distance = latent.detach() - book.lookup(index).detach()
    assert torch.allclose(loss, 1.25 * distance.square().mean())
    assert torch.allclose(latent.grad, 0.25 * 2 * distance / distance.numel(), atol=1e-7)  # the encoder feels the commitment only
    used = index.unique()
    assert book.embedding.weight.grad[used].abs().sum() > 0


def test_code_losses_are_zero_only_at_the_right_codes() -> None:
    book = codebook()
    index = torch.randint(16, (2, 16))
    logits = 50.0 * F.one_hot(index, 16)
    latent = book.lookup(index).detach().requires_grad_()
    entropy, distance = code_losses(logits, latent, index, book)
    assert entropy < 1e-6 and distance == 0
    wrong = code_losses(logits, latent + 1, (index + 1) % 16, book)
    assert wrong[0] > 10 and wrong[1] > 0


def test_dirichlet_divergence_is_torchs() -> None:
    torch.manual_seed(1)
    alpha = torch.rand(3, 5, 16) * 3 + 0.05
    for prior in (0.1, 1.0, 4.0):
        ours, theirs = dirichlet_divergence(alpha, prior), kl_divergence(Dirichlet(alpha), Dirichlet(torch.full((16,), prior))).mean()
        assert torch.allclose(ours, theirs, rtol=1e-4)
    assert dirichlet_divergence(torch.full((2, 16), 0.7), 0.7).abs() < 1e-4


def test_encoder_features_separate_images_and_have_gradients_of_the_output_only() -> None:
    torch.manual_seed(2)
    distance = EncoderFeatures(Encoder(SIZES), (32, 16))
    output, target = torch.randn(1, 3, 32, 32, requires_grad=True), torch.randn(1, 3, 32, 32)
    assert distance(target, target) == 0
    value = distance(output, target)
    value.backward()
    assert value > 0 and output.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_the_adversary_is_trained_and_its_adaptive_weight_balances_gradients() -> None:
    torch.manual_seed(3)
    adversary = PatchDiscriminator(8, 2)
    real, fake = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32) * 0.2
    optimiser = torch.optim.Adam(adversary.parameters(), 1e-3)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        losses.append(hinge_loss(adversary(real), adversary(fake)))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]
    last = nn.Parameter(torch.ones(3))
    weight = adaptive_weight((last * 2).sum(), (last * 8).sum(), last)
    assert torch.allclose(weight, torch.tensor(0.25), atol=1e-3)
    assert adaptive_weight((last * 8).sum(), (last * 2).sum(), last) == 1
