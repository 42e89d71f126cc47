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
from ..resampling import interpolated, pooled


class Session(ABC):
    """The restoration of one person in one shot: crops in, in order; restored crops out, in order.

    Crops are (n, 3, H, W) float32 RGB in [0, 1], n >= 1, normally 512 x 512. Each call returns (m, 3, 512, 512); m may be 0 where the
    method looks ahead. Over a session as many frames come out as went in, however they were chunked.

    Attributes:
        note: a sentence for the user about this person's damage and how it was restored; "" until there is something to say.
    """

    note: str = ""
    looks: int = 0
    """How many more frames' surroundings it wants to see before it gets their crops; see `look`."""
    return_maps = False
    """Whether `maps` is wanted: set it before the first push."""

    def look(self, around: Tensor) -> None:  # noqa: B027 - most have no use for it
        """Takes the surroundings of the face in the next frames (`FaceClip.around`), if they are known; called while `looks` is above 0."""

    @abstractmethod
    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        """Takes the next crops and returns the restored ones that are ready.

        Args:
            masks: (n, 1, H, W), 1 where pixels are missing; for restorers with "masks" in `supports`.

        Raises:
            ValueError: if crops or masks do not have these shapes, or masks come to a restorer that takes none.
        """

    @abstractmethod
    def close(self) -> Tensor:
        """Ends the clip and returns all crops that were still held back."""

    def maps(self) -> dict[str, Tensor]:
        """Maps of the crops returned since the last call, (m, 1, 512, 512) in [0, 1] by name; empty unless `return_maps` is set."""
        return {}


Capability = Literal["masks", "uncertainty", "single_frames", "steps", "optical_flow"]
"""masks: `Session.push` takes them. uncertainty: `Session.maps` holds it. single_frames: no frame changes another. steps: `reporting` and `units` say
more than frames do. optical_flow: `guided_by` takes another source of motion."""


@dataclass(frozen=True)
class WarmUp:
    """Where a session that restores part of a track must begin, so that this part equals the same frames of the whole track.

    Attributes:
        before: frames that the session must see before the first one that is kept.
        every: the session begins at a multiple of this many frames, where the blocks of the whole track begin.
        exact: whether the kept frames are bit-identical to the whole track's; if not, their PSNR against those is at least 50 dB.
    """

    before: int = 0
    every: int = 1
    exact: bool = True

    def begin(self, first: int) -> int:
        """The frame of the track at which a session begins that keeps frames from `first` on."""
        return max(0, first - self.before) // self.every * self.every

    def over(self, precleaner: WarmUp) -> WarmUp:
        """The warm-up of this method on top of one that cleans its crops first."""
        return WarmUp(self.before + precleaner.before, lcm(self.every, precleaner.every), self.exact and precleaner.exact)


class Restorer(ABC):
    """A method with its weights and parameters; immutable, shared by any number of sessions.

    Attributes:
        name: the method's name as the command line and reports show it.
        look_ahead: at most how many crops a session holds back.
        supports: what it can do beyond restoring crops; depends on its options.
        units: progress units per frame.
        warm_up: what restoring only a part of a track needs; by default all frames before it, which is exact for every method.
        fingerprint: identifies weights that were not read from a file by this package, so that a resumed job can check them; "" otherwise.
    """

    name: str
    look_ahead: int = 0
    supports: frozenset[Capability] = frozenset()
    warm_up: WarmUp = WarmUp(before=sys.maxsize)
    units: int = 1
    fingerprint: str = ""

    def repaints(self, track: FaceTrack | None = None) -> bool:
        """Whether a network synthesises the whole face, and so may paint over what occludes it."""
        return False

    @abstractmethod
    def open(self, track: FaceTrack | None = None, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        """Starts one person's clip. `track` is None for frames that are already aligned."""

    def resume(self, track: FaceTrack | None, first: int, *, seed: int = 0, check_interrupt: CheckInterrupt = no_check) -> Session:
        """Starts in the middle of a clip, at frame `first` of the track; `first` must be a beginning that `warm_up` allows."""
        return self.open(track, seed=seed, check_interrupt=check_interrupt)

    def after_cleaning(self) -> Restorer:
        """The same restorer for crops that the blind one has cleaned already."""
        return self

    def reporting(self, on_step: Callable[[Any], None]) -> Restorer:
        """The same restorer, which calls `on_step` after every step (with `frames` and `preview`); for those with "steps" in `supports`."""
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
        around: surroundings of the face in the first frames; without a track the crops themselves serve.
        chunk: frames pushed at a time; None is 8, or the method's batch size if that is larger.
        on_frame: called with the number of frames that have just been finished.
        on_maps: called with Session.maps of each piece; None asks for no maps.
        on_note: called with Session.note at the end, unless it is empty.
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
    """Restored crops in one tensor. Outside inference mode it is an ordinary tensor, which training can use."""
    return torch.cat(parts) if parts else torch.empty(0, 3, CROP, CROP)


def batch_parameter(default: int) -> int:
    """The field `batch` of a method's options."""
    return parameter(default, 1, 64, unit="frames", advice="Frames at once; halved by itself when memory runs out.", advanced=True)


@dataclass(frozen=True)
class Cleaner:
    """Cleans a session's crops before a network of `side` sees them; crops that are no larger than that are left as they are.

    Attributes:
        push: of a session that cleans crops frame by frame; None leaves all crops as they are.
        cleaned: whether larger crops are clean afterwards.
    """

    side: int
    push: Callable[[Tensor], Tensor] | None
    cleaned: bool

    def __call__(self, crops: Tensor) -> Tensor:
        return crops if self.push is None or crops.shape[-1] <= self.side else self.push(crops)

    def is_clean(self, crops: Tensor) -> bool:
        """Whether crops that this returned are clean."""
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
        """Cleans the crops before this restorer sees them, without looking ahead; small networks need it. The term is RealBasicVSR's."""
        self.comes_cleaned = False
        """Whether the crops that come in were cleaned by another restorer; see `after_cleaning`."""

    @classmethod
    def of_file(cls, network: Any, options: Any = None, *, place: Placement | None = None, notes: Mapping[str, str]) -> Self:
        """The restorer of a loaded file; `notes` are the file's metadata, which may ask for other settings than the published weights need."""
        return cls(network, options, place=place)

    @property
    def side(self) -> int:
        """Side of the faces that the network takes, in pixels."""
        config: Any = self.network.config
        return config.side

    @property
    def use(self) -> Use:
        """How the network is used under the present options; fine-tuning trains for that."""
        return Use()

    @property
    def own_warm_up(self) -> WarmUp:
        """`warm_up` of the method itself, without the pre-cleaner."""
        return WarmUp(before=sys.maxsize)

    @property
    def warm_up(self) -> WarmUp:  # type: ignore[override]
        return self.own_warm_up if self.precleaner is None else self.own_warm_up.over(self.precleaner.warm_up)

    def precleaned_by(self, precleaner: Restorer | None) -> Self:
        """The same restorer with `precleaner` in front of it; None removes the present one."""
        other = copy(self)
        other.precleaner = precleaner
        return other

    def after_cleaning(self) -> Self:
        other = self.precleaned_by(None)
        other.comes_cleaned = True
        return other

    def cleaner(self, track: FaceTrack | None, check_interrupt: CheckInterrupt) -> Cleaner:
        """The cleaner of a new session: `precleaner` in a session of its own, or nothing."""
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
    """Square crops (n, 3, S, S) in [0, 1] as network input: (n, 3, side, side) in [-1, 1] on `device`; see `resized`.

    They are resized before they move to `device`, because Apple's MPS supports area averaging for whole factors only.

    Raises:
        ValueError: for crops that are not square.
    """
    check_square(crops)
    x = resized(crops, side, "bilinear").to(device)
    return (x * 2 - 1).contiguous(memory_format=torch.channels_last)


SQUARE = "crops of aligned faces are square; cut them out with Face Align first"


def check_square(crops: Tensor) -> None:
    """Raises ValueError for crops (..., H, W) that are not square."""
    height, width = crops.shape[-2:]
    if height != width:
        raise ValueError(
            f"got pictures of {width} x {height} pixels, but {SQUARE}, or take Restore Frames, which pastes them too, or leave aligned off"
        )


def from_network(images: Tensor) -> Tensor:
    """A network's images, around [-1, 1], as restored crops: (n, 3, 512, 512) float32 in [0, 1] on the CPU."""
    return resized((images.float().clamp(-1, 1) + 1) / 2, CROP, "bicubic").clamp(0, 1).cpu().contiguous()


def resized(images: Tensor, side: int, mode: str) -> Tensor:
    """`images` at side x side: averaged over areas where both sides shrink, interpolated by `mode` otherwise."""
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    if min(height, width) >= side:
        return pooled(images, height // side) if height == width and height % side == 0 else F.interpolate(images, (side, side), mode="area")
    return interpolated(images, (side, side), mode)
