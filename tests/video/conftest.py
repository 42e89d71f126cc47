"""What the tests of the video room share: small clips made on the spot (video_helpers) and the clips beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"


def finder(folder: Path):
    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"{name} is not beside this checkout")
        return path

    return find


@pytest.fixture(scope="session")
def shared():
    """A clip of the shared folder by name."""
    return finder(SHARED / "clips")


@pytest.fixture(scope="session")
def case():
    """An input that once failed, by name."""
    return finder(SHARED / "cases")


@pytest.fixture(autouse=True)
def threads(one_thread: None) -> None:
    """One."""
