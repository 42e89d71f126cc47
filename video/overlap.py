"""Reading ahead and writing behind in background threads; order and results do not change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Any, TypeVar

import torch
from typing_extensions import Self

Item = TypeVar("Item")
POLL_SECONDS = 0.2
"""Timeout of waits in seconds: on Windows a queue's lock cannot be interrupted by Ctrl-C."""


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """Starts a thread with the caller's grad and inference modes, which torch keeps per thread, and one core; the caller keeps the others."""
    inference, grad, cores = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_num_threads()
    settled = threading.Event()

    def run() -> None:
        torch.set_num_threads(1)
        settled.set()
        with torch.inference_mode(inference), torch.set_grad_enabled(grad and not inference):
            work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    settled.wait()
    torch.set_num_threads(cores)  # the number is a thread's own, but new threads begin with what was set last
    return thread


def read_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """Yields the items, preparing up to two in advance. An exception is raised after the items before it.

    If left early, close it (`contextlib.closing`), which ends the thread and closes `items`.
    """
    made: Queue[tuple[bool, Any]] = Queue(1)
    over = threading.Event()

    def work() -> None:
        steps = iter(items)
        try:
            last: tuple[bool, Any] = (False, None)
            try:
                for item in steps:
                    if not put(made, (True, item), over):
                        return
            except BaseException as error:
                last = (False, error)
            put(made, last, over)
        finally:
            with suppress(AttributeError):
                steps.close()  # type: ignore[attr-defined]

    thread = start_thread(work, "fvr reads ahead")
    try:
        while True:
            there, item = take(made)
            if not there:
                if item is not None:
                    raise item
                return
            yield item
            del item
    finally:
        over.set()
        thread.join()


class WriteBehind:
    """Calls `write` in a background thread, in order. Leaving the context waits until everything is written.

    One call is queued and a further one blocks. An exception of `write` is raised by the next call, by a check made by `heard`, or on leaving;
    nothing more is written after it.
    """

    def __init__(self, write: Callable[..., object]) -> None:
        self.write, self.waiting = write, Queue[Any](1)
        self.over = threading.Event()
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self.thread = start_thread(self.work, "fvr writes behind")
        return self

    def work(self) -> None:
        while (given := take(self.waiting, self.over)) is not None:
            try:
                self.write(*given)
            except BaseException as error:
                self.error = error
                self.over.set()
                return
            del given

    def __call__(self, *given: Any) -> None:
        if not put(self.waiting, given, self.over):
            self.fail()

    def heard(self, check_interrupt: Callable[[], object]) -> Callable[[], None]:
        """`check_interrupt` for long work between calls, which also raises what `write` raised, such as an interrupt or a full disk."""

        def check() -> None:
            self.fail()
            check_interrupt()

        return check

    def fail(self) -> None:
        """Raises the exception of `write`, once."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                put(self.waiting, None, self.over)
                while self.thread.is_alive():
                    self.thread.join(POLL_SECONDS)
        finally:
            self.over.set()
            self.thread.join()
        if kind is None:
            self.fail()


def put(queue: Queue[Any], item: Any, over: threading.Event) -> bool:
    """Puts an item into the queue; False if `over` was set first."""
    while not over.is_set():
        with suppress(Full):
            queue.put(item, timeout=POLL_SECONDS)
            return True
    return False


def take(queue: Queue[Any], over: threading.Event | None = None) -> Any:
    """The next item of the queue; None if `over` was set first."""
    while over is None or not over.is_set():
        with suppress(Empty):
            return queue.get(timeout=POLL_SECONDS)
    return None
