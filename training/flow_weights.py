"""Loads the flow networks that are not trained: SPyNet in FLAIR's network, GMFlow in KEEP's."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from ..models.architectures import beginnings
from ..models.checkpoints.state_dict import read_state
from ..models.flair.spynet import spynet_of
from ..models.keep.network import KEEP

PUBLISHED = "https://download.openmmlab.com/mmediting/restorers/basicvsr/spynet_20210409-c6c1bd09.pth"
"""The SPyNet weights of BasicVSR and its successors."""

GMFLOW = "gmflow_sintel-0c07dcb3.pth of the GMFlow project, or a checkpoint of KEEP"
"""Files that hold GMFlow, for messages."""

_SEQUENTIAL = re.compile(r"(basic_module\.\d+\.basic_module)\.(\d+)\.(weight|bias)")
_INSIDE = "spynet."


def load_spynet(network: nn.Module, path: Path) -> None:
    """Loads a file's weights into the SPyNet inside `network`, which its layers share.

    Args:
        path: SPyNet's own state dict, with MMagic's names (`PUBLISHED`) or BasicSR's (spynet_sintel_final-3d2a1287.pth), or a network that
            has one inside, as FLAIR's and BasicVSR++'s checkpoints do.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no SPyNet.
    """
    found = spynet_of(network)
    assert found is not None
    state = read_state(path)
    wanted = found.state_dict()
    constants = {name: wanted[name] for name in ("mean", "std")}  # files written before these were buffers lack them
    _fill(found, {**constants, **spynet_names(state)}, state, path.name, f"SPyNet: give {PUBLISHED}")


def spynet_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SPyNet's tensors of a state dict under our names: taken out of a network that has it inside, BasicSR's numbers (0, 2, ... 8) made 0 to 4."""
    prefix = next((key[: key.index(_INSIDE) + len(_INSIDE)] for key in state if _INSIDE in key), "")
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    def renamed(key: str) -> str:
        match = _SEQUENTIAL.fullmatch(key)
        return f"{match[1]}.{int(match[2]) // 2}.conv.{match[3]}" if match else key

    return {renamed(key): value.float() for key, value in own.items()}


def load_gmflow(network: KEEP, path: Path) -> None:
    """Loads a file's weights into the GMFlow inside `network`.

    Args:
        path: GMFlow's own state dict, or a KEEP that has one inside.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no GMFlow.
    """
    assert network.flownet is not None
    state = read_state(path)
    inside = "flownet.model."
    own = {key.removeprefix(inside): value.float() for key, value in state.items() if key.startswith(inside)} or state
    _fill(network.flownet.model, own, state, path.name, f"GMFlow: give {GMFLOW}")


def _fill(network: nn.Module, weights: dict[str, Tensor], state: dict[str, Tensor], file: str, wanted: str) -> None:
    """Loads weights that are a flow network's; raises ValueError, with what the file's state holds, for others."""
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in network.state_dict().items()}:
        raise ValueError(f"{file} holds {len(state)} tensors whose names start with {beginnings(state)}, not the flow network {wanted}")
    network.load_state_dict(weights)
