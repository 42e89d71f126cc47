"""Box filters against average pooling."""

import pytest
import torch
import torch.nn.functional as F

from fvr.box_filter import box_filter


@pytest.mark.parametrize("side", [1, 3, 7, 15, 31])
@pytest.mark.parametrize("size", [(64, 48), (9, 20)])
def test_windows_end_at_the_border(side, size):
    values = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(side)) ** 4
    pooled = F.avg_pool2d(values, side, 1, side // 2, count_include_pad=False)
    torch.testing.assert_close(box_filter(values, side), pooled, rtol=1e-5, atol=1e-7)
