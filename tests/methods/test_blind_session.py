"""The blind restorer over clips: chunks, the past, its parameters."""

import pytest
import torch

from fvr.methods.base import restore_frames
from fvr.methods.blind import AGREED, BlindOptions, BlindRestorer, flow_into, steadied, worthwhile
from fvr.models.blind import BlindRestorers, BlindSizes
from fvr.motion.warp import warp
from fvr.training.synthetic_motion import Motion, set_moving


@pytest.fixture(scope="module")
def restorer() -> BlindRestorer:
    torch.manual_seed(0)
    networks = BlindRestorers(BlindSizes((8, 12), (1, 1))).eval().requires_grad_(False)
    for network in (networks.faithful, networks.detailed):
        torch.nn.init.normal_(network.tail.weight, std=0.02)
    return BlindRestorer(networks)


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    still = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24, generator=generator), (512, 512), mode="bicubic")[0].clamp(0, 1)
    return set_moving(still, 9, Motion(), generator)


@pytest.mark.parametrize("chunk", [1, 7])
def test_chunks_make_no_difference(restorer, clip, chunk):
    assert torch.equal(restore_frames(restorer, clip, chunk=chunk), restore_frames(restorer, clip, chunk=9))


def test_the_past_is_carried_and_can_be_left(restorer, clip):
    alone = torch.cat([restore_frames(restorer, frame) for frame in clip.split(1)])
    assert torch.equal(restore_frames(restorer.configured(carry=False), clip), alone)
    carried = restore_frames(restorer.configured(ahead=False), clip)
    assert torch.equal(carried[0], alone[0]) and not torch.equal(carried[1], alone[1])


def test_the_next_frame_helps_and_is_waited_for(restorer, clip):
    both, before = restore_frames(restorer, clip), restore_frames(restorer.configured(ahead=False), clip)
    assert torch.equal(both[-1], before[-1]) and not torch.equal(both[0], before[0])
    session = restorer.open()
    assert [len(session.push(frame)) for frame in clip[:3].split(1)] == [0, 1, 1] and restorer.look_ahead == 1
    assert len(session.close()) == 1 and len(session.close()) == 0
    assert [restorer.configured(**off).look_ahead for off in ({"ahead": False}, {"carry": False})] == [0, 0]


def test_two_people_share_nothing(restorer, clip):
    first, second = restorer.open(), restorer.open()
    alone = restore_frames(restorer, clip[:4])
    mixed = [(first.push(frame), second.push(frame.flip(-1)))[0] for frame in clip[:4].split(1)]
    assert torch.equal(torch.cat([*mixed, first.close()]), alone)


def test_crops_of_any_side_come_out_at_512(restorer, clip):
    small = torch.nn.functional.avg_pool2d(clip[:2], 4)
    restored = restore_frames(restorer, small)
    assert restored.shape == (2, 3, 512, 512) and restored.min() >= 0 and restored.max() <= 1
    assert (torch.nn.functional.avg_pool2d(restored, 4) - small).abs().mean() < 0.05


def test_detail_changes_the_weights(restorer, clip):
    assert not torch.equal(restore_frames(restorer.configured(detail=1.0), clip[:1]), restore_frames(restorer, clip[:1]))


def test_the_flow_leads_back(clip):
    now, before = clip[4:5], clip[3:4]
    still = (now - before)[..., 32:-32, 32:-32].abs().mean()
    assert (warp(before, flow_into(now, before)) - now)[..., 32:-32, 32:-32].abs().mean() < 0.3 * still


def test_detail_wants_a_second_set_of_weights(clip):
    alone = BlindRestorer(BlindRestorers(BlindSizes((8, 12), (1, 1)), drawn=False).eval())
    with pytest.raises(ValueError, match=r"no second set for detail, got detail 0\.5"):
        alone.configured(detail=0.5).open()


@pytest.mark.parametrize("detail", [-0.1, 1.5])
def test_detail_has_a_range(detail):
    with pytest.raises(ValueError, match=rf"detail must lie between 0 and 1, got {detail}"):
        BlindOptions(detail=detail)


def test_crops_are_square(restorer):
    with pytest.raises(ValueError, match="square crops, got 96 x 64"):
        restorer.open().push(torch.rand(1, 3, 64, 96))


def test_small_corrections_are_left_and_large_ones_made():
    noise = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert not worthwhile(0.2 / 255 * noise, 1 / 255, 1 / 255).any()
    assert worthwhile(10 / 255 * noise, 1 / 255, 1 / 255).min() > 0.97
    assert torch.equal(worthwhile(10 / 255 * noise, 0.0, 1.0), torch.ones(1, 1, 96, 96))


def test_noise_that_is_left_is_averaged_and_motion_is_not():
    generator = torch.Generator().manual_seed(0)
    still = torch.rand(1, 3, 8, 8, generator=generator).repeat_interleave(16, -1).repeat_interleave(16, -2)
    first, second = (still + 2 / 255 * torch.randn(still.shape, generator=generator) for _ in range(2))
    everywhere = torch.ones(1, 1, 128, 128)
    error = (steadied(first, second, everywhere, AGREED**2) - still).square().mean() / (first - still).square().mean()
    assert 0.45 < error < 0.65
    assert torch.equal(steadied(first, second, 0 * everywhere, AGREED**2), first)
    noisier = first + 6 / 255 * torch.randn(first.shape, generator=generator)
    kept = [(steadied(noisier, second, everywhere, tolerance) - noisier).abs().mean() for tolerance in (AGREED**2, (8 / 255) ** 2)]
    assert kept[0] < 0.5 * kept[1]
    assert (steadied(first, second.flip(-1), everywhere, AGREED**2) - first).abs().mean() < 0.1 / 255
