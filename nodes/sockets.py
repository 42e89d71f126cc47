"""This package's socket types, checks of input values, and widget helpers shared by the nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import Tensor

from .. import host
from ..faces import FaceClip
from ..headless.io import io
from ..methods.base import Restorer
from ..physics import Degradation
from ..priors.base import Prior
from ..video import FrameTimes

Faces = io.Custom("FVR_FACES")
"""list[FaceClip]"""
DegradationSocket = io.Custom("FVR_DEGRADATION")
"""physics.Degradation"""
PriorSocket = io.Custom("FVR_PRIOR")
"""diffusion.Prior"""
RestorerSocket = io.Custom("FVR_RESTORER")
"""methods.Restorer"""
Times = io.Custom("FVR_TIMES")
"""video.FrameTimes"""
OpticalFlow = io.Custom("OPTICAL_FLOW")
"""A model patcher around torchvision's RAFT, from ComfyUI's Load Optical Flow Model."""

CATEGORY = "face video"

ABSENT: Any = object()
"""Default of an input missing from the prompt, in validation and fingerprints, where None is a wired input of unknown value."""


KINDS: dict[str, type] = {
    "FVR_FACES": list,
    "FVR_DEGRADATION": Degradation,
    "FVR_PRIOR": Prior,
    "FVR_RESTORER": Restorer,
    "FVR_TIMES": FrameTimes,
    "IMAGE": Tensor,
    "MASK": Tensor,
    "AUDIO": Mapping,
}
"""Python type of each socket type's values."""

OBJECTS = ("VIDEO", "MODEL", "VAE", "UPSCALE_MODEL", "OPTICAL_FLOW")
"""Socket types whose values are ComfyUI's own objects, never JSON values."""


def check_inputs(node: Any, given: Mapping[str, Any]) -> None:
    """Checks a node's arguments: ComfyUI checks neither literals given for sockets nor values linked from wildcard outputs.

    Raises:
        ValueError: for an unknown input, or a socket value of the wrong type.
    """
    title, declared = declared_inputs(node)
    for name, value in given.items():
        if name not in declared:
            raise ValueError(f"{title} has no input {name}; its inputs are {', '.join(declared)}")
        kind, may_be_none = declared[name]
        if (value is None and may_be_none) or host.is_nothing(value) or fits(kind, value):
            continue
        shown = f" {str(value)[:60]!r}" if isinstance(value, (str, int, float)) else ""
        got = "nothing" if value is None else f"{type(value).__name__}{shown}"
        raise ValueError(f"{title} takes {kind} in {name}, got {got}: the node before gave none; look at it, or wire another")


@cache
def declared_inputs(node: Any) -> tuple[str, dict[str, tuple[str, bool]]]:
    """A node's title and {input id: (type, None allowed)}. Not for the locked copy that ComfyUI runs."""
    info = node.GET_NODE_INFO_V1()
    sections = ((section, info["input"].get(section, {})) for section in ("required", "optional"))
    return info["display_name"], {
        name: (kind, section == "optional" or bool(more and more[0].get("lazy")))
        for section, ones in sections
        for name, (kind, *more) in ones.items()
    }


def fits(kind: str, value: Any) -> bool:
    """Whether a value fits a socket of that type; widgets are checked elsewhere."""
    if kind in OBJECTS:
        return not (value is None or isinstance(value, (str, int, float, list, dict)))
    if kind == "FVR_FACES":
        return isinstance(value, list) and all(isinstance(one, FaceClip) for one in value)
    return kind not in KINDS or isinstance(value, KINDS[kind])


def verdict(check: Callable[..., object], *given: Any) -> bool | str:
    """For `validate_inputs`: True, or the message of the error that `check` raises."""
    try:
        check(*given)
    except (OSError, ValueError) as error:
        return host.user_message(str(error))
    return True


def first_fault(*verdicts: bool | str) -> bool | str:
    """For `validate_inputs`: True, or the first error message."""
    return next((verdict for verdict in verdicts if verdict is not True), True)


def check_text(*checks: Callable[[str], object], **values: Any) -> bool | str:
    """For `validate_inputs`: True, or the error for a value that is no string or that one of `checks` rejects.

    ComfyUI does not check a combo that a node validates itself. None is a wired input.
    """
    given = {name: value for name, value in values.items() if value is not None}
    wrong = next((name for name, value in given.items() if not isinstance(value, str)), None)
    if wrong is not None:
        return f"{wrong} is text, got {given[wrong]!r}"
    return first_fault(*(verdict(check, value) for value in given.values() for check in checks))


def wired(*inputs: Any) -> list[bool | None]:
    """For `validate_inputs`: None for each input missing from the prompt, else True, as `execute` gets None or a value."""
    return [None if one is ABSENT else True for one in inputs]


def optional(*inputs: Any) -> list:
    """The same inputs, made optional.

    The page shows required widgets before optional ones and stores values by position: if one widget is optional, all widgets of
    its node are, so that they keep their order.
    """
    for one in inputs:
        one.optional = True
    return list(inputs)


def advanced(inputs: list, *names: str) -> list:
    """The same inputs, with those of these names marked advanced."""
    for one in inputs:
        one.advanced = one.id in names or one.advanced
    return inputs


def seed_input(tooltip: str = "The same seed gives the same pixels.", label: str | None = None) -> Any:
    """The seed of all a node's randomness, which the page shows under `label`."""
    return io.Int.Input("seed", display_name=label, default=0, min=0, max=2**63 - 1, control_after_generate=False, tooltip=tooltip)
