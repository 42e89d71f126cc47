"""Stopping on request. Imports nothing heavy, so that signals are handled while the rest of the program is still being imported."""

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

    Yields a list to which the numbers of received signals are added. Each signal also sets `requested`: if a library swallows the exception, the
    next check_interrupt raises it again. Ignored signals (nohup) stay ignored. Outside the main thread, where signals cannot be handled, this does
    nothing.
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
