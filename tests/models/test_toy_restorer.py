"""A new restorer is one folder: with it, the loader, the methods, the command line's help and the nodes' loader know the network."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from fvr import models
from fvr.cli import main
from fvr.methods.base import restore_frames
from fvr.methods.registry import build_restorer, methods
from fvr.models.architectures import recognise
from fvr.nodes.restorers import LoadFaceRestorer

TOY = """
from dataclasses import dataclass
import torch
from torch import nn
from fvr.methods.base import NetworkRestorer, Session, refuse_masks, resized
from fvr.models.architectures import Architecture, has

class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

def build(state):
    network = Gain()
    network.load_state_dict(state)
    return network.eval()

@dataclass(frozen=True)
class ToyOptions:
    strength: float = 1.0

class ToySession(Session):
    def __init__(self, restorer):
        self.restorer = restorer
    def push(self, crops, masks=None):
        refuse_masks("toy", masks)
        return resized(crops * (1 + self.restorer.options.strength * (self.restorer.network.gain.item() - 1)), 512, "bilinear").clamp(0, 1)
    def close(self):
        return torch.empty(0, 3, 512, 512)

class ToyRestorer(NetworkRestorer):
    name, options_type = "toy", ToyOptions
    def open(self, track=None, *, seed=0, check_interrupt=lambda: None):
        return ToySession(self)

ARCHITECTURE = Architecture(
    kind="toy", label="Toy", matches=has("gain"), build=build, describe=lambda state, network: "Toy, any size",
    restorer="models.toy:ToyRestorer", summary="Toy: brighter faces.",
)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkpoint of the toy network, whose folder has been put into the room."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text(TOY)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    save_file({"gain": torch.full((1,), 0.5)}, tmp_path / "toy.safetensors")
    yield tmp_path / "toy.safetensors"
    sys.modules.pop(f"{models.__name__}.toy", None)
    vars(models).pop("toy", None)


def test_one_folder_adds_a_restorer(toy, capsys, monkeypatch):
    assert recognise({"gain"}).kind == "toy" and list(methods())[-2:] == ["toy", "per-frame"]
    restorer = build_restorer("toy", weights=toy, settings={"strength": "0.5"})
    clip = torch.rand(2, 3, 64, 64)
    assert restore_frames(restorer, clip).mean().item() == pytest.approx(0.75 * clip.mean().item(), rel=1e-3)
    with pytest.raises(SystemExit):
        main(["restore", "--help"])
    assert "toy" in capsys.readouterr().out
    monkeypatch.setattr("fvr.nodes.restorers.restorer_files", lambda: {"toy.safetensors": toy})
    loaded = LoadFaceRestorer.execute(model="toy.safetensors").result[0]
    assert loaded.name == "toy"
