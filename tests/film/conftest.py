"""The small film that jobs are made of, that film in one go, and a disk with little room."""

from __future__ import annotations

import os
import sys

import pytest
from helpers.small_film import in_one_go, make_film


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "in.mp4"
    make_film(path)
    return path


@pytest.fixture(scope="module")
def whole(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "out.mkv"
    in_one_go(clip, path)
    return path


@pytest.fixture
def disk(tmp_path):
    """A disk with room for 120 kB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=120k none {disk} 2>/dev/null"):
        pytest.skip("no small disk can be mounted here")
    yield disk
    os.system(f"umount -l {disk}")  # times are still mapped
