"""What a chain of degradations does along time: how far it reaches, and what it is for a part of the clip."""

from __future__ import annotations

from .base import Degradation
from .compose import chain_of, compose
from .inpaint import Inpaint
from .temporal import TemporalBlur


def reach_of(operator: Degradation) -> int:
    """How many frames before and behind its own a frame of y shows; 0 where frames are not mixed."""
    return sum(part.width // 2 for part in chain_of(operator) if isinstance(part, TemporalBlur))


def at_frames(operator: Degradation, first: int, count: int) -> Degradation:
    """A for frames `first` to `first` + `count` - 1 of the clip: masks given frame by frame are those of these frames."""
    chain = chain_of(operator)
    if not any(isinstance(part, Inpaint) and part.mask.ndim == 4 for part in chain):
        return operator
    return compose([Inpaint(part.mask[first : first + count]) if isinstance(part, Inpaint) and part.mask.ndim == 4 else part for part in chain])
