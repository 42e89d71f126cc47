"""Noise that depends on what it is for, not on when it is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def seeded_noise(shape: Sequence[int], *key: int) -> Tensor:
    """Standard normal float32 noise on the CPU, a pure function of `shape` and of the integers of `key` (seed, person, step, frame...).

    >>> bool(torch.equal(seeded_noise((2, 3), 7, 1), seeded_noise((2, 3), 7, 1)))
    True
    """
    digest = hashlib.blake2b(",".join(map(str, key)).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(tuple(shape), generator=generator)
