"""What lies beyond the border is the same whether all positions are looked up, or only those outside."""

import pytest
import torch

from fvr.physics.linalg.boundary import boundary_index, extended


@pytest.mark.parametrize("boundary", ["replicate", "circular", "reflect"])
@pytest.mark.parametrize("axis", [-1, -2])
def test_extension_is_the_look_up_of_every_position(axis, boundary):
    x = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0))
    for start in range(-9, 10):
        for stop in range(start + 1, 14):
            every = x.index_select(axis, boundary_index(torch.arange(start, stop), x.shape[axis], boundary))
            assert torch.equal(extended(x, axis, start, stop, boundary), every), (start, stop)
