"""Fixtures of several rooms; threads are a matter of each. Shared functions are the package tests/helpers (`pythonpath` in pyproject.toml)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests of tiny tensors, where threads would only wait for each other; those of other rooms keep theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def astronaut() -> torch.Tensor:
    """scikit-image's portrait, (3, 512, 512) RGB in [0, 1]."""
    data = pytest.importorskip("skimage.data", reason="the portrait comes with scikit-image")
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
