"""`fvr run`: an API-format workflow without ComfyUI."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .clips import check_folder


def add(commands: Any) -> None:
    p = commands.add_parser(
        "run",
        help="run an API-format workflow without ComfyUI",
        description="Executes the nodes of this package in a workflow saved with ComfyUI's Export (API), without ComfyUI.",
    )
    p.set_defaults(command=run)
    p.add_argument("workflow", help="a file in API format, or the name of a bundled one")
    p.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="NODE is a node's id, title or class; may be repeated")
    p.add_argument("--input-dir", type=Path, help="folder of the workflow's input files (default: the current folder)")
    p.add_argument("--output-dir", type=Path, help="folder for output files (default: ./output)")
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def run(options: argparse.Namespace) -> int:
    output = options.output_dir or Path.cwd() / "output"
    check_folder("--output-dir", output)
    from .. import headless, host
    from ..nodes import registry
    from ..workflows import bundled

    if options.device:
        host.set_device(options.device)
    nodes = registry()
    prompt = headless.apply_overrides(headless.load_prompt(bundled(options.workflow)), options.set, nodes)
    with host.workspace(input=options.input_dir or Path.cwd(), output=output):
        result = headless.run_prompt(prompt, nodes)
    for text in result.texts:
        print(text)
    for path in result.files:
        print(path)
    return 0
