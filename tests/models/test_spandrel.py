"""Restorers that spandrel loads: in [-1, 1] as everywhere here, the same pixels twice, nothing that enlarges, one sentence without it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import pytest
import torch
from helpers.seeded_weights import seed_weights, seeded_state
from helpers.small_spandrel import small_denoiser, small_swinir
from safetensors import safe_open
from safetensors.torch import load_file

from fvr.models.checkpoints.load import load_network, peek
from fvr.models.checkpoints.spandrel_bridge import Bridge, load_by_spandrel
from fvr.models.restoreformer.network import RestoreFormer, RestoreFormerConfig

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # spandrel's
DATA = Path(__file__).parents[1] / "data"
SWINIR = dict(img_size=64, embed_dim=180, depths=[6] * 8, num_heads=[6] * 8, window_size=8, mlp_ratio=2.0, upscale=8, img_range=1.0)
SWINIR |= dict(upsampler="nearest+conv", resi_connection="1conv", start_unshuffle=8)
"""How DifFace and pseudo-targets configure SwinIR, in spandrel's words."""


@pytest.fixture
def spandrel():
    return pytest.importorskip("spandrel")


def picture(side=64, count=2):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


@pytest.mark.parametrize("make", [small_swinir, small_denoiser])
def test_a_network_of_the_same_size_is_loaded_and_called_in_its_own_range(make, spandrel, tmp_path):
    theirs = make()
    theirs.load_state_dict({key: value * 0.1 if value.is_floating_point() else value for key, value in seeded_state(theirs.state_dict()).items()})
    torch.save({"params_ema": theirs.state_dict()}, tmp_path / "x.pth")
    loaded = load_network(tmp_path / "x.pth", torch.bfloat16)
    assert loaded.kind == "spandrel" and type(theirs).__name__ in loaded.detail and peek(tmp_path / "x.pth") is None
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32} and not any(p.requires_grad for p in loaded.network.parameters())
    x = picture()
    with torch.inference_mode():
        expected = torch.cat([spandrel.ModelLoader("cpu").load_from_file(tmp_path / "x.pth")((frame[None] + 1) / 2) for frame in x]) * 2 - 1
        out = loaded.network(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(out.clamp(-1, 1), expected, rtol=0, atol=1e-5)
    assert (out - x).abs().max() > 1e-3


def test_swinir_as_difface_publishes_it_gives_the_official_numbers(spandrel):
    """Names and shapes of the published file, weights that can be made anywhere, and what the official code makes of a face with them."""
    with safe_open(DATA / "swinir.safetensors", "pt") as file:
        shapes = json.loads(file.metadata()["shapes"])
    state = {key: torch.zeros(shape, dtype=torch.int64 if key.endswith("relative_position_index") else None) for key, shape in shapes.items()}
    fixed = type(load_by_spandrel(state).network)(**SWINIR).state_dict()  # with its window masks, which are no weights
    network = load_by_spandrel(seeded_state({key: fixed.get(key, value) for key, value in state.items()}))
    assert isinstance(network, Bridge)
    wanted, picture = load_file(DATA / "swinir.safetensors"), load_file(DATA / "difface_unet.safetensors")["frame_0"]
    pixels = cv2.imdecode(picture.numpy(), cv2.IMREAD_COLOR)[..., ::-1]
    frame = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        out = (network(frame) + 1) / 2
    for ours, theirs in ((out[..., ::4, ::4], wanted["output_stride4"]), (out[..., 200:264, 200:264], wanted["output_crop"])):
        assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-3


def gfpgan_state(**sizes):
    """Names and shapes of GFPGAN's tensors, without values."""
    from spandrel.architectures.GFPGAN import GFPGAN

    with torch.device("meta"):
        return GFPGAN(**sizes).state_dict()


def test_gfpgan_is_recognised_at_its_published_size(spandrel):
    with torch.device("meta"):
        network = load_by_spandrel(gfpgan_state())
    assert isinstance(network, Bridge) and network.label == "GFPGAN"


def test_gfpgan_is_called_as_its_authors_do_with_the_noise_of_its_file(spandrel):
    from spandrel.architectures.GFPGAN import GFPGAN, GFPGANArch

    draw = torch.Generator().manual_seed(0)
    sizes = dict(out_size=64, num_style_feat=32, channel_multiplier=1, narrow=0.25)
    state = {}
    for key, value in gfpgan_state(**sizes).items():
        state[key] = torch.randn(value.shape, generator=draw) * (0.3 if value.dim() < 2 else value.shape[1:].numel() ** -0.5)
    about = dict(purpose="FaceSR", tags=[], supports_half=False, supports_bfloat16=True, scale=1, input_channels=3, output_channels=3)
    network = Bridge(spandrel.ImageModelDescriptor(GFPGAN(**sizes), state, GFPGANArch(), **about))
    x = picture(64, 3)
    with torch.inference_mode():
        out = network(x.contiguous(memory_format=torch.channels_last))
        expected = network.network(x, randomize_noise=False)[0]
        fresh = network.network(x)[0]
    torch.testing.assert_close(out, expected)
    assert out.std() > 0.01 and (out - fresh).abs().max() > 1e-3


def test_our_own_classes_come_first(spandrel, tmp_path):
    config = RestoreFormerConfig(32, (1, 2), 1, attended=(1,), crossed=(1,), code_dim=32, codes=32)
    torch.save(seed_weights(RestoreFormer(config)).state_dict(), tmp_path / "x.pth")
    assert isinstance(load_network(tmp_path / "x.pth").network, RestoreFormer)


def test_networks_that_enlarge_are_refused_by_name(spandrel, tmp_path):
    from spandrel.architectures.Compact import Compact

    torch.save(Compact(num_feat=8, num_conv=2, upscale=4).state_dict(), tmp_path / "x4.pth")
    with pytest.raises(ValueError, match=r"x4\.pth holds \d+ tensors .*RealESRGAN Compact network for SR \(4x, 3 to 3 channels\); it is not a face"):
        load_network(tmp_path / "x4.pth")


def test_damaged_ones_are_told_with_their_first_fault(spandrel, tmp_path):
    state = small_swinir().state_dict()
    del state["norm.weight"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"^x\.pth looks like a network that spandrel loads, but 1 tensor is missing \(norm\.weight\); download it"):
        load_network(tmp_path / "x.pth")


def test_without_spandrel_one_sentence_says_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    torch.save({"stylegan_decoder.style_mlp.1.weight": torch.ones(2), "toRGB.0.weight": torch.ones(2)}, tmp_path / "GFPGANv1.4.pth")
    with pytest.raises(ModuleNotFoundError, match=r"^GFPGANv1\.4\.pth holds .*\(pip install spandrel\)"):
        load_network(tmp_path / "GFPGANv1.4.pth")
    torch.save({"mystery.weight": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="it is not a face restorer"):
        load_network(tmp_path / "x.pth")
