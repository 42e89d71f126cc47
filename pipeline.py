"""The restoration pipeline of a clip in bounded memory: decode, detect and track faces, restore each person, paste, encode.

The clip is decoded twice. The first pass detects and tracks faces and keeps only a few numbers per face, so that tracks are complete and smoothed
before anything is cropped. The second pass crops, restores, pastes and writes; it holds as many frames as the restorer's look-ahead, whatever
the clip's length. Decoding runs in its own thread beside the restorer's; so do pasting and encoding, together.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .faces import Detector, FaceTrack, Identity, Paster, TrackReport, align, find_tracks, reference_identity, report, select_tracks
from .faces.align import surroundings
from .faces.compositing.paste import Item
from .faces.detection.anisotropic_pixels import plausible
from .faces.tracking.tracks import CutDetector
from .methods.base import Restorer, Session
from .models.device import CheckInterrupt, no_check
from .plurals import counted
from .video import FrameChunk, FrameSource, ImageSink, ShotCutDetector, VideoSink
from .video.overlap import WriteBehind, read_ahead

CHUNK = 8
"""Frames decoded at a time."""

Progress = Callable[[int], None]
"""Called with the number of frames just finished."""


def no_progress(frames: int) -> None:
    """A `Progress` that does nothing."""


MOST_NOTES = 10
"""Notes that a summary's text lists; a film has one per face and shot."""


@dataclass(frozen=True)
class Summary:
    """The result for a clip. `faces` is None for aligned input; `notes` say what was found in each person's crops."""

    frames: int
    seconds: float
    method: str
    faces: TrackReport | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def closed(self, source: FrameSource, sink: VideoSink | ImageSink) -> Summary:
        """A copy with the warnings of the closed sink."""
        return replace(self, warnings=warnings_of(source, sink))

    def to_text(self) -> str:
        """A readable line, plus one per note (at most MOST_NOTES) and per warning."""
        noted, left = self.notes[:MOST_NOTES], len(self.notes) - MOST_NOTES
        more = [f"and {left:,} more, all in the report"] if left > 0 else []
        what = self.faces.to_text() if self.faces else counted(self.frames, "aligned frame")
        rate = self.frames / self.seconds if self.seconds else 0.0
        return "\n".join([f"{what}; {self.method}, {self.seconds:.1f} s ({rate:.2f} frames/s)", *noted, *more, *self.warnings])

    def to_dict(self) -> dict:
        """As plain data for JSON."""
        return {
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "method": self.method,
            "faces": self.faces.to_dict() if self.faces else None,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def warnings_of(source: FrameSource, sink: VideoSink | ImageSink) -> tuple[str, ...]:
    """Warnings on damage and losses; before decoding, those known from the headers."""
    return (*source.warnings, *sink.warnings)


def restore_clip_in_frames(
    source: FrameSource,
    sink: VideoSink | ImageSink,
    restorer: Restorer,
    detector: Detector,
    *,
    paster: Paster | None = None,
    faces: str = "all",
    like: Identity | None = None,
    min_size: float = 0.0,
    seed: int = 0,
    chunk: int = CHUNK,
    check_interrupt: CheckInterrupt = no_check,
    on_found: Progress = no_progress,
    on_written: Progress = no_progress,
    on_people: Callable[[list[FaceTrack], list[FaceTrack]], object] | None = None,
) -> Summary:
    """Restores the selected faces of a clip and writes every decoded frame with its time.

    Args:
        source: the clip, decoded twice.
        sink: takes the frames; the caller closes it.
        faces: "all", "largest", person ids such as "0,2", or "like:photo.jpg".
        like: reference identity; overrides `faces`.
        min_size: least face side in pixels that is restored.
        seed: the same seed gives the same pixels, whatever `chunk` is.
        chunk: frames decoded at a time.
        on_found, on_written: progress of the first and the second pass.
        on_people: called between the passes with all tracks and the selected ones.

    Raises:
        ValueError, OSError: before the work if `faces` or its photo is invalid, after the first pass if that person is not in the clip.

    >>> import tempfile
    >>> from .faces import load_detector
    >>> from .methods.flair.sampler import FlairRestorer
    >>> from .priors.load import load_prior
    >>> from .video import FrameTimes, open_sink, open_source
    >>> folder, times = tempfile.TemporaryDirectory(), FrameTimes.constant(2, 25)
    >>> with open_sink(f"{folder.name}/in.mkv", None, size=(64, 64), codec="ffv1") as sink:
    ...     sink.write(torch.full((2, 3, 64, 64), 0.5), times.starts, times.ends)
    >>> source = open_source(f"{folder.name}/in.mkv")
    >>> with open_sink(f"{folder.name}/out.mkv", source.info, codec="ffv1") as sink:
    ...     done = restore_clip_in_frames(source, sink, FlairRestorer(load_prior("gaussian")), load_detector("blazeface"))
    >>> done.frames, len(done.faces.people)
    (2, 0)
    """
    began = time.monotonic()
    like = reference_identity(faces) if like is None else like
    tracks = follow_faces(source, detector, chunk=chunk, check_interrupt=check_interrupt, on_frame=on_found)
    chosen = select_tracks(tracks, faces, min_size, like)
    if on_people is not None:
        on_people(tracks, chosen)
    frames = 0

    def paste_and_write(done: Restored | FrameChunk) -> None:
        piece = done.pasted() if isinstance(done, Restored) else done
        sink.write(piece.frames, piece.starts, piece.ends, piece.stored)

    with closing(read_ahead(source.chunks(chunk))) as pieces, WriteBehind(paste_and_write) as write:
        walk = Walk(chosen, restorer, paster or Paster(), seed=seed, check_interrupt=write.heard(check_interrupt))
        for piece in pieces:
            check_interrupt()
            for done in walk.restored(piece):
                write(done.pasted() if walk.paster.uses_networks else done)
                on_written(len(done))
            frames += len(piece.frames)
    if not walk.empty:
        raise RuntimeError(
            f"the second pass ended at frame {frames}, inside a face that the first pass saw longer; the file changed while it was read"
        )
    people = report(tracks, chosen, frames, min_size, walk.paster.level)
    return Summary(frames, time.monotonic() - began, restorer.name, people, warnings_of(source, sink), tuple(walk.notes))


def without_grain_if_denoised(paster: Paster, restorer: Restorer) -> Paster:
    """The paster without grain if the restorer's degradation has noise, which must not be restored as grain."""
    described = getattr(restorer, "degradation", None)
    return replace(paster, grain="off") if described is not None and described.noise_level > 0 else paster


def restore_aligned(
    source: FrameSource,
    sink: VideoSink | ImageSink,
    restorer: Restorer,
    *,
    seed: int = 0,
    chunk: int = CHUNK,
    check_interrupt: CheckInterrupt = no_check,
    on_written: Progress = no_progress,
) -> Summary:
    """Restores aligned crops of one person, without detection and pasting; writes 512 x 512 frames."""
    began = time.monotonic()
    times: deque = deque()
    frames = 0

    with closing(read_ahead(source.chunks(chunk))) as pieces, WriteBehind(sink.write) as write:
        session = restorer.open(None, seed=seed, check_interrupt=write.heard(check_interrupt))

        def deliver(restored: Tensor) -> None:
            if len(restored):
                shown = [times.popleft() for _ in range(len(restored))]
                write(restored, tuple(start for start, _ in shown), tuple(end for _, end in shown))
                on_written(len(restored))

        for piece in pieces:
            check_interrupt()
            times.extend(zip(piece.starts, piece.ends, strict=True))
            frames += len(piece.frames)
            if session.looks:
                session.look(piece.frames[: session.looks])
            deliver(session.push(piece.frames))
        if frames:
            deliver(session.close())
    notes = (session.note,) if session.note else ()
    return Summary(frames, time.monotonic() - began, restorer.name, None, warnings_of(source, sink), notes)


def follow_faces(
    source: FrameSource,
    detector: Detector,
    *,
    cuts: CutDetector | None = None,
    chunk: int = CHUNK,
    check_interrupt: CheckInterrupt = no_check,
    on_frame: Progress = no_progress,
    first: int = 0,
    **how: Any,
) -> list[FaceTrack]:
    """The first pass: smoothed tracks of every person in every shot, for upright crops in display space.

    Args:
        first: index of the source's first frame; above 0 if `resume` continues an earlier pass.
        how: `keep` and `resume` of `find_tracks`.
    """
    with closing(read_ahead(source.chunks(chunk, first))) as pieces:

        def checked() -> Iterator[tuple[int, Tensor]]:
            for piece in pieces:
                check_interrupt()
                yield piece.index, piece.frames

        aspect = plausible(float(source.info.sample_aspect))
        return find_tracks(checked(), detector, cuts or ShotCutDetector(), aspect=aspect, on_frame=on_frame, **how)


def aligned_crops(piece: FrameChunk, track: FaceTrack, begin: int) -> Tensor:
    """Crops (n, 3, 512, 512) of a track from the frames of `piece`, from frame `begin` of the clip; the two must overlap."""
    first, stop = max(piece.index, begin), min(piece.index + len(piece.frames), track.stop)
    return align(piece.frames[first - piece.index : stop - piece.index], track, first)


@dataclass
class OpenTrack:
    """A track in progress: its session, original crops not yet pasted, and restored crops."""

    track: FaceTrack
    session: Session
    begin: int
    """First frame of the session."""
    original: Tensor = field(default_factory=lambda: torch.empty(0))
    restored: Tensor = field(default_factory=lambda: torch.empty(0))
    pasted: int = field(init=False)
    """Index of the first frame not yet pasted."""

    def __post_init__(self) -> None:
        self.pasted = self.begin

    def push(self, piece: FrameChunk) -> None:
        """Pushes this track's crops from `piece` through the session, and closes it at the end of the track."""
        crops = aligned_crops(piece, self.track, self.begin)
        self.original = concatenated(self.original, crops)
        if self.session.looks:
            first = max(piece.index, self.begin)
            seen = piece.frames[first - piece.index :][: min(self.session.looks, len(crops))]
            self.session.look(surroundings(seen, self.track, first))
        self.restored = concatenated(self.restored, self.session.push(crops))
        if piece.index + len(piece.frames) >= self.track.stop:
            self.restored = concatenated(self.restored, self.session.close())

    def ready(self, piece: FrameChunk) -> bool:
        """Whether all restored crops for the frames of `piece` are available."""
        stop = min(piece.index + len(piece.frames), self.track.stop)
        return self.begin >= stop or self.pasted + len(self.restored) >= stop

    def take(self, stop: int) -> Item:
        """Removes and returns the track's restored and original crops up to frame `stop`."""
        n = min(stop, self.track.stop) - self.pasted
        taken = self.track, self.restored[:n], self.original[:n]
        self.restored, self.original, self.pasted = self.restored[n:].clone(), self.original[n:].clone(), self.pasted + n
        return taken


def session_start(track: FaceTrack, restorer: Restorer, first: int) -> int:
    """First frame of a track's session if frames from `first` on are wanted: earlier by the restorer's warm-up."""
    return track.start + (restorer.warm_up.begin(first - track.start) if first > track.start else 0)


class Walk:
    """The second pass without I/O: chunks of frames in, chunks of finished frames out, in order.

    Args:
        first: the first wanted frame. Earlier ones, from `session_start`, only warm up sessions; no chunk has frames on both sides.
    """

    def __init__(
        self,
        tracks: list[FaceTrack],
        restorer: Restorer,
        paster: Paster,
        *,
        seed: int = 0,
        first: int = 0,
        check_interrupt: CheckInterrupt = no_check,
    ) -> None:
        known = [replace(track, repainted=restorer.repaints(track), output_scale=paster.scale) for track in tracks]
        starts = [(session_start(track, restorer, first), track) for track in known]
        self.upcoming = deque(sorted(starts, key=lambda pair: pair[0]))
        self.first = first
        self.open_tracks: list[OpenTrack] = []
        self.buffered: deque[FrameChunk] = deque()
        self.restorer, self.paster = restorer, without_grain_if_denoised(paster, restorer)
        self.seed, self.check_interrupt = seed, check_interrupt
        self.notes: list[str] = []

    def push(self, piece: FrameChunk) -> Iterator[FrameChunk]:
        """As `restored`, with each chunk pasted lazily; the iterator must be exhausted."""
        for done in self.restored(piece):
            pasted = done.pasted()
            yield pasted
            del pasted  # free enlarged frames before the next are made

    def restored(self, piece: FrameChunk) -> Iterator[Restored]:
        """Takes the next frames and yields the chunks whose faces are all restored, in order; the iterator must be exhausted.

        Takes ownership of the frames: faces are written into them.
        """
        stop = piece.index + len(piece.frames)
        while self.upcoming and self.upcoming[0][0] < stop:
            begin, track = self.upcoming.popleft()
            common: dict[str, Any] = dict(seed=self.seed, check_interrupt=self.check_interrupt)
            whole = begin == track.start
            session = self.restorer.open(track, **common) if whole else self.restorer.resume(track, begin - track.start, **common)
            self.open_tracks.append(OpenTrack(track, session, begin))
        for person in self.open_tracks:
            if person.track.stop > piece.index:
                person.push(piece)
        self.buffered.append(piece)
        return self._finished()

    @property
    def empty(self) -> bool:
        """Whether all frames have come out."""
        return not self.buffered

    def _finished(self) -> Iterator[Restored]:
        while self.buffered and all(person.ready(self.buffered[0]) for person in self.open_tracks):
            for piece in split_chunk(self.buffered.popleft(), self.paster):
                items = self._take(piece)
                if piece.index >= self.first:  # earlier ones only warmed up sessions
                    yield Restored(piece, items, self.paster)

    def _take(self, piece: FrameChunk) -> list[Item]:
        """Removes and returns the faces of a chunk, and drops the tracks that end in it."""
        stop = piece.index + len(piece.frames)
        items = [person.take(stop) for person in self.open_tracks if person.begin < stop]
        ended = [person for person in self.open_tracks if person.pasted >= person.track.stop]
        noted = [(one.track, self.paster.reason_unchanged(one.track) or one.session.note) for one in ended]
        self.notes += [f"person {track.person}, frame {track.start:,} on: {note}" for track, note in noted if note]
        self.open_tracks = [person for person in self.open_tracks if person.pasted < person.track.stop]
        return items


@dataclass(frozen=True, eq=False)
class Restored:
    """Frames with their restored faces, not yet pasted."""

    piece: FrameChunk
    items: list[Item]
    paster: Paster

    def __len__(self) -> int:
        return len(self.piece)

    def pasted(self) -> FrameChunk:
        """The frames with the faces pasted. Call once; in any thread, unless the paster runs networks."""
        frames = self.paster.paste_over(self.piece.frames, self.piece.index, self.items)
        return replace(self.piece, frames=frames, stored=unchanged_stored(self.piece, [track for track, _, _ in self.items]))


def split_chunk(piece: FrameChunk, paster: Paster) -> Iterator[FrameChunk]:
    """A chunk split into pieces of at most `Paster.at_once` frames."""
    size = paster.at_once(*piece.frames.shape[-2:])
    for begin in range(0, len(piece), size):
        part = slice(begin, begin + size)
        yield FrameChunk(piece.index + begin, piece.frames[part], piece.starts[part], piece.ends[part], piece.stored[part])


def unchanged_stored(piece: FrameChunk, tracks: list[FaceTrack]) -> tuple[Any, ...]:
    """The stored form of each frame without a track, which a sink may write unchanged; None for the others."""
    return tuple(
        None if any(track.start <= number < track.stop for track in tracks) else stored for number, stored in enumerate(piece.stored, piece.index)
    )


def concatenated(first: Tensor, second: Tensor) -> Tensor:
    """torch.cat of two batches, without copying if one is empty."""
    return second if not len(first) else first if not len(second) else torch.cat([first, second])
