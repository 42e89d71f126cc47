"""One loader for every restorer: recognised by what is inside, whatever the name and the wrapping; refused in one sentence otherwise."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from helpers.seeded_weights import seed_weights
from safetensors.torch import save_file

from fvr.models.architectures import architectures, beginnings, foreign, recognise
from fvr.models.checkpoints.load import build_network, load_network, peek
from fvr.models.code_prediction import CodeConfig
from fvr.models.codeformer.network import CodeFormer
from fvr.models.dicface.network import DicFace
from fvr.models.keep.network import KEEP, RENAMED, KeepConfig
from fvr.models.restoreformer.network import RestoreFormer, RestoreFormerConfig
from fvr.models.vq import VQAutoEncoder, VQConfig

MANIFESTS = Path(__file__).parents[3] / "shared" / "manifests"
SMALL = VQConfig(side=64, channels=32, multipliers=(1, 2, 2), res_blocks=1, attention=frozenset({16}), code_dim=32, codes=64)
CODES = CodeConfig(SMALL, width=64, heads=1, layers=1, fused=(32, 64))
KEPT = KeepConfig(SMALL, 64, 1, 1, (32,), cross_fused=(16,), cross_width=8, gain_layers=1, gain_heads=1, gain_width=16)


def small_networks():
    return {
        "codeformer": CodeFormer(CODES),
        "keep": KEEP(KEPT),
        "dicface": DicFace(CODES, frame_length=3),
        "restoreformer": RestoreFormer(RestoreFormerConfig(32, (1, 2), 1, attended=(1,), crossed=(0, 1), heads=4, code_dim=32, codes=32)),
    }


KINDS = ["codeformer", "keep", "dicface", "restoreformer"]


@pytest.fixture(scope="module")
def networks():
    return {kind: seed_weights(network) for kind, network in small_networks().items()}


def later_release(state):
    """KEEP's names since v1.0.0; other networks keep theirs."""
    if not any(key.startswith("kalman_filter.") for key in state):
        return state
    for new, old in RENAMED.items():
        state = {new + key.removeprefix(old) if key.startswith(old) else key: value for key, value in state.items()}
    return state


@pytest.mark.parametrize("file", ["flat.pth", "wrapped.ckpt", "legacy.pth", "plain.safetensors", "parallel.safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_network_comes_back_from_each_wrapping(kind, file, networks, tmp_path):
    network, path = networks[kind], tmp_path / file
    state = network.state_dict()
    if path.suffix == ".safetensors":
        save_file({("module." if "parallel" in file else "") + key: value for key, value in state.items()}, path)
    else:
        content = {"params": {}, "params_ema": later_release(state)} if "wrapped" in file else state
        torch.save(content, path, _use_new_zipfile_serialization="legacy" not in file)
    loaded = load_network(path)
    assert loaded.kind == kind and type(loaded.network) is type(network)
    own = loaded.network.state_dict()
    assert own.keys() == state.keys() and all(torch.equal(own[key], value) for key, value in state.items())
    assert not loaded.network.training and not any(p.requires_grad for p in loaded.network.parameters())
    assert loaded.path == path and loaded.checkpoint is None
    assert peek(path) == kind


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_in_inference_mode_a_network_can_still_be_trained(kind, networks, tmp_path):
    torch.save(networks[kind].state_dict(), tmp_path / "x.pth")
    with torch.inference_mode():
        network = load_network(tmp_path / "x.pth").network
    assert not any(value.is_inference() for value in (*network.parameters(), *network.buffers()))
    network.requires_grad_(True)
    network.quantize.embedding.weight.square().sum().backward()
    assert network.quantize.embedding.weight.grad.abs().sum() > 0


def test_the_decoder_alone_takes_the_dtype_asked_for(networks, tmp_path):
    path = tmp_path / "x.pth"
    torch.save(networks["codeformer"].state_dict(), path)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole, half = (load_network(path, dtype).network for dtype in (torch.float32, torch.bfloat16))
    assert {p.dtype for p in half.generator.parameters()} == {p.dtype for p in half.fuse_convs_dict.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.encoder.parameters()} == {p.dtype for p in half.ft_layers.parameters()} == {torch.float32}
    with torch.inference_mode():
        assert torch.equal(half.logits(half.encode(x)[0]), whole.logits(whole.encode(x)[0]))
        difference = (half(x) - whole(x)).abs().max() / whole(x).abs().max()
    assert 0 < difference < 0.05


def test_half_precision_files_give_float32_networks(networks, tmp_path):
    save_file({key: value.half() for key, value in networks["codeformer"].state_dict().items()}, tmp_path / "x.safetensors")
    network = load_network(tmp_path / "x.safetensors").network
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    torch.testing.assert_close(network.position_emb, networks["codeformer"].position_emb.detach(), rtol=1e-3, atol=1e-3)


def test_convolutions_are_laid_out_for_speed(networks, tmp_path):
    torch.save(networks["codeformer"].state_dict(), tmp_path / "x.pth")
    network = load_network(tmp_path / "x.pth").network
    assert network.generator.blocks[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("file", "kind", "entry"),
    [
        ("codeformer.pth", "codeformer", "codeformer"),
        ("CodeFormer_Inpainting.safetensors", "codeformer", "codeformer-inpainting"),
        ("KEEP-b76feb75.pth", "keep", "keep"),
        ("color_100k.pth", "dicface", "dicface-color"),
        ("RestoreFormer++.ckpt", "restoreformer", "restoreformer-pp"),
        ("mine.pth", "codeformer", None),
        ("codeformer.pth", "dicface", None),
    ],
)
def test_the_licence_comes_with_the_name_unless_something_else_is_inside(file, kind, entry, networks, tmp_path):
    path = tmp_path / file
    save_file(networks[kind].state_dict(), path) if path.suffix == ".safetensors" else torch.save(networks[kind].state_dict(), path)
    loaded = load_network(path)
    assert (loaded.checkpoint.name if loaded.checkpoint else None) == entry


def test_detail_says_what_was_found(networks, tmp_path):
    details = {
        "codeformer": "CodeFormer, 64 x 64, 64 codes, features fused at 32, 64",
        "keep": "KEEP, 64 x 64, 64 codes, features fused at 32",
        "dicface": "DicFace, 64 x 64, 64 codes, features fused at 32, 64",
        "restoreformer": "RestoreFormer++, 512 x 512, 32 codes, 4 heads",
    }
    for kind, detail in details.items():
        torch.save(later_release(networks[kind].state_dict()), tmp_path / f"{kind}.pth")
        assert load_network(tmp_path / f"{kind}.pth").detail == detail


def dropped(state):
    return {
        key: value for key, value in state.items() if not key.startswith("encoder.blocks.1.norm")
    }, "4 tensors are missing (encoder.blocks.1.norm1"


def added(state):
    return {**state, "extra.weight": torch.ones(2)}, "1 tensor is unexpected (extra.weight)"


def misshapen(state):
    return {**state, "feat_emb.bias": torch.ones(7)}, "1 tensor is of another shape (feat_emb.bias: [7] where [64] is needed)"


def renamed(state):
    return {("encoder.blocks.1.norm9.weight" if key == "encoder.blocks.1.norm1.weight" else key): value for key, value in state.items()}, (
        "1 tensor is missing (encoder.blocks.1.norm1.weight) and 1 tensor is unexpected (encoder.blocks.1.norm9.weight)"
    )


def beheaded(state):
    return {
        key: value for key, value in state.items() if key != "encoder.blocks.1.conv1.weight"
    }, "1 tensor is missing (encoder.blocks.1.conv1.weight)"


def hollow(state):
    return {**state, "feat_emb.weight": torch.ones(())}, "the shapes of its tensors do not fit together"


@pytest.mark.parametrize("damage", [dropped, added, misshapen, renamed, beheaded, hollow])
@pytest.mark.parametrize("kind", ["codeformer", "keep", "dicface"])
def test_a_damaged_network_is_told_with_its_first_fault(kind, damage, networks, tmp_path):
    state, words = damage(networks[kind].state_dict())
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError) as caught:
        load_network(tmp_path / "x.pth")
    message = str(caught.value)
    assert message.startswith("x.pth is a ") and words in message and "\n" not in message and len(message) < 320


def test_other_checkpoints_are_named_with_what_they_hold(tmp_path):
    stable = {f"model.diffusion_model.input_blocks.{n}.0.weight": torch.ones(1) for n in range(3)}
    stable |= {"first_stage_model.encoder.conv_in.weight": torch.ones(1)}
    torch.save({"state_dict": stable}, tmp_path / "sd.ckpt")
    torch.save(VQAutoEncoder(SMALL).state_dict(), tmp_path / "vqgan.pth")
    torch.save({"mystery.weight": torch.ones(1), "mystery.bias": torch.ones(1)}, tmp_path / "odd.pth")
    for name, words in {
        "sd.ckpt": "4 tensors whose names start with model.diffusion_model, first_stage_model.encoder: a Stable Diffusion checkpoint",
        "vqgan.pth": "CodeFormer's codebook autoencoder alone",
        "odd.pth": "2 tensors whose names start with mystery; it is not a face restorer",
    }.items():
        assert peek(tmp_path / name) is None
        with pytest.raises(ValueError, match="choose a CodeFormer, KEEP, DicFace") as caught:
            load_network(tmp_path / name)
        assert words in str(caught.value) and "\n" not in str(caught.value)


def published(name):
    path = MANIFESTS / f"{name}.json"
    if not path.exists():
        pytest.skip("needs ../shared/manifests")
    return {key: torch.empty(shape, device="meta") for key, shape in json.loads(path.read_text())["shapes"].items()}


@pytest.mark.parametrize(
    ("manifest", "kind", "detail"),
    [
        ("CodeFormer", "codeformer", "CodeFormer, 512 x 512, 1024 codes, features fused at 32, 64, 128, 256"),
        ("CodeFormer_inpainting", "codeformer", "CodeFormer, 512 x 512, 512 codes, features fused at 32, 64, 128"),
        ("KEEP", "keep", "KEEP, 512 x 512, 1024 codes, features fused at 16, 32, 64"),
        ("KEEP_v1", "keep", "KEEP, 512 x 512, 1024 codes, features fused at 16, 32, 64"),
        ("KEEP_Asian", "keep", "KEEP, 512 x 512, 1024 codes, features fused at 32, 64, 128, 256"),
        ("DicFace", "dicface", "DicFace, 512 x 512, 1024 codes, features fused at 32, 64, 128, 256"),
        ("restoreformer", "restoreformer", "RestoreFormer, 512 x 512, 1024 codes, 8 heads"),
        ("restoreformer_pp", "restoreformer", "RestoreFormer++, 512 x 512, 1024 codes, 4 heads"),
    ],
)
def test_published_checkpoints_are_recognised_and_fit(manifest, kind, detail):
    with torch.device("meta"):
        found, network, line = build_network(published(manifest), manifest)
    assert (found, line) == (kind, detail) and isinstance(network, torch.nn.Module)
    assert [known.kind for known in architectures() if known.matches(set(published(manifest)))] == [kind]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("CodeFormer_vqgan", "CodeFormer's codebook autoencoder"),
        ("flair_bicubic_unet_full", "a FLAIR diffusion network"),
        ("flair_blur_unet_full", "a FLAIR diffusion network"),
        ("difface_unet", "such as DifFace's"),
        ("spynet", "SPyNet"),
        ("unet_discriminator_sn", "a discriminator"),
    ],
)
def test_published_checkpoints_of_other_purposes_are_refused_by_name(manifest, words):
    state = published(manifest)
    assert recognise(state) is None and words in foreign(state)
    with pytest.raises(ValueError, match=f"{manifest} holds {len(state)} tensors whose names start with .*it is not a face restorer"):
        build_network(state, manifest)


def test_a_network_that_memory_has_no_room_for_is_not_called_damaged(monkeypatch):
    huge = Namespace(kind="huge", label="Huge", build=lambda state: torch.empty(1 << 50))
    monkeypatch.setattr("fvr.models.checkpoints.load.recognise", lambda names: huge)
    with pytest.raises(RuntimeError, match=r"not enough memory to load a\.pth .*; close other programs and try again"):
        build_network({}, "a.pth")


def test_beginnings_are_the_commonest_first():
    names = ["a.b.0.weight", "a.b.1.weight", "c.0.conv.weight", "d", "e.weight", "c.1.conv.weight", "c.2.conv.weight"]
    assert beginnings(names) == "c, a.b, d, ..."


def test_half_precision_leaves_what_chooses_codes_alone(tmp_path):
    """CodeFormer's generator may be halved; of KEEP nothing, since its pictures decide on later codes."""
    from helpers.code_networks import small_codeformer
    from helpers.small_keep import small_keep

    for make, halved in ((small_codeformer, True), (small_keep, False)):
        path = tmp_path / f"{make.__name__}.pth"
        torch.save(make().state_dict(), path)
        network = load_network(path, decoder_dtype=torch.bfloat16).network
        dtypes = {name: value.dtype for name, value in network.state_dict().items()}
        assert (torch.bfloat16 in dtypes.values()) == halved
        assert all(dtype == torch.float32 for name, dtype in dtypes.items() if name.startswith(("encoder.", "ft_layers.", "quantize.")))
