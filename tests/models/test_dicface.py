"""DicFace's laws on a small network; its outputs against the official network's are in tests/methods/test_dicface_parity.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from helpers.code_networks import SMALL, moving, relative, small_dicface
from helpers.seeded_weights import seed_weights

from fvr.models.dicface.network import DicFace, MultiScaleFuse, dirichlet_mean

CLIP = moving(5, 64) * 2 - 1


@pytest.mark.parametrize("frame_length", [1, 4, 5])
def test_it_is_rebuilt_from_its_state(frame_length):
    network = small_dicface(frame_length)
    again = DicFace.of(network.state_dict())
    assert again.frame_length == frame_length and again.sizes == SMALL and not again.training
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_a_codeformer_is_refused():
    with pytest.raises(KeyError, match="position_emb_temporal"):
        DicFace.of({name: value for name, value in small_dicface().state_dict().items() if "temporal" not in name})


def test_multiscale_fusion_loses_no_pixel():
    """Space to depth in the order (channel, row, column), as a direct rearrangement has it."""
    fuse = seed_weights(MultiScaleFuse(SMALL.vq))
    draw = torch.Generator().manual_seed(0)
    fine, middle, coarse = (
        torch.randn(2, 32, 64, 64, generator=draw),
        torch.randn(2, 64, 32, 32, generator=draw),
        torch.randn(2, 32, 16, 16, generator=draw),
    )
    parts = [
        fuse.s64_conv(rearrange(fine, "b c (h y) (w x) -> b (c y x) h w", y=4, x=4)),
        fuse.s32_conv(rearrange(middle, "b c (h y) (w x) -> b (c y x) h w", y=2, x=2)),
        fuse.s16_conv(coarse),
    ]
    torch.testing.assert_close(fuse(fine, middle, coarse), fuse.out(torch.cat(parts, 1)))


def test_the_kept_frame_alone_is_the_whole_window_s():
    network = small_dicface()
    with torch.no_grad():
        tokens = network.tokens(network.encode(CLIP)[0])[None]
        whole = network.alpha(tokens)
        for keep in (slice(2, 3), slice(0, 1), slice(3, 5)):
            assert relative(network.alpha(tokens, keep), whole[:, keep]) < 1e-5
    assert whole.min() >= 0.01 and whole.shape == (1, 5, 256, 64)


def test_windows_of_a_batch_do_not_meet_and_frames_of_a_window_do():
    network = small_dicface()
    with torch.no_grad():
        tokens = network.tokens(network.encode(CLIP)[0])
        pair = network.alpha(torch.stack([tokens, tokens.flip(0)]))
        assert relative(pair[1:], network.alpha(tokens.flip(0)[None])) < 1e-5
        changed = tokens.clone()
        changed[4] = tokens[0]
        assert relative(network.alpha(changed[None])[0, 0], pair[0, 0]) > 1e-4


def test_layers_alternate_between_places_and_time():
    """Equation 12 and its temporal twin written out with einops over (t, place, channel)."""
    network = small_dicface()
    with torch.no_grad():
        x = network.feat_emb(network.encode(CLIP)[0].flatten(2).mT)
        for space, time in zip(network.ft_layers, network.dir_dist_layers, strict=True):
            x = space(x, network.position_emb)
            x = rearrange(time(rearrange(x, "t n c -> n t c"), network.position_emb_temporal), "n t c -> t n c")
        expected = F.softplus(network.idx_pred_layer(x)) + 0.01
        assert relative(network.alpha(network.tokens(network.encode(CLIP)[0])[None])[0], expected) < 1e-5


def test_the_mean_weighs_codes_convexly():
    alpha = torch.rand(3, 7, 64) + 0.01
    weights = dirichlet_mean(alpha)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 7))
    torch.testing.assert_close(weights, torch.distributions.Dirichlet(alpha).mean)


def test_gradients_reach_every_parameter():
    network = small_dicface()
    network(CLIP[None]).square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_a_decoder_in_half_precision_changes_no_code():
    network = small_dicface()
    given = []
    network.generator.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    with torch.no_grad():
        full = network(CLIP[None])
        for part in network.decoder_parts():
            part.bfloat16()
        half = network(CLIP[None])
    assert torch.equal(given[0], given[1]) and half.dtype == torch.float32
    assert 0 < relative(half, full) < 0.05
