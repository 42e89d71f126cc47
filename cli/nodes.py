"""`fvr nodes`."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    p = commands.add_parser("nodes", help="list the nodes that `fvr run` can execute")
    p.set_defaults(command=nodes)


def nodes(options: argparse.Namespace) -> int:
    from ..nodes import NODES

    for node in NODES:
        schema = node.define_schema()
        print(f"{schema.node_id:28} {schema.display_name:28} {schema.description}")
    return 0
