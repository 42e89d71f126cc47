"""`fvr faces`: a table and a contact sheet of the people in a clip, without restoring anything."""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..plurals import counted
from .clips import add_frame_rate, check_place, check_rate, frame_rate, videos_among


def add(commands: Any) -> None:
    p = commands.add_parser(
        "faces",
        help="list the people in a clip",
        description="Detects and tracks the faces in a clip, identifies people across shots, prints a table and writes a contact sheet. Nothing is "
        "restored.",
    )
    p.set_defaults(command=faces)
    p.add_argument("input", help="a video file, a folder of images, or one image")
    p.add_argument("--sheet", metavar="FILE.png", help="the contact sheet (default: the clip's name with -faces.png, in the current folder)")
    p.add_argument(
        "--faces", default="all", metavar="WHICH", help="as for restore: marks in the JSON the people who would be restored (default: all)"
    )
    p.add_argument("--json", metavar="FILE.json", help="also write the table as JSON")
    p.add_argument("--overwrite", action="store_true", help="replace the sheet and the JSON if they exist")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    p.add_argument("--start", type=int, default=0, metavar="FRAME", help="first frame, counted from 0")
    p.add_argument("--count", type=int, metavar="FRAMES", help="at most this many frames")
    add_frame_rate(p)
    add_finding(p)


def add_finding(p: Any) -> None:
    """Arguments of face detection, for every command that detects faces."""
    p.add_argument(
        "--detector",
        default="auto",
        choices=["auto", "blazeface", "retinaface", "mtcnn"],
        help="face detector (default: auto: retinaface if its weights are installed, else the bundled blazeface)",
    )
    p.add_argument(
        "--rotate",
        default="auto",
        choices=["auto", "off"],
        help="auto: also search frames rotated by 90, 180 and 270 degrees, in new scenes and where no face is certain; off: upright only "
        "(default: auto)",
    )


def faces(options: argparse.Namespace) -> int:
    from PIL import Image

    from .. import host
    from ..assembly import chosen_detector
    from ..faces import Thumbnails, clock, contact_sheet, reference_identity, report, select_tracks, table
    from ..pipeline import follow_faces
    from ..video import allow_playlist, open_source

    allow_playlist(options.input)
    like = reference_identity(options.faces)
    sheet = Path(options.sheet or f"{Path(options.input).name.rsplit('.', 1)[0] or 'clip'}-faces.png")
    for path in [sheet, *([Path(options.json)] if options.json else [])]:
        if path.exists() and not options.overwrite:
            raise ValueError(f"{path} exists already; choose another name, or add --overwrite")
    if sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"the contact sheet is a .png or .jpg, got {sheet.name!r}")
    check_place("--sheet", sheet, options.input)
    if options.json:
        check_place("--json", options.json, options.input, sheet)
    if options.device:
        host.set_device(options.device)
    source = open_source(options.input, start=options.start, count=options.count, rate=frame_rate(options.frame_rate))
    check_rate(options.frame_rate, *videos_among(source))
    if Path(options.input).is_dir() and sheet.absolute().parent.resolve() == Path(options.input).resolve():
        raise ValueError(f"the contact sheet {sheet} would be one of the images of {options.input}; choose another place with --sheet")
    with host.progress(source.expected, "find faces") as found:
        tracks = follow_faces(source, chosen_detector(options.detector, options.rotate), check_interrupt=host.check_interrupt, on_frame=found)
    thumbnails, starts = Thumbnails(tracks), list[Fraction]()
    with host.progress(source.expected, "contact sheet") as tick:
        for piece in source.chunks(8):
            host.check_interrupt()
            thumbnails.push(piece.index, piece.frames)
            starts += piece.starts
            tick(len(piece.frames))

    time_of = clock(starts)
    found_there = report(tracks, select_tracks(tracks, options.faces, like=like), len(starts))
    Image.fromarray(contact_sheet(tracks, thumbnails, time_of).permute(1, 2, 0).mul(255).round().byte().numpy()).save(sheet)
    if options.json:
        Path(options.json).write_text(json.dumps(found_there.to_dict(), indent=1) + "\n", encoding="utf-8")
    if tracks:
        print(table(tracks, time_of))
    print(f"{counted(len(starts), 'frame')}, {counted(len(found_there.people), 'person', 'people')}, ", end="")
    print(f"{found_there.no_face:,} without a face" if found_there.no_face else "a face in every frame")
    print(sheet)
    return 0
