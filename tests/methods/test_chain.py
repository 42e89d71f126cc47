"""One restorer after another: what the second makes of what the first made, whoever holds frames back."""

import pytest
import torch
from helpers.code_networks import moving

from fvr.assembly import weights_for
from fvr.methods.base import restore_frames
from fvr.methods.chain import Chain
from fvr.methods.per_frame import PerFrameRestorer
from fvr.methods.registry import build_restorer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_second_gets_what_the_first_made():
    first = build_restorer("blind", weights=weights_for("blind", {}))
    then = PerFrameRestorer(torch.nn.AvgPool2d(3, 1, 1).eval(), place=lambda working: torch.device("cpu"), side=64)
    chain, clip = Chain(first, then), moving(4, 128)
    wanted = restore_frames(then, restore_frames(first, clip))
    for chunk in (1, 3):
        assert torch.equal(restore_frames(chain, clip, chunk=chunk), wanted)
    assert chain.look_ahead == first.look_ahead == 1 and chain.repaints() and not first.repaints()
    with pytest.raises(ValueError, match="takes no masks"):
        chain.open().push(clip, clip[:, :1])
