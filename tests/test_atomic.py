"""Files are whole or absent, writers do not meet, and what killed ones leave is removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from fvr.atomic import ABANDONED_SECONDS, atomic_file, remove_abandoned, resumable_file, temporary_name, write_tensors
from fvr.finetune.checkpoint import check_writable


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with atomic_file(path) as part:
        part.write_text("old")
        assert part.parent == tmp_path and not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "pair.npz"
    with resumable_file(path) as first:
        first.write_text("first")
        with resumable_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_sentence_and_other_errors_stay(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a\.safetensors could not be written \(.+\); the disk may be full: make room and start it again") as caught:
        write_tensors({"a": torch.zeros(1)}, tmp_path / "none" / "a.safetensors")
    assert "\n" not in str(caught.value)
    with pytest.raises(ZeroDivisionError), resumable_file(tmp_path / "a"):
        _ = 1 / 0


def test_only_what_is_abandoned_is_removed(tmp_path: Path) -> None:
    abandoned, in_work = temporary_name(tmp_path / "state.pt"), temporary_name(tmp_path / "state.pt")
    others = [tmp_path / "KEEP-b76feb75.pth.part", tmp_path / "deadbeef.part", tmp_path / "state.pt", tmp_path / ".clip.abcdefgh.fvr.part"]
    for path in (abandoned, in_work, *others):
        path.touch()
    long_ago = time.time() - ABANDONED_SECONDS - 1
    for path in (abandoned, *others):
        os.utime(path, (long_ago, long_ago))
    remove_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == {in_work, *others}
    remove_abandoned(tmp_path, 0)
    assert set(tmp_path.iterdir()) == set(others)
    remove_abandoned(tmp_path / "none")


def test_a_download_in_work_stays_where_fine_tuning_looks_whether_it_may_write(tmp_path: Path) -> None:
    download = tmp_path / "face.safetensors.part"
    download.write_bytes(b"half of it")
    check_writable(tmp_path / "face.safetensors")
    assert list(tmp_path.iterdir()) == [download]
