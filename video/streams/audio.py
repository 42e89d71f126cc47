"""Sound: packets are copied if the container takes their codec, else encoded again, always in sync."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray
from torch import Tensor

from ..errors import VideoError
from ..files import Place, duration_of, once_per_version, open_input, presentation_time
from ..reading.health import readable
from ..reading.probe import codec_name, has_sound, origin_of
from ..reading.timestamp_discontinuity import MAY_JUMP, RunningClock, can_seek, no_warning, shares_times

COPIED_CODECS = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "adpcm_ima_qt", "pcm_s8", "pcm_u8", "pcm_alaw", "pcm_mulaw"}
    | {f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")},
    "matroska": {"aac", "mp2", "mp3", "ac3", "eac3", "alac", "flac", "opus", "vorbis", "dts", "truehd", "mlp", "wavpack", "tta", "pcm_u8"}
    | {f"pcm_{kind}" for kind in ("s16le", "s24le", "s32le", "s16be", "s24be", "s32be", "f32le", "f64le")},
    "webm": {"opus", "vorbis"},
}
"""Audio codecs that players expect in each container; others become AAC, or Opus in WebM."""

ENCODER_RATES = {"aac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000), "libopus": (48000,)}
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Layouts by number of channels, for unnamed layouts and those an encoder does not have."""

ENCODER_LAYOUTS = {"aac": {"mono", "stereo", "3.0", "4.0", "quad", "5.0", "5.1", "7.1", "7.1(wide)"}, "libopus": set(LAYOUTS.values())}
"""Layouts that each encoder keeps."""

ENCODER_NAMES = {"aac": "AAC", "libopus": "Opus"}
BLOCK_SAMPLES = 1024
MAX_PRIMING = Fraction(1, 10)
"""Maximum encoder delay before a stream's beginning in seconds: Apple's AAC has 2112 samples."""


def no_check() -> None:
    """Never interrupts."""


@dataclass(frozen=True)
class Callbacks:
    """For long work on sound: `check_interrupt` is called regularly and may raise, `warn` receives sentences about damage."""

    check_interrupt: Callable[[], object] = no_check
    warn: Callable[[str], None] = no_warning


@dataclass(frozen=True, eq=False)
class AudioTrack:
    """Sound that begins with the first frame: waveform (C, S) in [-1, 1] at `rate` samples per second."""

    waveform: Tensor
    rate: int

    def __post_init__(self) -> None:
        if self.waveform.dim() != 2 or not 1 <= self.waveform.shape[0] <= 8 or self.rate < 1:
            raise VideoError(f"audio must be (channels, samples) with 1 to 8 channels and a rate, got {tuple(self.waveform.shape)} at {self.rate}")
        if self.waveform.sum().isnan():
            raise VideoError("the audio holds values that are no numbers (NaN): what made it failed, often in half precision; run that in float32")

    @property
    def duration(self) -> Fraction:
        return Fraction(self.waveform.shape[1], self.rate)

    def part(self, start: Fraction, end: Fraction | None = None) -> AudioTrack:
        """The sound from `start` >= 0 to `end` in seconds."""
        return AudioTrack(self.waveform[:, round(start * self.rate) : None if end is None else round(end * self.rate)], self.rate)


class CopiedLane:
    """Copies the packets of an audio stream in [origin, end), shifted by -`origin` seconds."""

    def __init__(self, place: Place, index: int, output: Any, origin: Fraction, *, edits: bool, callbacks: Callbacks) -> None:
        self.place, self.callbacks, self.edits = place, callbacks, edits
        self.input = open_input(place)
        self.stream = self.input.streams.audio[index]
        self.output = output
        self.target = output.add_stream_from_template(self.stream)
        self.origin = origin
        self.first = origin - Fraction(1, 10) if edits and origin > 0 else origin
        self.packets = self.timed(self.kept())
        self.waiting: Any = None
        self.written: int | None = None

    def kept(self) -> Iterator[Any]:
        """The packets to write, on a clock continuous across discontinuities."""
        clock = RunningClock(self.place, self.input, sound=True, warn=self.callbacks.warn)
        if self.first > origin_of(self.input) + 1 and can_seek(self.input, self.place) and not shares_times(self.input, self.place):
            self.input.seek(int((self.first - 1) / self.stream.time_base), stream=self.stream)
            clock.reset()
        for packet in self.shown(self.input.demux(self.stream)):
            stated = presentation_time(packet)
            if not packet.size or stated is None:
                continue
            start = clock(stated, duration_of(packet))
            if self.origin <= 0 or start >= self.first:
                packet.pts += round(clock.offset / packet.time_base)
                yield packet

    def timed(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Sets missing durations, as in Matroska: MP4 drops a last packet without a duration."""
        held: Any = None
        for packet in packets:
            if held is not None:
                held.duration = held.duration or max(0, packet.pts - held.pts)
                yield held
            held = packet
        if held is not None:
            held.duration = held.duration or self.decoded_length(held)
            yield held

    def decoded_length(self, packet: Any) -> int:
        """Duration of a packet in ticks by decoding it; 0 if it does not decode."""
        with suppress(av.FFmpegError):
            samples = sum(frame.samples for frame in (*packet.decode(), *self.stream.decode(None)))
            return math.ceil(Fraction(samples, self.stream.codec_context.sample_rate) / packet.time_base)
        return 0

    def shown(self, demuxed: Iterator[Any]) -> Iterator[Any]:
        """Packets up to the first unreadable one. If the output has no edit list, those hidden by the source's are dropped, except the
        priming packets that a decoder needs to start.
        """
        hidden: list[Any] = []
        for packet in readable(demuxed):
            if packet.is_discard and not self.edits:
                hidden.append(packet)
                continue
            if sum(map(duration_of, hidden)) <= MAX_PRIMING:
                yield from hidden
            hidden = []
            yield packet

    def pump(self, until: Fraction | None) -> None:
        """Writes the packets that start before `until` (output seconds); all if None."""
        while True:
            self.callbacks.check_interrupt()
            self.waiting = self.waiting or next(self.packets, None)
            if self.waiting is None or (until is not None and self.waiting.pts * self.waiting.time_base - self.origin >= until):
                return
            packet, self.waiting = self.waiting, None
            offset = round(self.origin / packet.time_base)
            packet.pts -= offset
            packet.dts = packet.pts
            if self.written is not None and packet.dts <= self.written:
                continue  # what overlaps at a join
            self.written = packet.dts
            packet.stream = self.target
            self.output.mux(packet)

    def finish(self, end: Fraction | None) -> None:
        self.pump(end)

    def close(self) -> None:
        self.input.close()


class EncodedLane:
    """Encodes blocks of samples, each with the number of its first sample, as AAC or Opus."""

    def __init__(self, blocks: Iterator[tuple[int, NDArray]], rate: int, layout: str, encoder: str, output: Any, callbacks: Callbacks) -> None:
        self.callbacks = callbacks
        self.rate = supported_rate(rate, ENCODER_RATES[encoder])
        self.blocks = resampled(blocks, rate, self.rate, layout)
        self.output = output
        self.layout = layout
        self.target = output.add_stream(encoder, rate=self.rate, layout=layout)
        self.target.codec_context.bit_rate = 96_000 * max(1, self.target.codec_context.layout.nb_channels)
        self.waiting: tuple[int, NDArray] | None = None

    def pump(self, until: Fraction | None) -> None:
        """Encodes whole blocks that end before `until` (output seconds); all if None."""
        while True:
            self.callbacks.check_interrupt()
            self.waiting = self.waiting or next(self.blocks, None)
            if self.waiting is None or (until is not None and self.waiting[0] + len(self.waiting[1][0]) > until * self.rate):
                return
            block, self.waiting = self.waiting, None
            self.encode(*block)

    def encode(self, position: int, samples: NDArray) -> None:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.rate, position, Fraction(1, self.rate)
        self.output.mux(self.target.encode(frame))

    def finish(self, end: Fraction | None) -> None:
        self.pump(end)
        if self.waiting is not None and end is not None:
            position, samples = self.waiting
            left = int(end * self.rate) - position
            if left > 0:
                self.encode(position, samples[:, :left])
        self.output.mux(self.target.encode(None))

    def close(self) -> None:
        self.blocks = iter(())


def supported_rate(rate: int, allowed: tuple[int, ...]) -> int:
    return rate if rate in allowed else min(allowed, key=lambda other: (other < rate, abs(other - rate)))


def resampled(blocks: Iterator[tuple[int, NDArray]], rate: int, target: int, layout: str) -> Iterator[tuple[int, NDArray]]:
    """The blocks resampled to the rate `target`, with sample numbers at that rate."""
    if rate == target:
        yield from blocks
        return
    resampler = AudioResampler("fltp", layout, target)
    position: int | None = None
    for start, samples in blocks:
        position = round(start * target / rate) if position is None else position
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        for out in resampler.resample(frame):
            yield position, out.to_ndarray()
            position += out.samples
    for out in resampler.resample(None) if position is not None else ():
        yield position or 0, out.to_ndarray()
        position = (position or 0) + out.samples


def track_blocks(track: AudioTrack, lead: Fraction) -> Iterator[tuple[int, NDArray]]:
    """Blocks of the samples; the first one is at `lead` seconds of the output."""
    first = round(lead * track.rate)
    waveform = track.waveform.detach().cpu().to(torch.float32)
    if len(waveform) not in LAYOUTS:
        waveform = waveform.mean(0, keepdim=True)
    for start in range(0, waveform.shape[1], BLOCK_SAMPLES):
        yield first + start, waveform[:, start : start + BLOCK_SAMPLES].numpy()


def file_blocks(place: Place, index: int, layout: str, origin: Fraction, callbacks: Callbacks) -> Iterator[tuple[int, NDArray]]:
    """Blocks of an audio stream from `origin` seconds on, numbered from there; gaps become silence."""
    with open_input(place) as container:
        stream = container.streams.audio[index]
        rate = stream.codec_context.sample_rate
        first = round(origin * rate)
        clock = RunningClock(place, container, sound=True, warn=callbacks.warn)
        if origin > origin_of(container) + 2 and can_seek(container, place) and not shares_times(container, place):
            container.seek(int((origin - 1) / stream.time_base), stream=stream)
            clock.reset()
        resampler: AudioResampler | None = None
        form: tuple[str, str, int] | None = None
        position: int | None = None
        overlap = 0
        for frame in decoded_frames(container, stream):
            jumps = clock.jumps
            shown = presentation_time(frame)
            stated = None if shown is None else round(clock(shown, Fraction(frame.samples, frame.sample_rate)) * rate)
            if clock.jumps > jumps and position is not None and stated is not None:
                overlap = max(0, position - stated)
            rest: list[Any] = []
            now = frame.format.name, frame.layout.name, frame.sample_rate
            if resampler is None or form != now:  # broadcasts change between stereo and 5.1
                rest = [] if resampler is None else resampler.resample(None)
                resampler, form = AudioResampler("fltp", layout, rate), now
            for out in (*rest, *resampler.resample(frame)):
                samples = out.to_ndarray()[:, overlap:]
                overlap = max(0, overlap - out.samples)
                if position is None:
                    position = stated or 0
                elif stated is not None and stated - position > rate // 20:
                    yield from silence(max(position, first) - first, stated - max(position, first), len(samples))
                    position = stated
                skipped = max(0, first - position)
                if skipped < samples.shape[1]:
                    yield position + skipped - first, samples[:, skipped:]
                position += samples.shape[1]


def silence(start: int, length: int, channels: int) -> Iterator[tuple[int, NDArray]]:
    for begin in range(0, length, BLOCK_SAMPLES):
        yield start + begin, np.zeros((channels, min(BLOCK_SAMPLES, length - begin)), np.float32)


def decoded_frames(container: Any, stream: Any) -> Iterator[Any]:
    """Audio frames up to the first unreadable packet; packets that do not decode leave a gap."""
    for packet in readable(container.demux(stream)):
        with suppress(av.FFmpegError):
            yield from packet.decode()


Lane = CopiedLane | EncodedLane


@dataclass(frozen=True)
class StreamPlan:
    """How an audio stream is copied: as packets (`encoder` None), or decoded to the layout `source` and encoded as `layout`."""

    index: int
    encoder: str | None = None
    layout: str = ""
    source: str = ""


def plan_lanes(place: Place, container: str | None) -> tuple[list[StreamPlan], list[str]]:
    """A plan for each audio stream of a file in a container, and descriptions of losses; None stands for images, which have no sound."""
    plans: list[StreamPlan] = []
    lost: list[str] = []
    with open_input(place) as probe:
        for index, stream in enumerate(probe.streams.audio):
            context, name, changes = stream.codec_context, f"sound track {index + 1}", False
            if context is None:
                lost.append(f"{name}, whose codec is not known here")
            elif not has_sound(stream):
                lost.append(f"{name}, which is empty or begins late")
            elif container is None:
                lost.append(f"{name} ({codec_name(context)})")
            elif codec_name(context) in COPIED_CODECS[container] and not (changes := index in changing_aac(place)):
                plans.append(StreamPlan(index))
            else:
                encoder = encoder_of(container)
                plans.append(StreamPlan(index, encoder, *layouts(context.layout, encoder)))
                plan, known, own = plans[-1], codec_name(context), context.layout
                known = f"{known} whose channels or sample rate change on the way" if changes else known
                lost.append(f"{name} as {known} ({ENCODER_NAMES[encoder]} is written)")
                if own.name.removesuffix("(side)") != plan.layout and (own.name not in UNNAMED_LAYOUTS or own.nb_channels > len(LAYOUTS)):
                    lost.append(f"the {own.nb_channels} channels ({own.name}) of {name}, which becomes {plan.layout}")
    return plans, lost


@once_per_version
def changing_aac(place: Place) -> frozenset[int]:
    """Numbers of a broadcast's AAC tracks that change their configuration: other containers state only the first one, so later copied packets
    would not decode.

    Each packet has its configuration in an ADTS header (ISO/IEC 14496-3, 1.A.2.2). Reads the whole file.
    """
    with open_input(place) as container:
        aac = [stream for stream in container.streams.audio if stream.codec_context is not None and codec_name(stream.codec_context) == "aac"]
        if not aac or not container.format.flags & MAY_JUMP:
            return frozenset()
        seen: dict[int, set[tuple[int, int]]] = {stream.index: set() for stream in aac}
        for packet in readable(container.demux(aac)):
            head = bytes(memoryview(packet)[:4]) if packet.size > 4 else b""
            if head[:1] == b"\xff" and head[1] & 0xF6 == 0xF0:
                seen[packet.stream.index].add((head[2] & 0xFD, head[3] & 0xC0))
        return frozenset(number for number, stream in enumerate(container.streams.audio) if len(seen.get(stream.index, ())) > 1)


UNNAMED_LAYOUTS = tuple(f"{count} channels" for count in LAYOUTS)


def layouts(layout: Any, encoder: str) -> tuple[str, str]:
    """Layouts to encode as and to decode to; unnamed channels are mapped one to one."""
    if layout.name in ENCODER_LAYOUTS[encoder]:
        return layout.name, layout.name
    target = LAYOUTS.get(layout.nb_channels, "stereo")
    return target, layout.name if layout.name in UNNAMED_LAYOUTS else target


def encoder_of(container: str) -> str:
    return "libopus" if container == "webm" else "aac"


def read_audio(place: Place, start: Fraction = Fraction(0), end: Fraction | None = None, callbacks: Callbacks | None = None) -> AudioTrack | None:
    """The first decodable audio stream from `start` to `end` seconds of the file's clock; None if it has no samples there.

    Gaps and a late start are filled with zeros, so that sample i is at start + i / rate.
    """
    with open_input(place) as container:
        index, stream = next(((index, one) for index, one in enumerate(container.streams.audio) if has_sound(one)), (0, None))
        if stream is None:
            return None
        rate, own = stream.codec_context.sample_rate, stream.codec_context.layout
    layout = own.name if own.nb_channels in LAYOUTS else "stereo"
    length = None if end is None else round((end - start) * rate)
    pieces: list[NDArray] = []
    filled = 0
    callbacks = callbacks or Callbacks()
    for position, samples in file_blocks(place, index, layout, start, callbacks):
        callbacks.check_interrupt()
        if length is not None and position >= length:
            break
        if position > filled:
            pieces.append(np.zeros((len(samples), position - filled), np.float32))
        pieces.append(samples if length is None else samples[:, : length - position])
        filled = position + pieces[-1].shape[1]
    return AudioTrack(torch.from_numpy(np.concatenate(pieces, 1)), rate) if pieces else None


def track_of(audio: Any) -> AudioTrack | None:
    """`audio` if it is an AudioTrack, else None."""
    return audio if isinstance(audio, AudioTrack) else None


def open_lanes(audio: AudioTrack | Place, container: str, output: Any, origin: Fraction, lead: Fraction, callbacks: Callbacks) -> list[Lane]:
    """Adds one lane per audio stream of `audio` to an output container.

    Args:
        origin: source time in seconds, from its `SourceInfo.origin`, that becomes 0 s of the output.
        lead: output time in seconds at which an AudioTrack begins.
    """
    if (track := track_of(audio)) is not None:
        encoder, layout = encoder_of(container), LAYOUTS.get(track.waveform.shape[0], "mono")
        return [EncodedLane(track_blocks(track, lead), track.rate, layout, encoder, output, callbacks)]
    place: Any = audio
    lanes: list[Lane] = []
    with open_input(place) as probe:
        origin += origin_of(probe)
        for plan in plan_lanes(place, container)[0]:
            stream = probe.streams.audio[plan.index]
            if plan.encoder is None:
                lanes.append(CopiedLane(place, plan.index, output, origin, edits=container in ("mp4", "mov"), callbacks=callbacks))
            else:
                blocks = file_blocks(place, plan.index, plan.source, origin, callbacks)
                lanes.append(EncodedLane(blocks, stream.codec_context.sample_rate, plan.layout, plan.encoder, output, callbacks))
            copy_stream_metadata(lanes[-1].target, stream)
    return lanes


def copy_stream_metadata(target: Any, stream: Any) -> None:
    """Copies language, title and disposition (default, comment and so on), by which players choose a stream."""
    target.metadata.update({key: stream.metadata[key] for key in ("language", "title") if key in stream.metadata})
    if stream.disposition:
        target.disposition = stream.disposition.value
