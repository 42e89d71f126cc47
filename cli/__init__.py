"""The command line `fvr`: a file per command. Nothing heavy is imported before the command that needs it runs."""

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
"""As help lists them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0 when it did all it was asked, 1 on a fault in what it was given, 130 on Ctrl-C, 143 when terminated."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that the terminal lacks must not fail a job that is done
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
    """What an error says, and of the system's own errors, which are a number and a name, a sentence."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    from ..atomic import DISK_FULL

    if error.errno in DISK_FULL and error.strerror == os.strerror(error.errno):
        return f"{error.filename or 'a file'} could not be written ({error.strerror}); make room on its disk and give the same command again"
    return f"{error.filename} cannot be used ({error.strerror}); check its name, place and permissions" if error.filename else error.strerror


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def refuse(self, word: str) -> NoReturn:
        """Ends with a word that the command does not know, and the option that it may have been meant for."""
        if word in self._option_string_actions:
            self.error(f"{word} comes too late, as all that follows -- is names; put options before it")
        near = get_close_matches(word.partition("=")[0], self._option_string_actions, n=1) if word.startswith("--") else []
        hint = f"did you mean {near[0]}?" if near else "names with spaces are put in quotes"
        self.error(f"{word!r} is not understood here ({hint})")


class ShowVersion(argparse.Action):
    """Prints the version, which is only looked up then."""

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        from ..record import version

        print(f"fvr {version()}")
        parser.exit()


def parse_options(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; ends the program with one sentence for a word that the command does not know."""
    options, unknown = build_parser().parse_known_args(given or ["--help"])
    command = vars(options).pop("parser")
    if unknown:
        command.refuse(unknown[0])
    return options


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fvr", description="Restores faces in video.", epilog="to begin with: fvr restore clip.mp4 restored.mp4")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    parser.add_argument("--version", nargs=0, action=ShowVersion, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    for one in commands.choices.values():
        one.set_defaults(parser=one)
    return parser
