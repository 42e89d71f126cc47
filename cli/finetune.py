"""`fvr finetune`; its arguments are those of finetune/cli.py."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    from ..finetune.cli import add_arguments

    p = commands.add_parser(
        "finetune",
        help="teach a restorer one camera, archive or film",
        description="Fine-tunes a face restorer on pairs of degraded crops and their targets, and writes a checkpoint that is used like any other.",
    )
    p.set_defaults(command=finetune)
    add_arguments(p)


def finetune(options: argparse.Namespace) -> int:
    from ..finetune import cli

    return cli.run(options)
