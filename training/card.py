"""Export of trained weights: a float16 .safetensors file with metadata, and its model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..atomic import remove_abandoned, write_tensors
from ..models.embedded import ALIAS, BASE, aliased, read_embedded


@dataclass(frozen=True)
class Card:
    """The model card of a weights file.

    Attributes:
        title: of the network.
        what: description, in a few sentences.
        data: training data.
        licence: of the weights.
        recipe: training recipe.
        command: training command.
        seed: of the training.
        bias: groups that the data represents, and lacks.
        figures: results on held-out faces: (name, value) pairs, shown as a table.
    """

    title: str
    what: str
    data: str
    licence: str
    recipe: str
    command: str
    seed: int
    bias: str
    figures: tuple[tuple[str, str], ...] = ()

    def text(self, file: str, parameters: int, size: int) -> str:
        """The card as Markdown."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in self.figures)
        table = f"\n## Figures\n\n| | |\n| --- | --- |\n{rows}\n" if rows else ""
        return (
            f"# {self.title}\n\n{self.what}\n\nFile: `{file}`, {parameters / 1e6:.2f} million parameters, float16, {size / 1e6:.1f} MB.\n\n"
            f"## Data\n\n{self.data}\n\n## Licence\n\n{self.licence}\n\n## Recipe\n\n{self.recipe}\n\n    {self.command}\n\nSeed {self.seed}.\n\n"
            f"## Bias and limits\n\n{self.bias}\n{table}"
        )


FEDERAL_BIAS = (
    "Members of the US Congress: adults, mostly 40 to 75 years old, mostly smiling and frontal, in studio light, many before flags. No children, few "
    "extreme poses, almost nothing before a face. Faces unlike these come back less faithfully. What the network adds is a guess: never use it to "
    "identify anyone."
)
OWN_LICENCE = "That of whoever trained it, and of the faces."
LICENCE = "Apache-2.0, as the package. The portraits' repositories are MIT-licensed; no image of them is in the file."


STILLS = "blur, downsampling, noise and JPEG"
"""Degradations of single faces, for cards."""


def federal_data(train: int, held_out: int, degraded: str = STILLS) -> str:
    """A card's sentences about the portraits of the federal government: their numbers in training and validation, and how they were degraded."""
    return (
        f"{train} aligned official portraits of members of the United States Congress (repositories CivilServiceUSA/us-house and us-senate, MIT "
        "licence; the portraits are mostly works of the US government), split by last name from "
        f"{held_out} that validate. Degraded by {degraded}."
    )


def converted(state: Mapping[str, Tensor], dtype: torch.dtype, remedy: str) -> dict[str, Tensor]:
    """Copies of a network's tensors on the CPU, the floating-point ones in `dtype`.

    Raises:
        ValueError: if a value does not fit into it; `remedy` ends the sentence.
    """
    tensors = {key: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).clone().contiguous() for key, value in state.items()}
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{key} holds a value that {str(dtype)[6:]} cannot ({float(state[key].abs().max()):.3g}); {remedy}")
    return tensors


def export(state: Mapping[str, Tensor], path: Path, card: Card, metadata: Mapping[str, str] | None = None, base: Path | None = None) -> int:
    """Writes a network's tensors as float16, with metadata, and the card beside it as `<name>.md`.

    Args:
        state: the network's.
        path: ends in .safetensors.
        base: a .safetensors file, in the same folder once the file is used, that this one builds on: tensors that are the same there, or
            under the metadata's alias, are left out, and the metadata name it.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: if a value does not fit into float16.
    """
    halves = converted(state, torch.float16, "train again with a smaller rate")
    notes = {"title": card.title, "licence": card.licence, "seed": str(card.seed), "command": card.command, "format": "pt", **(metadata or {})}
    if base is not None:
        known = read_embedded(base.resolve())  # with what that one builds on
        known = {**known, **aliased(known, notes.get(ALIAS))}
        halves = {key: value for key, value in halves.items() if key not in known or not torch.equal(known[key].to(value.dtype), value)}
        notes[BASE] = base.name
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    write_tensors(halves, path, notes)
    size = path.stat().st_size
    path.with_suffix(".md").write_text(card.text(path.name, sum(value.numel() for value in halves.values()), size), encoding="utf-8")
    return size
