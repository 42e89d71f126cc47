"""Loads a published checkpoint into its network; whatever is wrong with the file becomes one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from .first_output import check_first_output
from .origin import record_origin
from .state_dict import AGAIN, read_state

Network = TypeVar("Network", bound=nn.Module)


def fill(network: Network, path: Path | str, what: str, otherwise: str, device: torch.device | str = "cpu") -> Network:
    """Gives `network`, whose parameters may be on the meta device, the weights of a file: float32, on `device`, in eval mode, without gradients.

    Args:
        what: the network's name, as in "RetinaFace".
        otherwise: what can be done without the file, as in "choose the detector blazeface".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds another network.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no {what} weights at {path}; put the published file there")
    try:
        state = read_state(path, str(path))
        wanted = {name: value.shape for name, value in network.state_dict().items()}
        here = {name: value.shape for name, value in state.items()}
        if here != wanted:
            fitting = sum(here.get(name) == shape for name, shape in wanted.items())
            raise ValueError(f"{path} does not hold {what}: {fitting} of its {len(wanted)} tensors are among the {len(here)} in the file; {AGAIN}")
    except ValueError as error:
        raise ValueError(f"{error}; or {otherwise}") from error
    network.load_state_dict(state, assign=True)
    network.float()
    check_first_output(network, str(path))
    record_origin(network, path)
    return network.to(device).eval().requires_grad_(False)
