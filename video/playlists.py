"""Playlists and other files that refer to further files: read only if named on the command line."""

from __future__ import annotations

import os
from functools import cache
from os import PathLike
from pathlib import Path

import av

from .errors import VideoError

PLAYLISTS = {"hls", "applehttp", "dash", "webm_dash_manifest", "concat", "imf", "vobsub"}
"""Demuxers that open other files, by FFmpeg's names."""
NETWORK, PROGRAMS = {"sdp", "rtp", "rtsp", "sap"}, {"lavfi", "avisynth", "vapoursynth"}
DEVICES = {"alsa", "oss", "fbdev", "kmsgrab", "x11grab", "v4l2", "video4linux2", "dshow", "avfoundation"}
"""Those that open the network, programs or devices."""
SIGNATURES = {b"#EXTM3U": "a playlist", b"ffconcat": "a list of clips", b"<MPD": "a streaming manifest", b"v=0": "a description of a live stream"}

_allowed: set[str] = set()


def allow_playlist(place: str | PathLike[str]) -> None:
    """Allows this file to be a playlist, for files named on the command line."""
    _allowed.add(os.path.abspath(place))  # noqa: PTH100 (a link is what was named)


def demuxer_options(place: object) -> dict[str, str]:
    """Options of `av.open` that restrict FFmpeg to this one file, or to local files for an allowed playlist."""
    if isinstance(place, (str, PathLike)) and os.path.abspath(place) in _allowed:  # noqa: PTH100
        return {"protocol_whitelist": "file,crypto,data"}
    return {"protocol_whitelist": "file", "format_whitelist": _single_file_demuxers()}


@cache
def _single_file_demuxers() -> str:
    """All demuxers that read a single file, comma-separated."""
    found = []
    for name in sorted(av.formats_available):
        try:
            whole = av.ContainerFormat(name, "r").name
        except ValueError:  # a muxer
            continue
        if not (PLAYLISTS | NETWORK | PROGRAMS | DEVICES) & {name, *whole.split(",")}:
            found.append(name)
    return ",".join(found)


def refuse_playlist(place: object, name: str) -> None:
    """Raises VideoError if a file that FFmpeg did not open is a playlist."""
    if not isinstance(place, (str, PathLike)) or not Path(place).is_file():
        return
    with Path(place).open("rb") as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    what = next(
        (what for beginning, what in SIGNATURES.items() if start.startswith(beginning) or (beginning == b"<MPD" and beginning in start)), None
    )
    if what:
        raise VideoError(f"{name} is {what}, which leads to other files; give the clip itself, or name the list on the command line of fvr restore")
