"""Loads diffusion priors: the embedded ones by name, others from files, which are recognised by their content."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..models.architectures import beginnings, foreign, recognise
from ..models.checkpoints.first_output import check_first_output
from ..models.checkpoints.origin import record_origin
from ..models.checkpoints.state_dict import notes_of, read_state, unread
from ..models.device import Placement
from ..models.embedded import SIZES
from .base import Prior
from .flair_video import BACKGROUND, FlairPrior, flair_prior_from, is_flair
from .image_ddpm import ImagePrior, is_image_prior, prior_from_state
from .pyramid import PyramidPrior
from .wiener import GaussianPrior

if TYPE_CHECKING:
    from ..models.flair.bicubic import BicubicConfig
    from ..models.flair.blur import BlurConfig

NO_WEIGHTS = "gaussian (no weights)"
"""Menu name of the prior without weights."""


def load_prior(name: str) -> Prior:
    """The prior without weights, by its menu name or as "gaussian".

    Raises:
        ValueError: for any other name.

    >>> import torch
    >>> prior = load_prior("gaussian")
    >>> prior.predict_x0(torch.zeros(1, 3, 64, 64), 100).shape
    torch.Size([1, 3, 64, 64])
    """
    if name not in (NO_WEIGHTS, "gaussian"):
        raise ValueError(f"no diffusion prior is called {name!r}; choose {NO_WEIGHTS}, or a file")
    return GaussianPrior()


PUBLISHED_SIDE = 512
"""Side of the frames of FLAIR's published networks; networks of smaller ones become the coarse level of a pyramid."""
TASKS = tuple(BACKGROUND)
"""What FLAIR's networks were trained for: the bicubic network for x4, x8 and x16, the other one for the rest."""


def task_of(path: Path | str) -> str | None:
    """The task that a file name mentions, as the published ones do ("flair_x16_bicubic.pt"), or None; a blur counts before an enlargement."""
    words = re.split(r"[^a-z0-9]+", Path(path).stem.lower())
    return next((task for task in reversed(TASKS) if task in words), None)


def prior_from_file(
    path: Path | str,
    *,
    task: str | None = None,
    dtype: torch.dtype = torch.float32,
    placed: Callable[[nn.Module], Placement] | None = None,
) -> Prior:
    """Loads the prior of a checkpoint: one of FLAIR's two video networks, or an image network of DifFace's kind.

    Its parameters are made outside inference mode, so that gradients may flow through it later.

    Args:
        task: one of TASKS, for FLAIR's networks; None reads it off the file name, else takes the network's first.
        dtype: of the convolutions of FLAIR's networks; flow and statistics stay float32, and so does an image network.
        placed: how the network comes to where it runs; None leaves it on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence that says what the file holds, if that is no prior, is damaged, or is for another task.
    """
    path = Path(path)
    state = read_state(path)
    with torch.inference_mode(False):
        try:
            prior: FlairPrior | ImagePrior
            if is_flair(state):
                state = {key: value.float() for key, value in state.items()}
                prior = flair_prior_from(state, task or task_of(path), config=sizes_of(notes_of(path)), dtype=dtype)
            elif is_image_prior(state):
                prior = prior_from_state(state)
            else:
                known = recognise(set(state))
                what = f"the face restorer {known.label}" if known else foreign(set(state)) or f"tensors whose names start with {beginnings(state)}"
                raise ValueError(
                    f"{path.name} holds {what}, not a diffusion prior; choose a FLAIR checkpoint or DifFace's iddpm_ffhq512_ema500000.pth"
                )
            check_first_output(prior.network, path.name)
            record_origin(prior.network, path)
            if placed is not None:
                prior.place = placed(prior.network)
            if isinstance(prior, FlairPrior) and prior.network.config.side < PUBLISHED_SIDE:
                prior.background = 1.0
                return PyramidPrior(prior)
            return prior
        except (KeyError, RuntimeError) as error:
            fault = f"is a diffusion network, but its tensors do not fit together ({_first(error)}); get it again"
            raise unread(path.name, error, fault) from error


def sizes_of(notes: Mapping[str, str]) -> BicubicConfig | BlurConfig | None:
    """The sizes that `fvr train prior` leaves in a file's metadata, None for a published file. Raises ValueError if they cannot be read."""
    from ..models.flair.bicubic import BicubicConfig
    from ..models.flair.blur import BlurConfig

    if SIZES not in notes:
        return None
    try:
        sizes = json.loads(notes[SIZES])
        sets = {name: frozenset(sizes[name]) for name in ("attention", "recurrence")}
        known: type[BicubicConfig | BlurConfig] = BicubicConfig if "groups" in sizes else BlurConfig
        return known(**{**sizes, **sets, "multipliers": tuple(sizes["multipliers"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the sizes in the file's metadata cannot be read ({error}); train it again with `fvr train prior`") from error


def _first(error: Exception) -> str:
    """The line of an error that names a tensor."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)][:200] if lines else type(error).__name__
