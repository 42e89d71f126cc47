"""The command line `fvr`, one module per command; heavy imports are deferred to the commands that need them."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

from ..host.signals import stoppable
from . import compare, demo, faces, finetune, job, models, nodes, pseudo_target, restore, run, segment, train
from .memory import keep_freed_memory

COMMANDS = (restore, faces, segment, job, compare, run, demo, train, pseudo_target, finetune, models, nodes)
"""In the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0 on success, 1 on invalid input or failure, 130 on Ctrl-C, 143 on termination."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal lacks must not fail a finished job
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parse_options(given)
    options.line = shlex.join(["fvr", *given])
    keep_freed_memory()
    with stoppable() as signals:
        try:
            return options.command(options)
        except (KeyboardInterrupt, SystemExit) as stopped:
            if isinstance(stopped, SystemExit) and not signals:
                raise
            print("stopped; nothing half-written was left", file=sys.stderr)
            return 128 + (signals[-1] if signals else signal.SIGINT)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if options.debug:
                raise
            print(f"fvr: {sentence_of(error)}", file=sys.stderr)
            return 1


def sentence_of(error: Exception) -> str:
    """The message of an error; for system errors, a sentence with the file and the remedy."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    from ..atomic import DISK_FULL

    if error.errno in DISK_FULL and error.strerror == os.strerror(error.errno):
        return f"{error.filename or 'a file'} could not be written ({error.strerror}); make room on its disk and give the same command again"
    return f"{error.filename} cannot be used ({error.strerror}); check its name, place and permissions" if error.filename else error.strerror


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def refuse(self, word: str) -> NoReturn:
        """Exits with an error for an unknown word, suggesting the nearest option."""
        if word in self._option_string_actions:
            self.error(f"{word} comes too late, as all that follows -- is names; put options before it")
        near = get_close_matches(word.partition("=")[0], self._option_string_actions, n=1) if word.startswith("--") else []
        hint = f"did you mean {near[0]}?" if near else "names with spaces are put in quotes"
        self.error(f"{word!r} is not understood here ({hint})")


class ShowVersion(argparse.Action):
    """Prints the version, which is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        from ..record import version

        print(f"fvr {version()}")
        parser.exit()


def parse_options(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; exits with a one-line error for an unknown word."""
    options, unknown = build_parser().parse_known_args(given or ["--help"])
    command = vars(options).pop("parser")
    if unknown:
        command.refuse(unknown[0])
    return options


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fvr", description="Restores faces in video.", epilog="example: fvr restore clip.mp4 restored.mp4")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    parser.add_argument("--version", nargs=0, action=ShowVersion, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    for one in commands.choices.values():
        one.set_defaults(parser=one)
    return parser
