"""Flow sources: OpenCV's search on known motion, torchvision's RAFT at sizes it does not take by itself."""

import cv2
import pytest
import skimage.data
import torch
from helpers.seeded_weights import seed_weights
from torch import nn
from torch.testing import assert_close
from torchvision.models.optical_flow import raft_small

from fvr.motion.dis import DisFlow
from fvr.motion.raft import RaftFlow, working_memory
from fvr.motion.warp import warp


@pytest.fixture(scope="module")
def picture(astronaut):
    return 2 * astronaut[None] - 1


def cut(picture, x, y, side=256):
    return picture[..., 60 + y : 60 + y + side, 120 + x : 120 + x + side]


@pytest.mark.parametrize(("x", "y"), [(5, 0), (0, -4), (-3, 6)])
def test_dis_finds_a_translation_and_its_sign(picture, x, y):
    """The window moves by (x, y) over the picture, so what a frame shows was further along (x, y) in the frame before."""
    previous, current = cut(picture, 0, 0), cut(picture, x, y)
    source = DisFlow()
    flow = source.flow(source.features(current), source.features(previous))
    inside = flow[..., 16:-16, 16:-16]
    assert flow.dtype == torch.float32
    assert (inside.median(-1).values.median(-1).values - torch.tensor([[float(x), float(y)]])).abs().max() < 0.5
    assert (inside - torch.tensor([x, y]).view(1, 2, 1, 1)).abs().mean() < 0.5
    error = (warp(previous, flow) - current)[..., 16:-16, 16:-16].abs().mean()
    assert error < 0.2 * (previous - current)[..., 16:-16, 16:-16].abs().mean()


def test_dis_takes_pairs_one_by_one(picture):
    frames = torch.cat([cut(picture, 4 * step, step) for step in range(3)])
    source = DisFlow()
    both = source.flow(source.features(frames[1:]), source.features(frames[:-1]))
    each = [source.flow(source.features(frames[n : n + 1]), source.features(frames[n - 1 : n])) for n in (1, 2)]
    assert_close(both, torch.cat(each), atol=0, rtol=0)


def test_dis_sees_bt601_luma(picture):
    grey = DisFlow().features(picture).images[0]
    expected = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2GRAY)
    assert abs(grey.astype(int) - expected.astype(int)).max() <= 1


@pytest.fixture(scope="module")
def raft():
    return seed_weights(raft_small(weights=None), "raft")


def test_raft_runs_as_torchvision_runs_it(picture, raft):
    previous, current = cut(picture, 0, 0, 128), cut(picture, 3, 1, 128)
    source = RaftFlow(raft, updates=2)
    with torch.inference_mode():
        flow = source.flow(source.features(current), source.features(previous))
        assert_close(flow, raft(current, previous, num_flow_updates=2)[-1])
        assert (flow - source.flow(source.features(previous), source.features(current))).abs().max() > 1e-3


class EvenRaft(nn.Module):
    """A RAFT that has found the whole picture moved by (16, -8) pixels of the size it was given; real ones check that size as this does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, current, previous, num_flow_updates):
        assert all(side >= 128 and side % 8 == 0 for side in current.shape[-2:])
        return [torch.tensor([16.0, -8.0]).view(1, 2, 1, 1).expand(1, 2, *current.shape[-2:])]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 132), (300, 512)])
def test_raft_flow_is_in_pixels_of_the_frames(height, width):
    frames = torch.zeros(1, 3, height, width)
    flow = RaftFlow(EvenRaft()).flow(frames, frames)
    scale = torch.tensor([width / max(128, -(-width // 8) * 8), height / max(128, -(-height // 8) * 8)]).view(1, 2, 1, 1)
    assert_close(flow, (torch.tensor([16.0, -8.0]).view(1, 2, 1, 1) * scale).expand(1, 2, height, width))


def test_raft_is_placed_before_it_runs(raft):
    asked = []

    def place(working):
        asked.append(working)
        return torch.device("cpu")

    frames = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        RaftFlow(raft, place, updates=1).flow(frames, frames)
    assert asked == [working_memory(128, 128)]
