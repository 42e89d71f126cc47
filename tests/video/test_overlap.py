"""Reading ahead and writing behind: the same things in the same order, errors in their turn, and no thread left."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
import torch

from fvr.video.overlap import WriteBehind, read_ahead


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fvr ")]


def numbers(count, closed=None, then=None):
    try:
        yield from range(count)
        if then is not None:
            raise then
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


def test_items_come_in_order_and_the_thread_ends_with_them():
    closed = []
    assert list(read_ahead(numbers(20, closed))) == list(range(20))
    assert closed == ["fvr reads ahead"] and not ours()


def test_the_next_item_is_made_while_the_caller_works():
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    with closing(read_ahead(items())) as ahead:
        assert next(ahead) == 1 and second.wait(5)


def test_what_making_an_item_raises_comes_after_those_before_it():
    seen = []
    with pytest.raises(OSError, match="cable"):
        for item in read_ahead(numbers(3, then=OSError("the cable is out"))):
            seen.append(item)
    assert seen == [0, 1, 2] and not ours()


def test_left_early_the_thread_ends_and_its_items_are_closed():
    closed = []
    with closing(read_ahead(numbers(10**9, closed))) as ahead:
        assert next(ahead) == 0
    assert closed and not ours()


def test_written_in_order_and_done_on_leaving():
    written = []
    with WriteBehind(lambda a, b: written.append((a, b))) as write:
        for n in range(50):
            write(n, -n)
    assert written == [(n, -n) for n in range(50)] and not ours()


def test_what_writing_raises_is_raised_once_and_nothing_more_is_written():
    written = []

    def fails(n):
        if n == 2:
            raise OSError("no room")
        written.append(n)

    with pytest.raises(OSError, match="no room"), WriteBehind(fails) as write:
        for n in range(10**6):
            write(n)
    assert written == [0, 1] and not ours()
    with pytest.raises(OSError, match="no room"), WriteBehind(fails) as write:
        write(2)


def test_an_exception_of_the_caller_passes_and_ends_the_thread():
    with pytest.raises(KeyboardInterrupt), WriteBehind(lambda n: None) as write:
        write(1)
        raise KeyboardInterrupt
    assert not ours()


def test_a_thread_has_the_modes_of_its_caller_and_one_core():
    """And leaves the caller all of its own."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with torch.inference_mode():
            (seen,) = read_ahead((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_num_threads()) for _ in range(1))
        assert seen == (True, False, 1) and torch.get_num_threads() == 3
        inside = []
        thread = threading.Thread(target=lambda: inside.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert inside == [3]
    finally:
        torch.set_num_threads(before)
