"""The contract between the walk of a clip and any method that restores faces, and what restorers with a trained network share."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from math import lcm
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from ..faces.types import CROP, FaceTrack
from ..models.device import CheckInterrupt, Placement, no_check, on
from ..models.tuning import Use
from ..options import parameter


class Session(ABC):
    """The restoration of one person in one shot: crops in, in order; restored crops out, in order.

    Crops are (n, 3, H, W) float32 RGB in [0, 1], n >= 1, normally 512 x 512; what comes back is (m, 3, 512, 512) with m from 0 (the
    method looks ahead) up to all that is owed. Over a session as many frames come out as went in, however they were chunked.

    Attributes:
        note: a sentence about this person's damage and what was made of it, for people; "" until there is something to say.
    """

    note: str = ""
    looks: int = 0
    """Of how many more frames it wants to see what lies about the face, before it gets their crops."""
    return_maps = False
    """Whether `maps` is wanted: set it before the first push."""

    def look(self, around: Tensor) -> None:  # noqa: B027 - most have no use for it
        """Is shown what lies about the face in the next frames (`FaceClip.around`), where anybody has it; for sessions with `looks` left."""

    @abstractmethod
    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        """Takes the next crops and returns those that are ready.

        Args:
            masks: (n, 1, H, W), 1 where pixels are missing; for restorers with "masks" in `supports`.

        Raises:
            ValueError: if crops or masks do not have these shapes, or masks come to a restorer that takes none.
        """

    @abstractmethod
    def close(self) -> Tensor:
        """Returns all crops still owed."""

    def maps(self) -> dict[str, Tensor]:
        """What else is known of the crops handed out since the last call, (m, 1, 512, 512) in [0, 1] by name; nothing unless `return_maps`."""
        return {}


Capability = Literal["masks", "uncertainty", "single_frames", "steps", "optical_flow"]
"""masks: `Session.push` takes them. uncertainty: `Session.maps` holds it. single_frames: no frame changes another. steps: `reporting` and `units` say
more than frames do. optical_flow: `guided_by` takes another source of motion."""


@dataclass(frozen=True)
class WarmUp:
    """Where the session of a track's part begins, so that the part comes out as it does in the whole track.

    Attributes:
        before: frames it must see before the first one that is kept.
        every: it begins at a multiple of so many frames of the track, where the whole track's own blocks begin.
        exact: whether what is kept equals the whole track's to the bit; else it comes within 50 dB.
    """

    before: int = 0
    every: int = 1
    exact: bool = True

    def begin(self, first: int) -> int:
        """The frame of the track at which a session begins that keeps frames from `first` on."""
        return max(0, first - self.before) // self.every * self.every

    def over(self, precleaner: WarmUp) -> WarmUp:
        """Of a method whose crops another one cleans first."""
        return WarmUp(self.before + precleaner.before, lcm(self.every, precleaner.every), self.exact and precleaner.exact)


class Restorer(ABC):
    """A method with its weights and parameters; immutable, shared by any number of sessions.

    Attributes:
        name: the method's name as the command line and reports show it.
        look_ahead: at most how many crops a session holds back.
        supports: what it can do beyond restoring crops; depends on its options.
        units: what one frame counts in progress.
        warm_up: what a part of a track needs; by default all that comes before it, which is exact for every method.
        fingerprint: tells weights that came from no file of ours apart, for jobs that go on; "" for all others.
    """

    name: str
    look_ahead: int = 0
    supports: frozenset[Capability] = frozenset()
    warm_up: WarmUp = WarmUp(before=sys.maxsize)
    units: int = 1
    fingerprint: str = ""

    def repaints(self, track: FaceTrack | None = None) -> bool:
        """Whether a network draws this face anew, maybe over what lies before it."""
        return False

    @abstractmethod
    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        """Starts one person's clip. `track` is None for frames that are already aligned."""

    def resume(self, track: FaceTrack | None, first: int, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        """Starts in the middle of a clip: crops come from frame `first` of the track on, a beginning that `warm_up` allows."""
        return self.open(track, seed=seed, check_interrupt=check_interrupt)

    def after_cleaning(self) -> Restorer:
        """The same restorer for crops that the blind one has cleaned already."""
        return self

    def reporting(self, on_step: Callable[[Any], None]) -> Restorer:
        """The same restorer, telling of every step what it did (`frames`, `preview`); for those with "steps" in `supports`."""
        raise NotImplementedError(f"{self.name} counts frames, not steps")


def refuse_masks(name: str, masks: Tensor | None) -> None:
    """Raises ValueError for masks that a restorer cannot use."""
    if masks is not None:
        raise ValueError(f"{name} takes no masks, got {tuple(masks.shape)}; leave them out, or inpaint with CodeFormer or DicFace")


def restore_frames(
    restorer: Restorer,
    crops: Tensor,
    track: FaceTrack | None = None,
    *,
    masks: Tensor | None = None,
    around: Tensor | None = None,
    seed: int = 0,
    chunk: int | None = None,
    check_interrupt: CheckInterrupt = no_check,
    on_frame: Callable[[int], None] = lambda done: None,
    on_maps: Callable[[dict[str, Tensor]], None] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Tensor:
    """A whole clip (N, 3, H, W) at once: a loop over one session. Returns (N, 3, 512, 512).

    Args:
        masks: (N, 1, H, W), see Session.push.
        around: what lies about the face in the first frames; of frames that came in aligned it is the crops themselves.
        chunk: frames pushed at a time; None is 8, or as many as the method takes at once.
        on_frame: gets how many more are done.
        on_maps: gets Session.maps of each piece; None asks for none.
        on_note: gets Session.note once all is restored, unless it is empty.
    """
    chunk = chunk or max(8, getattr(getattr(restorer, "options", None), "batch", 1))
    session = restorer.open(track, seed=seed, check_interrupt=check_interrupt)
    session.return_maps = on_maps is not None
    if track is None:
        around = crops
    if around is not None and session.looks:
        session.look(around[: session.looks])

    def pieces() -> Iterator[Tensor]:
        for start in range(0, len(crops), chunk):
            part = slice(start, start + chunk)
            yield session.push(crops[part]) if masks is None else session.push(crops[part], masks[part])
        yield session.close()

    ready = []
    for piece in pieces():
        ready.append(piece)
        on_frame(len(piece))
        if on_maps is not None:
            on_maps(session.maps())
    if session.note:
        on_note(session.note)
    return joined(ready)


def joined(parts: list[Tensor]) -> Tensor:
    """Restored crops in one tensor, which is an ordinary one where inference mode ended before: training may use it."""
    return torch.cat(parts) if parts else torch.empty(0, 3, CROP, CROP)


def batch_parameter(default: int) -> int:
    """The field `batch` of a method's options."""
    return parameter(default, 1, 64, unit="frames", advice="Frames at once; halved by itself when memory runs out.", advanced=True)


@dataclass(frozen=True)
class Cleaner:
    """What a session's crops go through before a network of `side`: nothing, where they are no larger than that.

    Attributes:
        push: of a session that cleans crops frame by frame; None leaves them as they are.
        cleaned: whether they are clean afterwards.
    """

    side: int
    push: Callable[[Tensor], Tensor] | None
    cleaned: bool

    def __call__(self, crops: Tensor) -> Tensor:
        return crops if self.push is None or crops.shape[-1] <= self.side else self.push(crops)

    def is_clean(self, crops: Tensor) -> bool:
        """Whether crops that came out of it are clean."""
        return self.cleaned and crops.shape[-1] > self.side


class NetworkRestorer(Restorer):
    """A restorer with a trained network, shared by all its sessions and never changed by them.

    Args:
        network: in eval mode.
        options: a frozen dataclass of the method's parameters; None is their defaults.
        place: where the network runs; None leaves it where it is.
    """

    options_type: ClassVar[type]

    def __init__(self, network: nn.Module, options: Any = None, *, place: Placement | None = None) -> None:
        self.network = network
        self.options = self.options_type() if options is None else options
        self.place = on(network, next(network.parameters()).device) if place is None else place
        self.precleaner: Restorer | None = None
        """What cleans the crops before this restorer sees them, without looking ahead (RealBasicVSR's word): small networks need it."""
        self.comes_cleaned = False
        """Whether another restorer cleaned them before, see `after_cleaning`."""

    @classmethod
    def of_file(cls, network: Any, options: Any = None, *, place: Placement | None = None, notes: Mapping[str, str]) -> Self:
        """The restorer of a loaded file, whose metadata may say where its weights want other values than the published ones."""
        return cls(network, options, place=place)

    @property
    def side(self) -> int:
        """Side of the faces that the network takes, in pixels."""
        config: Any = self.network.config
        return config.side

    @property
    def use(self) -> Use:
        """How its options use the network, for fine-tuning."""
        return Use()

    @property
    def own_warm_up(self) -> WarmUp:
        """`warm_up` of the method itself, whatever cleans its crops."""
        return WarmUp(before=sys.maxsize)

    @property
    def warm_up(self) -> WarmUp:  # type: ignore[override]
        return self.own_warm_up if self.precleaner is None else self.own_warm_up.over(self.precleaner.warm_up)

    def precleaned_by(self, precleaner: Restorer | None) -> Self:
        """The same restorer, over crops that `precleaner` cleaned."""
        other = copy(self)
        other.precleaner = precleaner
        return other

    def after_cleaning(self) -> Self:
        other = self.precleaned_by(None)
        other.comes_cleaned = True
        return other

    def cleaner(self, track: FaceTrack | None, check_interrupt: CheckInterrupt) -> Cleaner:
        """What a session's crops go through first: `precleaner`, in a session of its own, or nothing."""
        if self.precleaner is None:
            return Cleaner(self.side, None, self.comes_cleaned)
        return Cleaner(self.side, self.precleaner.open(track, check_interrupt=check_interrupt).push, True)

    def configured(self, **changes: Any) -> Self:
        """The same restorer with other parameters.

        Raises:
            ValueError: if a value is out of range.
            TypeError: if there is no such parameter.
        """
        other = copy(self)
        other.options = replace(self.options, **changes)
        return other


def to_network(crops: Tensor, side: int, device: torch.device) -> Tensor:
    """Square crops (n, 3, S, S) in [0, 1] as the network takes them: (n, 3, side, side) in [-1, 1], bilinear, on `device`.

    They are resized where they are, on the CPU: Apple's MPS averages over whole factors only.

    Raises:
        ValueError: for crops that are not square.
    """
    check_square(crops)
    x = resized(crops, side, "bilinear").to(device)
    return (x * 2 - 1).contiguous(memory_format=torch.channels_last)


def check_square(crops: Tensor) -> None:
    """Raises ValueError for crops that are not square."""
    if crops.shape[-1] != crops.shape[-2]:
        raise ValueError(
            f"face restorers take square crops, got {crops.shape[-1]} x {crops.shape[-2]} (width x height); cut the faces out with Face Align, or "
            "leave aligned off"
        )


def from_network(images: Tensor) -> Tensor:
    """A network's images, around [-1, 1], as restored crops: (n, 3, 512, 512) float32 in [0, 1] on the CPU."""
    return resized((images.float().clamp(-1, 1) + 1) / 2, CROP, "bicubic").clamp(0, 1).cpu().contiguous()


def resized(images: Tensor, side: int, mode: str) -> Tensor:
    """`images` at side x side; averaged over areas when that is smaller, by `mode` otherwise."""
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    if min(height, width) >= side:
        return F.interpolate(images, (side, side), mode="area")
    return F.interpolate(images, (side, side), mode=mode, align_corners=False)
