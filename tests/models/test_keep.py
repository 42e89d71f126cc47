"""KEEP's network: published names, its configuration read back from weights, the gain network's memory, precision and gradients."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from helpers.small_keep import CONFIG, clip, small_keep
from torch.testing import assert_close

from fvr.models.keep.network import KEEP, KeepConfig, rename

ASIAN = KeepConfig(fused=(32, 64, 128, 256))
V1_NAMES = {"cross_fuse.": "cfa.", "fuse_convs_dict.": "cft."}
PUBLISHED = {
    "KEEP": (KeepConfig(), {}, "c2a36e38ea43653cbe9a66baa65eccaef0dbe5cd988e134ac2e5a731a19c2edf"),
    "KEEP_v1": (KeepConfig(), V1_NAMES, "16e27466e7eeb91092c9b607681ecbea8b00a5dae3a9ad24430080679e8ce2e1"),
    "KEEP_Asian": (ASIAN, V1_NAMES, "fb6bf528b7de31fd0cb219b5ddde1791590a6573191888eadbb5353834054dc6"),
}
"""Release: its sizes, how it calls some parameters, and the digest of all its names and shapes."""
MANIFESTS = Path(__file__).resolve().parents[3] / "shared" / "manifests"


def on_meta(build):
    with torch.device("meta"):
        return build()


def named(state, names):
    """`state` under a release's names."""
    old_new = [(key, next((new + key.removeprefix(old) for old, new in names.items() if key.startswith(old)), key)) for key in state]
    return {new: state[old] for old, new in old_new}


def digest(shapes):
    return hashlib.sha256("\n".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())).encode()).hexdigest()


@pytest.mark.parametrize("release", PUBLISHED)
def test_published_checkpoints_load_strictly(release):
    """Empty tensors of exactly the published names and shapes are recognised and loaded, none missing, none left over."""
    config, names, published = PUBLISHED[release]
    state = named(on_meta(lambda: KEEP(config)).state_dict(), names)
    assert digest({name: value.shape for name, value in state.items()}) == published
    network = on_meta(lambda: KEEP.of(state))
    assert network.sizes == config
    assert not network.training


@pytest.mark.skipif(not MANIFESTS.is_dir(), reason="the manifests of the published checkpoints are not part of the repository")
@pytest.mark.parametrize("release", PUBLISHED)
def test_the_digests_are_those_of_the_manifests(release):
    shapes = json.loads((MANIFESTS / f"{release}.json").read_text())["shapes"]
    assert digest(shapes) == PUBLISHED[release][2]
    on_meta(lambda: KEEP.of({name: torch.empty(shape) for name, shape in shapes.items()}))


def test_weights_survive_the_names_of_another_release():
    network = small_keep()
    again = KEEP.of(named(network.state_dict(), V1_NAMES))
    assert again.sizes == CONFIG
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_renaming_changes_no_other_name():
    state = {"cfa.16.x": torch.zeros(1), "cft.32.y": torch.zeros(1), "encoder.cfa.z": torch.zeros(1), "cross_fuse.16.x2": torch.zeros(1)}
    assert list(rename(state)) == ["cross_fuse.16.x", "fuse_convs_dict.32.y", "encoder.cfa.z", "cross_fuse.16.x2"]


def test_another_network_is_refused():
    with pytest.raises(KeyError):
        KEEP.of({"conv.weight": torch.zeros(3, 3)})


@pytest.fixture(scope="module")
def network():
    return small_keep()


@pytest.fixture(scope="module")
def latents():
    return torch.randn(2, 6, 32, 16, 16, generator=torch.Generator().manual_seed(5))


def test_gains_lie_between_0_and_1_and_batches_do_not_matter(network, latents):
    gains, _ = network.kalman_filter(latents)
    assert gains.min() > 0 and gains.max() < 1
    assert gains.std() > 0.01
    for index in range(2):
        assert_close(network.kalman_filter(latents[index : index + 1])[0][0], gains[index], atol=1e-5, rtol=1e-4)


def test_frames_of_a_block_see_each_other_both_ways(network, latents):
    gains, _ = network.kalman_filter(latents[:1])
    for changed in (0, 5):
        other = latents[:1].clone()
        other[:, changed] = other[:, changed].flip(-1)
        moved = (network.kalman_filter(other)[0] - gains).abs().amax((0, 2, 3, 4))
        assert moved.min() > 1e-5, changed


def test_memory_makes_blocks_one_clip(latents):
    """Without attention across the block, blocks that carry their memory have the gains of the whole clip; without memory they have not."""
    network = small_keep()
    for layer in network.kalman_filter.uncertainty_estimator:
        for parameter in layer.attn_temp.to_out.parameters():
            torch.nn.init.zeros_(parameter)
    whole, _ = network.kalman_filter(latents)
    carried, memory = [], None
    for start in (0, 1, 4):
        block = latents[:, start : {0: 1, 1: 4, 4: 6}[start]]
        gains, memory = network.kalman_filter(block, memory)
        carried.append(gains)
    assert_close(torch.cat(carried, 1), whole, atol=1e-5, rtol=1e-4)
    afresh = network.kalman_filter(latents[:, 4:])[0]
    assert (afresh - whole[:, 4:]).abs().amax((0, 2, 3, 4)).min() > 1e-4


def test_the_gain_is_the_weight_of_the_prediction():
    seen, predicted = torch.tensor([2.0]), torch.tensor([10.0])
    assert KEEP.update(seen, predicted, torch.tensor([0.0])) == seen
    assert KEEP.update(seen, predicted, torch.tensor([1.0])) == predicted
    assert KEEP.update(seen, predicted, torch.tensor([0.25])) == 4


def test_the_first_frame_stands_alone_and_later_ones_look_back(network):
    with torch.inference_mode():
        latent, features = network.encode(clip(2) * 2 - 1)
        codes = network.quantize.lookup(network.predict_codes(latent))
        first, cross = network.decode(codes[:1], {side: x[:1] for side, x in features.items()})
        second = {side: x[1:] for side, x in features.items()}
        alone, _ = network.decode(codes[1:], second)
        after, carried = network.decode(codes[1:], second, cross)
        again, _ = network.decode(codes[1:], second, carried)
    assert sorted(cross) == [16, 32]
    assert (after - alone).abs().max() > 1e-2
    assert (after - again).abs().max() > 1e-2
    assert first.isfinite().all()


def test_a_half_precision_decoder_keeps_the_codes(network):
    half = small_keep()
    for part in half.decoder_parts():
        part.to(torch.bfloat16)
    assert {p.dtype for p in half.cross_fuse.parameters()} == {torch.bfloat16}
    x = clip(2) * 2 - 1
    with torch.inference_mode():
        images = []
        for net in (network, half):
            latent, features = net.encode(x)
            index = net.predict_codes(latent)
            previous = None
            for frame in range(2):
                part = {side: y[frame : frame + 1] for side, y in features.items()}
                image, previous = net.decode(net.quantize.lookup(index[frame : frame + 1]), part, previous)
            images.append((index, image))
    assert torch.equal(images[0][0], images[1][0])
    difference = (images[0][1] - images[1][1]).norm() / images[0][1].norm()
    assert images[1][1].dtype == torch.float32 and 0 < difference < 0.05


def test_gradients_reach_every_parameter(network):
    """Two blocks of two frames, as training would call the pieces; only the flow, which is not trained, is left out."""
    network.zero_grad()
    latents, features = network.encode(clip(3) * 2 - 1)
    first, memory = network.kalman_filter(latents[None, :2])
    second, _ = network.kalman_filter(latents[None, 2:], memory)
    gains = torch.cat([first, second], 1)[0]
    loss, image, cross = 0.0, None, None
    for frame in range(3):
        latent = latents[frame : frame + 1]
        if image is not None:
            latent = network.update(latent, network.encode_clean(image), gains[frame : frame + 1])
        logits = network.logits(latent)
        codes = network.quantize.lookup(logits.argmax(-1))
        image, cross = network.decode(codes, {side: x[frame : frame + 1] for side, x in features.items()}, cross)
        loss = loss + image.square().mean() + logits.square().mean()
    loss.backward()
    parameters = {name: weight for name, weight in network.named_parameters() if not name.startswith("flownet.")}
    assert [name for name, weight in parameters.items() if weight.grad is None or not weight.grad.abs().sum() > 0] == []
    network.zero_grad()
