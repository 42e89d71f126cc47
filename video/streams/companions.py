"""Tags, chapters, subtitles, timecode and attachments: copied if the container allows, else reported as lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from typing import Any

import av
from av.stream import Disposition

from ...plurals import counted
from ..errors import VideoError
from ..files import STILL, Place, open_input, picture_stream
from ..info import SourceInfo
from ..reading.health import readable
from ..reading.probe import codec_name
from .audio import copy_stream_metadata, plan_lanes
from .sound import Sound, file_of

SUBTITLES = {
    "mp4": {"mov_text"},
    "mov": {"mov_text"},
    "matroska": {"subrip", "srt", "ass", "ssa", "webvtt", "hdmv_pgs_subtitle", "pgssub", "dvd_subtitle", "dvdsub"},
    "webm": {"webvtt"},
}
"""Subtitle codecs that each container takes, by names of codecs and decoders."""

PLAIN_TAGS = frozenset(
    ("title", "artist", "album", "album_artist", "composer", "comment", "date", "copyright", "genre", "creation_time", "location", "timecode")
)
"""Tags with boxes of their own in MP4 and MOV; with any other tag, all go into the list of named tags."""

COVERS = {"mjpeg": "jpg", "png": "png"}
"""Codecs of cover pictures that players read, and their file suffixes."""
MIME_TYPES = {"jpg": "image/jpeg", "png": "image/png"}

MAX_TIMECODE_RATE = 255
"""Maximum frame rate of a timecode track; FFmpeg fails to finish a file with more."""

TECHNICAL = re.compile(r"major_brand|minor_version|compatible_brands|encoder|duration|handler_name|vendor_id|alpha_mode|_statistics_.*|language")
"""Tags that describe the file rather than the clip."""


@dataclass(frozen=True)
class Companions:
    """Metadata and streams of a file besides picture and sound.

    Attributes:
        tags: of the file.
        picture: title and language of the video stream.
        timecode: of the first frame, such as 01:00:00:00.
        chapters: as PyAV gives them.
        subtitles: codec and language of each track.
        covers: codec of each cover picture.
        attachments: name of each attached file, such as the fonts of subtitles.
        others: names of streams that no copy keeps.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    picture: Mapping[str, str] = field(default_factory=dict)
    timecode: str | None = None
    chapters: tuple[Mapping[str, Any], ...] = ()
    subtitles: tuple[tuple[str, str], ...] = ()
    covers: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def taken(self, container: str) -> list[int]:
        """Indices of the subtitle tracks that a container takes."""
        return [index for index, (codec, _) in enumerate(self.subtitles) if codec in SUBTITLES[container]]

    def losses(self, container: str | None) -> list[str]:
        """Descriptions of what a copy in `container` (None: images) will lack."""
        lost = [index for index in range(len(self.subtitles)) if container is None or index not in self.taken(container)]
        named = [f"subtitle track {index + 1} ({', '.join(filter(None, self.subtitles[index]))})" for index in lost]
        if container is None:
            named += [f"its {counted(len(self.chapters), 'chapter')}"] * bool(self.chapters)
            named += [f"its tags ({', '.join(self.tags)})"] * bool(self.tags)
            named += [f"its timecode {self.timecode}"] * bool(self.timecode)
        elif self.chapters and not hasattr(av.container.OutputContainer, "set_chapters"):
            named.append(f"its {counted(len(self.chapters), 'chapter')}, which this PyAV cannot write")
        covers = sum(not takes_cover(container, codec) for codec in self.covers)
        named += ["its cover picture" if covers == 1 else f"its {covers} cover pictures"] * bool(covers)
        if not takes_attachments(container):
            named += [f"the attached file {name}".rstrip() for name in self.attachments]
        return [*named, *self.others]


def companions_of(place: Place) -> Companions:
    """Companions of a video file by its header. Raises VideoError if it cannot be opened."""
    with open_input(place) as container:
        picture = picture_stream(container)
        chapters = tuple(container.chapters()) if hasattr(container, "chapters") else ()
        tags = clip_tags(container.metadata)
        timecode = tags.pop("timecode", None) or next((one for stream in container.streams if (one := stream.metadata.get("timecode"))), None)
        subtitles = []
        for stream in container.streams.subtitles:
            codec = "of unknown codec" if stream.codec_context is None else codec_name(stream.codec_context)
            language = stream.metadata.get("language", "")
            subtitles.append((codec, "" if language == "und" else language))
        covers, attachments, others = [], [], []
        for stream in container.streams:
            if stream.type == "video" and picture is not None and stream.index != picture.index:
                if container.metadata.get("major_brand") == "avis":
                    continue  # a still picture of the animation
                if stream.disposition & STILL:
                    covers.append(cover_codec(stream))
                else:
                    others.append(f"video track {stream.index + 1}")
            elif stream.type == "attachment":
                attachments.append(stream.metadata.get("filename", ""))
            elif stream.type == "data" and "timecode" not in stream.metadata and not (chapters and holds_chapters(stream, len(chapters))):
                others.append(f"data track {stream.index + 1} ({stream.metadata.get('handler_name', 'of unknown kind').strip()})")
        own = {} if picture is None else {key: picture.metadata[key] for key in ("title", "language") if key in picture.metadata}
        return Companions(tags, own, timecode, chapters, tuple(subtitles), tuple(covers), tuple(attachments), tuple(others))


def holds_chapters(stream: Any, count: int) -> bool:
    """Whether an MP4 data track is the text of `count` chapters; headers of fragmented files (OBS) do not count samples."""
    return stream.frames == count or (stream.name == "bin_data" and not stream.frames)


def cover_codec(stream: Any) -> str:
    """Codec of a cover picture; empty for other pictures, such as timed thumbnails."""
    once = stream.disposition & Disposition.attached_pic and stream.codec_context is not None
    return stream.codec_context.name if once else ""


def takes_attachments(container: str | None) -> bool:
    return container == "matroska" and hasattr(av.container.OutputContainer, "add_attachment")


def takes_cover(container: str | None, codec: str) -> bool:
    """Whether a container takes a cover picture: MP4 as a tag, Matroska as an attachment."""
    return codec in COVERS and (container == "mp4" or takes_attachments(container))


def add_attached(place: Place, container: str, output: Any) -> list[Any]:
    """Adds supported attachments and cover pictures to an output; returns packets to write after its header."""
    packets: list[Any] = []
    with open_input(place) as source:
        if takes_attachments(container):
            for stream in source.streams:
                if stream.type == "attachment":
                    kind = stream.mimetype or "application/octet-stream"
                    output.add_attachment(stream.name or f"attachment {stream.index}", kind, bytes(stream.data or b""))
        covers = [stream for stream in source.streams.video if takes_cover(container, cover_codec(stream))]
        demuxed = readable(source.demux(covers)) if covers else iter(())
        found: Iterator[Any] = (packet for packet in demuxed if packet.size)
        for packet in islice(found, len(covers)):  # they come before all others
            if container == "mp4":
                target = output.add_stream_from_template(packet.stream)
                target.disposition = Disposition.attached_pic.value
                packet.stream = target
                packets.append(packet)
            else:
                suffix = COVERS[packet.stream.codec_context.name]
                output.add_attachment(packet.stream.metadata.get("filename", f"cover.{suffix}"), MIME_TYPES[suffix], bytes(packet))
    return packets


def losses_of(place: Place, container: str) -> list[str]:
    """Descriptions of what a copy of a video file in `container` will lack. Raises VideoError if it cannot be opened."""
    return [*companions_of(place).losses(container), *plan_lanes(place, container)[1]]


def kept_companions(
    like: SourceInfo | None, sound: Sound | None, container: str | None, warn: Callable[[str], None], name: str, *more: str
) -> Companions:
    """The companions of the file of `like`; warns once of everything that `container` (None: images) cannot carry.

    Args:
        sound: source of the sound.
        name: output's name.
        more: further losses.
    """
    lost = [*more, *(like.lost if like is not None else ())]
    companions = Companions()

    def losses(container: str | None) -> list[str]:
        if sound is not None and sound.track is not None:
            return [*companions.losses(container), *([] if container else ["its sound"])]
        return [*companions.losses(container), *(plan_lanes(sound.place, container)[1] if sound is not None and sound.place is not None else ())]

    more_in_mkv = False
    try:
        if like is not None and (place := file_of(like)) is not None:
            companions = companions_of(place)
            if companions.timecode and container in ("mp4", "mov") and round(like.rate) > MAX_TIMECODE_RATE:
                lost.append(f"its timecode {companions.timecode}, which {container} cannot count at {round(like.rate)} frames a second")
                companions = replace(companions, timecode=None)
        gone = losses(container)
        lost += gone
        more_in_mkv = container is not None and bool(gone) and len(losses("matroska")) < len(gone)
    except VideoError as error:
        lost.append(f"what its source carries beside the picture ({error})")
    if lost:
        warn(f"{name} will not have: {'; '.join(lost)}{'; an .mkv file keeps more' if more_in_mkv else ''}")
    return companions


def clip_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """The tags that describe the clip rather than its file, without the per-language duplicates that FFmpeg adds."""
    named = {key.lower() if key.lower() in PLAIN_TAGS else key: value for key, value in metadata.items()}
    if (time := named.get("creation_time", "").split(";"))[1:] == time[:1]:  # FFmpeg 9 reads it from MP4's header and from its list of tags
        named["creation_time"] = time[0]
    kept = {key: value for key, value in named.items() if not TECHNICAL.fullmatch(key.lower())}
    return {key: value for key, value in kept.items() if not (re.fullmatch(r".+-[a-z]{3}", key) and kept.get(key[:-4]) == value)}


def moved_chapters(chapters: tuple[Mapping[str, Any], ...], origin: Fraction, length: Fraction | None) -> list[Any]:
    """Chapters shifted by -`origin` seconds and clipped to [0, length)."""
    moved = []
    for chapter in chapters:
        base = chapter["time_base"]
        start, end = (chapter[name] * base - origin for name in ("start", "end"))
        start, end = max(start, Fraction(0)), end if length is None else min(end, length)
        if end > start:
            moved.append({**chapter, "start": round(start / base), "end": round(end / base)})
    return moved


def advance_timecode(timecode: str, frames: int, rate: Fraction) -> str:
    """The timecode `frames` later; a semicolon marks drop-frame counting (SMPTE 12M).

    >>> advance_timecode("00:00:59;29", 1, Fraction(30000, 1001))
    '00:01:00;02'
    """
    numbers = re.fullmatch(r"(\d+):(\d+):(\d+)([:;.])(\d+)", timecode)
    if not numbers or not frames:
        return timecode
    hours, minutes, seconds, mark, last = (one if one in ":;." else int(one) for one in numbers.groups())
    base = round(rate)
    dropped = 0 if mark == ":" else max(1, base // 30) * 2
    minute, ten = 60 * base - dropped, 600 * base - 9 * dropped
    total = 60 * int(hours) + int(minutes)
    count = (total * 60 + int(seconds)) * base + int(last) - dropped * (total - total // 10) + frames
    tens, rest = divmod(count, ten)
    passed = 0 if rest < 60 * base else 1 + (rest - 60 * base) // minute
    count += dropped * (9 * tens + passed)
    seconds, last = divmod(count, base)
    return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{last:02}"


class SubtitleLane:
    """Copies the packets of a subtitle stream, shifted by -`origin` seconds and clipped to [0, end) if `end` is known."""

    def __init__(self, place: Place, index: int, output: Any, origin: Fraction, end: Fraction | None) -> None:
        self.input = open_input(place)
        self.output, self.origin, self.end = output, origin, end
        stream = self.input.streams.subtitles[index]
        self.target = output.add_stream_from_template(stream)
        copy_stream_metadata(self.target, stream)
        self.packets = self.kept(stream)
        self.waiting: Any = None

    def kept(self, stream: Any) -> Iterator[Any]:
        for packet in readable(self.input.demux(stream)):
            if not packet.size or packet.pts is None:
                continue
            start = packet.pts - round(self.origin / packet.time_base)
            length = packet.duration or 0
            if start + length <= 0 and start < 0:
                continue
            packet.pts = packet.dts = max(0, start)
            packet.duration = length + min(0, start)
            yield packet

    def pump(self, until: Fraction | None) -> None:
        """Writes the packets that start before `until` (output seconds); all if None."""
        while True:
            self.waiting = self.waiting or next(self.packets, None)
            if self.waiting is None or (until is not None and self.waiting.pts * self.waiting.time_base >= until):
                return
            packet, self.waiting = self.waiting, None
            if self.end is not None:
                packet.duration = max(1, min(packet.duration, round(self.end / packet.time_base) - packet.pts))
            packet.stream = self.target
            self.output.mux(packet)

    def finish(self, end: Fraction | None) -> None:
        self.end = end if end is not None else self.end
        self.pump(end)

    def close(self) -> None:
        self.input.close()
