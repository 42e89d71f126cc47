"""FLAIR's networks against the published parameter lists and the official outputs."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.flair_small import SMALL, gap, published_spynet, seeded
from helpers.seeded_weights import seeded_state
from safetensors import safe_open

from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet
from fvr.models.flair.blur import BlurConfig, BlurUNet
from fvr.models.flair.spynet import SPyNet
from fvr.models.flair.temporal import split_parameters

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT.parent / "shared" / "manifests"
PUBLISHED = {
    "bicubic": (BicubicUNet, BicubicConfig, 1148, "3e41e7242db99256", (151_136_963, 83_519_744, 1_440_300)),
    "blur": (BlurUNet, BlurConfig, 1638, "aff4575f7d3c453b", (139_843_846, 272_199_488, 1_440_300)),
}
REDUCED = {
    "bicubic": (BicubicUNet, BicubicConfig(128, 32, (1, 2, 4), 1, frozenset({2}), frozenset({0, 1}), 7, 32)),
    "blur": (BlurUNet, BlurConfig(128, 64, (0.5, 1, 4), 1, frozenset({2}), frozenset({0, 1}))),
}


def digest(shapes):
    """Of all names and shapes of a state dict, in any order."""
    return hashlib.sha256("\n".join(sorted(f"{name} {list(shape)}" for name, shape in shapes.items())).encode()).hexdigest()[:16]


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request):
    with torch.device("meta"):
        network = PUBLISHED[request.param][0]()
    return request.param, network


def test_names_and_shapes(published):
    kind, network = published
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    _, _, count, known, _ = PUBLISHED[kind]
    assert (len(shapes), digest(shapes)) == (count, known)
    manifest = MANIFESTS / f"flair_{kind}_unet_full.json"
    if manifest.exists():
        assert shapes == json.loads(manifest.read_text())["shapes"]


def test_split(published):
    """The published counts: what is trained on images, what on clips, and SPyNet."""
    kind, network = published
    split, parameters = split_parameters(network), dict(network.named_parameters())
    assert tuple(sum(parameters[name].numel() for name in part) for part in split) == PUBLISHED[kind][4]
    assert sorted([*split.spatial, *split.temporal, *split.flow]) == sorted(parameters)


def test_one_spynet(published):
    """However often its parameters are listed, there is one flow network."""
    kind, network = published
    prefixes = {name.split("spynet.")[0] for name in network.state_dict() if "spynet." in name}
    six = {f"{place}.vsrpp.wrapped_module." for place in ("downs.1", "downs.3", "ups.9", "ups.10", "ups.12", "ups.13")}
    assert prefixes == (six if kind == "bicubic" else {""})
    assert sum(isinstance(module, SPyNet) for module in network.modules()) == 1


def test_sizes_are_read_from_the_weights(published):
    kind, network = published
    assert PUBLISHED[kind][1].of(network.state_dict()) == PUBLISHED[kind][1]()


@pytest.mark.parametrize("kind", SMALL)
def test_sizes_of_small_networks(kind):
    """All that weights can show: attention windows and heads, and the groups of SR3's blocks, they cannot."""
    _, config = SMALL[kind]
    found = type(config).of(seeded(kind).state_dict())
    visible = ("channels", "multipliers", "res_blocks", "attention", "recurrence")
    assert [getattr(found, name) for name in visible] == [getattr(config, name) for name in visible]


def test_weights_of_another_network():
    with pytest.raises(KeyError):
        BicubicUNet.of({"conv.weight": torch.zeros(1)})
    state = seeded("blur").state_dict()
    state.pop("out.2.wrapped_module.bias")
    with pytest.raises(RuntimeError, match=r"out\.2\.wrapped_module\.bias"):
        BlurUNet.of(state, SMALL["blur"][1])


@pytest.fixture(scope="module")
def reference():
    with safe_open(ROOT / "tests" / "data" / "flair_unets.safetensors", "pt") as file:
        tensors, notes = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    for name in ("x_t", "condition"):
        tensors[name] = tensors[name] * float(notes[f"{name}_scale"])
    face = torch.from_numpy(np.unpackbits(tensors.pop("face_bits").numpy())).view(5, 1, 128, 128).bool()
    tensors["weights"] = torch.where(face, 1.0, float(notes["background"]))
    return tensors, notes


@pytest.mark.parametrize("kind", REDUCED)
def test_official_outputs(kind, reference):
    tensors, notes = reference
    build, config = REDUCED[kind]
    network = build(config)
    network = build.of(published_spynet(seeded_state(network.state_dict())), config)
    x_t, condition = tensors["x_t"], tensors["condition"]
    guides = condition if kind == "bicubic" else (0.9 * condition).clamp(-1, 1)
    with torch.inference_mode():
        flows = network.flows(guides)
        for name, temporal in (("output", True), ("output_image_only", False)):
            found = network(x_t, condition, torch.tensor(float(notes[f"{kind}_time"])), temporal=temporal, flows=flows, weights=tensors["weights"])
            assert gap(found[..., ::4, ::4], tensors[f"{kind}_{name}_stride4"][:, :3]) < 1e-3, name
