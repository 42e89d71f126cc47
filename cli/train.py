"""`fvr train`; its arguments are those of training/cli.py."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    p = commands.add_parser(
        "train",
        help="train a blind restorer, a face prior, CodeFormer, KEEP or DicFace on a folder of aligned faces",
        description="Trains the package's own networks. `fvr train codebook --help` lists the arguments.",
    )
    p.set_defaults(command=train)
    p.add_argument("network", help="blind, prior, codebook, keep or dicface")
    p.add_argument("arguments", nargs=argparse.REMAINDER, help="see `fvr train codebook --help`")


def train(options: argparse.Namespace) -> int:
    from ..training import cli
    from . import Parser

    parser = Parser(prog="fvr train", description=cli.__doc__)
    cli.add_arguments(parser)
    return cli.run(parser.parse_args([options.network, *options.arguments]))
