"""The people of a clip, shown on the node that found them to be chosen by a click (web/people.js)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ... import host
from ...faces import FaceTrack, Thumbnails
from ...headless.io import ui
from ...host.images import to_image

MAX_PEOPLE = 48
"""Maximum number of people shown."""


def page_files(files: Iterable[Any]) -> tuple[list[Any]]:
    """Files for our page scripts, nested in one list: ComfyUI takes flat ones for results, which app mode and the queue show first."""
    return (list(files),)


def people(node: Any, chosen: Sequence[FaceTrack], thumbnails: Thumbnails) -> dict[str, Any]:
    """Each person's sharpest face and whether they are selected; empty without a page."""
    faces = {person: crops[min(thumbnails.best[person], len(crops) - 1)] for person, crops in sorted(thumbnails.crops.items()) if crops}
    shown = list(faces)[:MAX_PEOPLE]
    if not host.on_page() or not shown:
        return {}
    files = ui.PreviewImage(to_image(torch.stack([faces[person] for person in shown])), cls=node).as_dict()["images"]
    here = {track.person for track in chosen}
    return {"people": page_files({**file, "person": person, "chosen": person in here} for file, person in zip(files, shown, strict=True))}
