"""Stopping on request. Imports nothing heavy, so that signals are heeded while the rest of a program is still being imported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

requested = threading.Event()
"""Set when the work in progress shall stop; `host.check_interrupt` looks at it."""

ENDINGS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Makes Ctrl-C, a termination request and a closed terminal end the block by an exception, so that half-written files are removed.

    Gives a list that the numbers of the signals received are added to. Each also sets `requested`: an exception that comes while some
    library swallows all of them then only waits for the next check_interrupt. What was ignored (nohup) stays ignored. Outside the main thread,
    where signals cannot be handled, nothing changes.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        requested.set()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    requested.clear()
    usual = (signal.SIG_DFL, signal.default_int_handler)
    mine = [number for number in ENDINGS if threading.current_thread() is threading.main_thread() and signal.getsignal(number) in usual]
    before = {number: signal.signal(number, stop) for number in mine}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        requested.clear()
