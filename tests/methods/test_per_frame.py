"""Restorers of single frames: what goes in and out, batches that do not matter, and people who do not meet."""

from __future__ import annotations

import pytest
import torch
from helpers.seeded_weights import seed_weights
from torch import nn

from fvr.methods.base import restore_frames
from fvr.methods.per_frame import PerFrameOptions, PerFrameRestorer
from fvr.models.device import out_of_memory
from fvr.models.restoreformer.network import RestoreFormer, RestoreFormerConfig

SIDE = 32


def clip(count, seed=0, side=SIDE):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    config = RestoreFormerConfig(32, (1, 2), 1, attended=(1,), crossed=(1,), heads=4, code_dim=32, codes=32)
    return seed_weights(RestoreFormer(config)).requires_grad_(False)


class Halver(nn.Module):
    """y = x / 2, and a memory of how many frames came at once; more than `room` of them do not fit."""

    def __init__(self, room=99):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.room, self.seen = room, []

    def forward(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.seen.append((len(x), x.amin().item(), x.amax().item()))
        return x * self.weight


def test_crops_go_in_as_minus_one_to_one_and_come_back_as_zero_to_one():
    crops = clip(2, side=512)
    crops[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    network = Halver()
    out = restore_frames(PerFrameRestorer(network), crops)
    torch.testing.assert_close(out, ((crops * 2 - 1) / 2 + 1) / 2)
    assert network.seen == [(2, -1.0, 1.0)]


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunked_equals_whole(network, chunk):
    restorer = PerFrameRestorer(network, PerFrameOptions(batch=3), side=SIDE)
    crops = clip(7)
    whole = restore_frames(restorer, crops, chunk=len(crops))
    torch.testing.assert_close(restore_frames(restorer, crops, chunk=chunk), whole, rtol=0, atol=1e-5)
    assert len(whole) == 7 and whole.std() > 0.02


def test_two_people_restored_in_turns_equal_each_alone(network):
    restorer = PerFrameRestorer(network, side=SIDE)
    a, b = clip(4, 1), clip(4, 2)
    alone = [restore_frames(restorer, crops, chunk=2) for crops in (a, b)]
    sessions = [restorer.open(), restorer.open()]
    turns = [[session.push(crops[start : start + 2]) for session, crops in zip(sessions, (a, b), strict=True)] for start in (0, 2)]
    for person, expected in enumerate(alone):
        assert torch.equal(torch.cat([*(turn[person] for turn in turns), sessions[person].close()]), expected)


def test_as_many_frames_go_at_once_as_were_asked_for():
    network = Halver()
    restore_frames(PerFrameRestorer(network, PerFrameOptions(batch=16)), clip(20))
    assert [count for count, _, _ in network.seen] == [16, 4]


@pytest.mark.parametrize("text", ["CUDA out of memory", "DefaultCPUAllocator: can't allocate memory: you tried", "not enough memory: you tried"])
def test_memory_that_ran_out_is_told_from_other_faults(text):
    assert out_of_memory(RuntimeError(text)) and not out_of_memory(RuntimeError("shapes differ"))


def test_batches_shrink_when_memory_runs_out():
    network = Halver(room=2)
    out = restore_frames(PerFrameRestorer(network, PerFrameOptions(batch=8), side=SIDE), clip(5))
    assert [count for count, *_ in network.seen] == [2, 2, 1]
    torch.testing.assert_close(out, restore_frames(PerFrameRestorer(Halver(), side=SIDE), clip(5)))


def test_the_network_is_placed_before_every_batch_and_the_user_is_heard():
    asked, beats = [], []

    def place(working):
        asked.append(working)
        return torch.device("cpu")

    restorer = PerFrameRestorer(Halver(), PerFrameOptions(batch=2), place=place, name="halver")
    restore_frames(restorer, clip(5, side=512), chunk=5, check_interrupt=lambda: beats.append(1))
    assert len(asked) == len(beats) == 3 and asked[0] == 2 * asked[2] > 0
    assert restorer.name == restorer.configured(batch=1).name == "halver"

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restorer.open(check_interrupt=stop).push(clip(1))


def test_what_comes_out_can_be_changed_in_place(network):
    """Tensors made in inference mode could not."""
    PerFrameRestorer(network, side=SIDE).open().push(clip(2)).mul_(0.5)


@pytest.mark.parametrize("batch", [0, 65])
def test_a_batch_out_of_range_is_refused(batch):
    with pytest.raises(ValueError, match=f"batch must lie between 1 and 64 frames, got {batch}"):
        PerFrameOptions(batch=batch)
