"""One loader for every face restorer: the file is recognised by what is in it, never by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..architectures import CHOOSE, architectures, beginnings, foreign, recognise
from ..embedded import BASE, read_embedded
from .catalogue import Checkpoint, licence_line, published_as
from .first_output import check_first_output
from .origin import record_origin
from .spandrel_bridge import load_by_spandrel
from .state_dict import AGAIN, names_of, notes_of, read_state, unread


@dataclass(frozen=True)
class LoadedNetwork:
    """A restorer's network, ready to run: eval mode, float32, convolutions in channels_last, no gradients asked for its parameters.

    Attributes:
        kind: "codeformer", "keep", "dicface", "restoreformer" or "spandrel".
        network: on the CPU; see its class for inputs and outputs.
        path: the file.
        checkpoint: the catalogue's entry; None if it knows no file of that name.
        detail: one line for users.
        notes: the file's metadata. `fvr train` and fine-tuning write licence, recipe and the best settings there.
    """

    kind: str
    network: nn.Module
    path: Path
    checkpoint: Checkpoint | None
    detail: str
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def licence(self) -> str:
        """One line: the catalogue's, else what the file says, else that it is unknown."""
        if self.checkpoint is not None:
            return licence_line(self.checkpoint)
        return self.notes.get("licence", "licence unknown, the catalogue has no file of this name")


def load_network(path: Path | str, decoder_dtype: torch.dtype | None = torch.float32) -> LoadedNetwork:
    """The face restorer in a checkpoint file.

    Parameters are made outside inference mode, so that they can be trained later.

    Args:
        path: .safetensors, or a file by torch.save; a file that builds on another one (models/embedded) needs that one in the same folder.
        decoder_dtype: of the modules behind the choice of codes, if no later code depends on them (KEEP's do); everything else stays float32.
            None is bfloat16 for networks whose `Architecture` allows it, and float32 for all others.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence that says what was found: no checkpoint, another kind of network, or a damaged one. Running the network
            raises another one if its first output is not finite.
        ModuleNotFoundError: for a network that only spandrel knows, where that is not installed.
        RuntimeError: if memory runs out.
    """
    path = Path(path)
    notes = notes_of(path)
    state = read_embedded(path) if BASE in notes else read_state(path)
    with torch.inference_mode(False):
        kind, network, detail = build_network(state, path.name)
        network.float().eval().requires_grad_(False)
        if kind != "spandrel":
            channels_last(network)
        if decoder_dtype is None:
            decoder_dtype = torch.bfloat16 if any(known.bfloat16 for known in architectures() if known.kind == kind) else torch.float32
        if not getattr(network, "feeds_back", False):
            for part in getattr(network, "decoder_parts", list)():
                part.to(decoder_dtype)
    check_first_output(network, path.name)
    loaded = LoadedNetwork(kind, network, path, entry_of(path, kind), detail, notes)
    record_origin(network, path, loaded.licence)
    return loaded


def peek(path: Path | str) -> str | None:
    """The kind of a checkpoint from its tensor names alone, without reading its weights; None if it is none of our own networks'.

    Raises:
        FileNotFoundError, ValueError: if it is no checkpoint, as `read_state`.
    """
    known = recognise(set(names_of(path)))
    return known.kind if known else None


def channels_last(network: nn.Module) -> None:
    """Converts convolutions to channels_last, in which they run fastest; other parameters may not have four dimensions."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(memory_format=torch.channels_last)


def entry_of(path: Path, kind: str) -> Checkpoint | None:
    """The catalogue's entry for a file name, unless the content of the file is known to be something else."""
    entry = published_as(path)
    own = {known.kind for known in architectures()}
    meant = next((known for known in own if entry and entry.name.startswith(known)), "spandrel")
    return entry if meant == kind else None


def build_network(state: Mapping[str, Tensor], name: str) -> tuple[str, nn.Module, str]:
    """A state dict's kind, its network in eval mode, and one line for people; `name` is what errors call it.

    Raises:
        ValueError, ModuleNotFoundError, RuntimeError: as `load_network`.
    """
    names = set(state)
    known = recognise(names)
    if known is not None:
        try:
            network = known.build(state)
            return known.kind, network, known.describe(state, network)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # sizes are read from the shapes, so damaged ones can fail anywhere in a constructor
            raise unread(name, error, f"is a {known.label} checkpoint, but {_fault(error)}; {AGAIN}") from error
    what = foreign(names)
    if what is None:
        try:
            found = load_by_spandrel(state)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{name} holds a network that ComfyUI's loader knows, but {error}") from error
        except Exception as error:
            raise unread(name, error, f"looks like a network that spandrel loads, but {_fault(error)}; {AGAIN}") from error
        if found is not None and not isinstance(found, str):
            return "spandrel", found, f"{found.label}, 512 x 512, by spandrel"
        what = found
    is_what = f": {what}" if what else ""
    held = f"{len(state)} tensors whose names start with {beginnings(state)}" if len(state) > 1 else f"one tensor, {next(iter(state))}"
    raise ValueError(f"{name} holds {held}{is_what}; it is not a face restorer: {CHOOSE}")


def _fault(error: Exception) -> str:
    """What is wrong with the tensors of a recognised network, in a few words: how many, and the first one."""
    text = str(error)
    faults = []
    for verb, word in (("missing", "Missing"), ("unexpected", "Unexpected")):
        listed = re.search(rf'{word} key\(s\) in state_dict: ((?:"[^"]+"(?:, )?)+)', text)
        if listed:
            keys = re.findall(r'"([^"]+)"', listed[1])
            faults.append(f"{_tensors(len(keys))} {verb} ({keys[0]}{' first' if len(keys) > 1 else ''})")
    shapes = re.findall(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)", text)
    if shapes:
        key, here, needed = shapes[0]
        faults.append(f"{_tensors(len(shapes))} of another shape ({key}{' first' if len(shapes) > 1 else ''}: {here} where {needed} is needed)")
    if faults:
        return " and ".join(faults)
    if isinstance(error, KeyError):
        return f"a tensor that tells its sizes is missing ({error.args[0]})"
    return f"the shapes of its tensors do not fit together ({text.splitlines()[0] if text else type(error).__name__})"


def _tensors(count: int) -> str:
    return f"{count} tensor{' is' if count == 1 else 's are'}"
