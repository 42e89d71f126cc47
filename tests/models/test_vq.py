"""Laws of what CodeFormer, KEEP and DicFace share."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from helpers.code_networks import SMALL
from helpers.seeded_weights import seed_weights

from fvr.models.code_prediction import CodeConfig, CodeLayer, CodeNetwork, FeatureTransform, adain
from fvr.models.codeformer.network import CodeFormer
from fvr.models.dicface.network import DicFace
from fvr.models.vq import Attention, Codebook, Downsample, Encoder, Upsample, VQAutoEncoder, VQConfig, as_map

CONFIGS = [
    SMALL,
    CodeConfig(VQConfig(64, 32, (1, 2), 2, frozenset({32}), 64, 32), width=64, heads=1, layers=1, fused=()),
    CodeConfig(VQConfig(128, 32, (1, 1, 2, 4), 1, frozenset({16, 32}), 32, 16), width=64, heads=1, layers=2, fused=(16, 128)),
    CodeConfig(VQConfig(64, 64, (2, 1, 3), 3, frozenset(), 32, 48), width=192, heads=3, layers=2, fused=(64,)),
]
PUBLISHED = {
    "codeformer": (CodeFormer, CodeConfig(), 515, "afe100e63782fbdc"),
    "codeformer_inpainting": (CodeFormer, CodeConfig(VQConfig(codes=512), fused=(32, 64, 128)), 497, "8a23f6e6ff325435"),
    "vqgan_code1024": (VQAutoEncoder, VQConfig(), 329, "4ab10eac7dd7d54c"),
    "dicface": (DicFace, CodeConfig(), 632, "93f68b00e48d0258"),
}
"""Network, its sizes, number of tensors, and head of the sha256 of all names and shapes as the published checkpoints have them."""


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_the_sizes_are_read_back_from_a_state_dict(config):
    with torch.device("meta"):
        state = CodeNetwork(config).state_dict()
    assert CodeConfig.of(state) == config
    bare = {name: value for name, value in state.items() if name.startswith(("encoder.", "quantize."))}
    at_sixteen = config.vq.latent_side == 16
    assert (VQConfig.of(bare) == config.vq) == at_sixteen, "without a position table the code map is taken to be 16 x 16"


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_the_published_checkpoints(name):
    kind, config, count, digest = PUBLISHED[name]
    with torch.device("meta"):
        state = kind(config).state_dict()
    lines = "\n".join(f"{key} {tuple(value.shape)}" for key, value in sorted(state.items()))
    assert (len(state), hashlib.sha256(lines.encode()).hexdigest()[:16]) == (count, digest)
    assert (CodeConfig.of(state) if "position_emb" in state else VQConfig.of(state)) == config


def test_a_network_is_rebuilt_from_its_state_and_a_foreign_state_is_refused():
    network = seed_weights(CodeFormer(SMALL))
    again = CodeFormer.of(network.state_dict())
    assert not again.training and all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    with pytest.raises(KeyError):
        CodeFormer.of({"conv_first.weight": torch.zeros(8, 3, 3, 3)})
    with pytest.raises(RuntimeError, match="multiscale"):
        CodeFormer.of(DicFace(SMALL).state_dict())


def test_folded_upsampling_is_repeating_and_then_convolving():
    up = seed_weights(Upsample(32)).double()
    x = torch.randn(2, 32, 70, 66, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    repeated = up.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    with torch.no_grad():
        torch.testing.assert_close(up(x), repeated, rtol=0, atol=1e-12)
    torch.testing.assert_close(F.conv_transpose2d(x, up.folded(), up.conv.bias, stride=2, padding=1), repeated, rtol=0, atol=1e-12)


def test_downsampling_looks_right_and_down():
    """An impulse at the origin of a stride-2 convolution meets only the kernel's first tap; the last row meets no padding from above."""
    down = seed_weights(Downsample(32))
    x = torch.zeros(1, 32, 8, 8)
    x[0, 3, 0, 0] = 1
    y = down(x) - down.conv.bias.view(-1, 1, 1)
    torch.testing.assert_close(y[0, :, 0, 0], down.conv.weight[:, 3, 0, 0])
    y[0, :, 0, 0] = 0
    torch.testing.assert_close(y, torch.zeros_like(y))


def test_attention_averages_a_constant_map():
    """Equal places attend equally, so attention adds the projected value everywhere."""
    block = seed_weights(Attention(32)).double()
    x = torch.randn(1, 32, 1, 1, generator=torch.Generator().manual_seed(0)).double().expand(1, 32, 5, 5).contiguous()
    torch.testing.assert_close(block(x), x + block.proj_out(block.v(block.norm(x))))


def test_the_encoder_hands_out_one_feature_per_wanted_side():
    config = SMALL.vq
    encoder = seed_weights(Encoder(config))
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    latent, features = encoder(x, (64, 16))
    assert {side: feature.shape[1:] for side, feature in features.items()} == {64: (32, 64, 64), 16: (64, 16, 16)}
    level = x
    for block in encoder.blocks[:2]:  # first convolution and the one residual block of the first level
        level = block(level)
    assert torch.equal(features[64], level)
    assert torch.equal(latent, encoder(x)[0]) and latent.shape == (1, 32, 16, 16)


def test_the_codebook_finds_looks_up_and_mixes():
    book = seed_weights(Codebook(SMALL.vq))
    index = torch.randint(64, (2, 256), generator=torch.Generator().manual_seed(0))
    codes = book.lookup(index)
    assert torch.equal(book.nearest(codes + 0.01), index)
    torch.testing.assert_close(book.mix(F.one_hot(index, 64).float()), codes)
    torch.testing.assert_close(codes[1, :, 2, 3], book.embedding.weight[index[1, 2 * 16 + 3]])


def test_maps_are_filled_row_by_row():
    assert as_map(torch.arange(4.0)[None, :, None]).tolist() == [[[[0.0, 1.0], [2.0, 3.0]]]]


@pytest.mark.parametrize("keep", [slice(2, 3), slice(0, 2), slice(None)])
def test_a_transformer_layer_is_multi_head_attention_and_computes_only_what_is_kept(keep):
    """x + MHA(n + p, n + p, n), n = norm(x); then + MLP(norm(.)): against torch's own module."""
    layer = seed_weights(CodeLayer(128, 2)).eval()
    draw = torch.Generator().manual_seed(0)
    x, position = torch.randn(3, 5, 128, generator=draw), torch.randn(5, 128, generator=draw)
    normal = layer.norm1(x)
    query, value = (normal + position).transpose(0, 1), normal.transpose(0, 1)
    expected = x + layer.self_attn(query, query, value)[0].transpose(0, 1)
    expected = expected + layer.linear2(F.gelu(layer.linear1(layer.norm2(expected))))
    torch.testing.assert_close(layer(x, position, keep), expected[:, keep], rtol=1e-5, atol=1e-5)


def test_feature_transform_at_weight_zero_is_nothing_and_grows_linearly():
    transform = seed_weights(FeatureTransform(32))
    draw = torch.Generator().manual_seed(0)
    encoded, decoded = torch.randn(2, 1, 32, 8, 8, generator=draw)
    assert torch.equal(transform(encoded, decoded, 0.0), decoded)
    half, full = transform(encoded, decoded, 0.5) - decoded, transform(encoded, decoded, 1.0) - decoded
    torch.testing.assert_close(2 * half, full, rtol=1e-4, atol=1e-5)


def test_adain_gives_each_channel_the_moments_of_the_style():
    draw = torch.Generator().manual_seed(0)
    content, style = torch.randn(2, 4, 9, 9, generator=draw), 3 * torch.randn(2, 4, 9, 9, generator=draw) + 1
    matched = adain(content, style)
    torch.testing.assert_close(matched.mean((2, 3)), style.mean((2, 3)))
    torch.testing.assert_close(matched.std((2, 3)), style.std((2, 3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(adain(style, style), style, rtol=1e-4, atol=1e-4)
