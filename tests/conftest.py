"""Threads are a matter of each room. What several rooms share is the package tests/helpers (`pythonpath` in pyproject.toml)."""

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
