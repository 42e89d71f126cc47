"""`fvr models`: lists and downloads checkpoints."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    p = commands.add_parser("models", help="list the known checkpoints and whether they are installed; download them")
    p.set_defaults(command=models)
    fetched = p.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "fetch", help="download a checkpoint: resumable, and verified where a checksum is known"
    )
    fetched.set_defaults(command=fetch_model)
    fetched.add_argument("name", help="as `fvr models` lists it")
    fetched.add_argument("--folder", type=Path, help="target folder (default: this package's first model folder)")


def models(options: argparse.Namespace) -> int:
    from .. import host
    from ..models import embedded
    from ..models.checkpoints.catalogue import CATALOGUE, find, licence_line, verification
    from ..models.checkpoints.state_dict import notes_of

    folders = host.model_folders()
    for checkpoint in CATALOGUE:
        path = find(checkpoint, folders)
        size = path.stat().st_size if path else checkpoint.size
        about = f"{licence_line(checkpoint)}; {verification(checkpoint)}"
        show_model(checkpoint.name, path is not None, size, checkpoint.file, about, path or f"looked for in {', '.join(checkpoint.folders)}")
    for name, file in embedded.listed(embedded.RESTORERS | embedded.PRIORS).items():
        show_model(name, True, file.stat().st_size, file.name, notes_of(file)["licence"].split(";")[0], "in this package")
    for name, file in embedded.listed(embedded.FACES).items():
        notes = notes_of(file)
        about = f"{notes['licence']}; from {notes['source']}, SHA-256 {notes['source_sha256']}"
        show_model(name, True, file.stat().st_size, file.name, about, "in this package")
    print("\nmodel folders:")
    for name, places in folders.items():
        print(f"  {name:24} {', '.join(map(str, places))}")
    return 0


def show_model(name: str, here: bool, size: int | None, file: str, about: str, where: object) -> None:
    """Prints a checkpoint in lines of at most 100 columns, except for paths."""
    mib = f"{size / 2**20:.0f} MiB" if size else "size unknown"
    print(f"{name:24} {'here' if here else 'missing':8} {mib:>12}  {file}")
    print(textwrap.fill(about, 100, initial_indent="    ", subsequent_indent="    "))
    print(f"    {where}")


def fetch_model(options: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from .. import host
    from ..models.checkpoints.catalogue import OURS, licence_line, named, verification
    from ..models.checkpoints.fetch import fetch, sha256_of

    checkpoint = named(options.name)
    print(f"{checkpoint.file}: {checkpoint.purpose}\nlicence: {licence_line(checkpoint)}\nfrom {checkpoint.url}", flush=True)
    with ExitStack() as stack:
        shown: list[Any] = []

        def on_bytes(done: int, total: int | None) -> None:
            if not shown:
                shown.extend([stack.enter_context(host.progress(total and -(-total >> 20), "fetch (MiB)")), 0])
            shown[0]((done >> 20) - shown[1])
            shown[1] = done >> 20

        path = fetch(checkpoint, options.folder or host.model_folders()[OURS][0], on_bytes, host.check_interrupt)
    print(verification(checkpoint) + ("" if checkpoint.sha256 else f": its SHA-256 is {sha256_of(path, host.check_interrupt)}"))
    print(path)
    return 0
