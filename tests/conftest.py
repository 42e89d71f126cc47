"""Makes what all rooms' tests share importable (`from seeded_weights import seed_weights`), and threads a matter of each room."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests of tiny tensors, where threads would only wait for each other; those of other rooms keep theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
