"""The blind restorer over clips: chunks, the past, its parameters."""

import threading

import pytest
import torch
import torch.nn.functional as F

from fvr.colour import luma
from fvr.faces.types import FaceTrack
from fvr.methods.base import restore_frames
from fvr.methods.blind import restorer as blind
from fvr.methods.blind.agreement import NOISY, REMEMBERED, Agreement, energies, kept, mirrored, unmirrored
from fvr.methods.blind.restorer import AGREED, EVERY, SMALL, BlindOptions, BlindRestorer, flow_into, steadied
from fvr.methods.blind.window_means import averaged
from fvr.models.blind import BlindRestorers, BlindSizes, BlindUNet
from fvr.motion.warp import warp
from fvr.training.data.synthetic_motion import Motion, animate


@pytest.fixture(scope="module")
def restorer() -> BlindRestorer:
    torch.manual_seed(0)
    networks = BlindRestorers(BlindSizes((8, 12), (1, 1))).eval().requires_grad_(False)
    for network in (networks.faithful, networks.detailed):
        torch.nn.init.normal_(network.tail.weight, std=0.02)
        make_even(network)
    return BlindRestorer(networks)


def make_even(network: BlindUNet) -> None:
    """Makes a network answer alike to faces that are mirrored and shifted, as training does: what two looks do not agree on is left."""
    for name, module in network.named_modules():
        if not isinstance(module, torch.nn.Conv2d):
            continue
        weight = (module.weight + module.weight.flip(-1)) / 2
        if name == "head":  # 4 x 4 pixels of six pictures, then maps: seen, x and y
            pixels = weight[:, :-3].unflatten(1, (-1, 16)).mean(2, keepdim=True).expand(-1, -1, 16, -1, -1).flatten(1, 2)
            weight = torch.cat([pixels, 0 * weight[:, -3:]], 1)
        elif name == "tail" or name.startswith("up."):
            cells = 16 if name == "tail" else 4
            weight = weight.unflatten(0, (-1, cells)).mean(1, keepdim=True).expand(-1, cells, -1, -1, -1).flatten(0, 1)
            module.bias.zero_()
        module.weight.copy_(weight)


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    still = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24, generator=generator), (512, 512), mode="bicubic")[0].clamp(0, 1)
    return animate(still, 9, Motion(), generator)


@pytest.mark.parametrize("chunk", [1, 7])
def test_chunks_make_no_difference(restorer, clip, chunk):
    assert torch.equal(restore_frames(restorer, clip, chunk=chunk), restore_frames(restorer, clip, chunk=9))


def test_what_needs_no_network_is_made_ahead_and_stops_with_it(restorer, clip, monkeypatch):
    """In a thread of its own, which is gone after an interruption too."""
    threads, running, looked = set(), threading.active_count(), blind.seen_by_flow

    def noted(crops):
        threads.add(threading.current_thread())
        return looked(crops)

    def stopped():
        if threads:
            raise KeyboardInterrupt

    monkeypatch.setattr(blind, "seen_by_flow", noted)
    with pytest.raises(KeyboardInterrupt):
        restorer.open(check_interrupt=stopped).push(clip)
    assert threads and threading.current_thread() not in threads and threading.active_count() == running


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


@pytest.mark.parametrize("deviation", [0, 10, 30])
def test_noise_is_no_change_and_another_patch_or_light_is(clip, deviation):
    """Noise of so many levels."""
    now, before = ((clip[:1] + deviation * noise(seed)).clamp(0, 1) for seed in (0, 1))
    still, patch = torch.zeros(1, 2, 512, 512), (..., slice(200, 264), slice(200, 264))
    assert blind.unchanged(now, before, still) is None
    other = before.clone()
    other[patch] = 1 - other[patch]
    same = blind.unchanged(now, other, still)
    assert same[patch].mean() < 0.3 and same.mean() > 0.95
    assert blind.unchanged(now, 0.7 * before, still).mean() < 0.2


def test_where_a_face_changed_a_frame_is_restored_without_the_past(restorer, clip):
    """A flash: the frame in it and the one after it come out as if each began a clip."""
    flash = clip[:4].clone()
    flash[2] = (1.5 * flash[2] + 0.2).clamp(0, 1)
    over_time, alone = (restore_frames(restorer.configured(carry=carry, ahead=False), flash) for carry in (True, False))
    apart = (over_time - alone).abs().mean((1, 2, 3))
    assert apart[2] < 0.2 * apart[1] and apart[1] > 1e-5


def test_detail_wants_a_second_set_of_weights(clip):
    alone = BlindRestorer(BlindRestorers(BlindSizes((8, 12), (1, 1)), with_detail=False).eval())
    with pytest.raises(ValueError, match=r"no second set for detail, got detail 0\.5"):
        alone.configured(detail=0.5).open()


@pytest.mark.parametrize("detail", [-0.1, 1.5])
def test_detail_has_a_range(detail):
    with pytest.raises(ValueError, match=rf"detail must lie between 0 and 1, got {detail}"):
        BlindOptions(detail=detail)


def test_crops_are_square(restorer):
    with pytest.raises(ValueError, match="square crops, got 96 x 64"):
        restorer.open().push(torch.rand(1, 3, 64, 96))


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(seed)) / 255


def agreement(first: torch.Tensor, second: torch.Tensor, carried: bool = False) -> Agreement:
    mean = (first + second) / 2
    return Agreement.of(mean, first - mean, carried)


def worthwhile(first: torch.Tensor, second: torch.Tensor, enlarged: float = 1.0, carried: bool = False) -> torch.Tensor:
    seen = agreement(first, second, carried)
    return seen.share(seen.shares(enlarged))


def test_what_two_looks_agree_on_is_made_and_the_rest_left():
    right, first, second = noise(0), noise(1), noise(2)
    assert torch.equal(worthwhile(right, right), torch.ones(1, 1, 512, 512))
    assert not worthwhile(first, second).any()
    assert worthwhile(right + 0.1 * first, right + 0.1 * second).min() > 0.95
    half = worthwhile(right + 0.35 * first, right + 0.35 * second)
    assert 0.2 < half.mean() < 0.8 and half.mean() > worthwhile(right + 0.35 * first, right + 0.35 * second, 2.0).mean()
    assert half.mean() > worthwhile(right + 0.35 * first, right + 0.35 * second, carried=True).mean()


def test_noise_may_be_taken_away_differently_by_each_look():
    """The same disagreement leaves alone what is weak, strong in the finest octave only, or stronger in what is coarse."""
    right, first, second = noise(0), noise(1), noise(2)
    first, second = right + 0.5 * first, right + 0.5 * second
    fine_first, fine_second = (6 * (part - F.interpolate(F.avg_pool2d(part, 4), scale_factor=4.0)) for part in (first, second))
    coarse_first, coarse_second = (6 * (part + 8 * F.interpolate(F.avg_pool2d(part, 8), scale_factor=8.0)) for part in (first, second))
    assert worthwhile(6 * first, 6 * second).mean() > 0.6
    assert not worthwhile(coarse_first, coarse_second).any()
    assert not worthwhile(first, second).any() and not worthwhile(fine_first, fine_second).any()


def test_agreement_is_that_of_some_frames():
    right, first, second = noise(0), noise(1), noise(2)
    good, bad = agreement(right, right + 0.1 * first), agreement(first, second)
    seen = good.then(bad)
    assert torch.allclose(seen.lacking, (good.lacking + bad.lacking) / 2)
    for _ in range(10 * REMEMBERED):
        seen = seen.then(good)
    assert torch.allclose(seen.lacking, good.lacking, atol=1e-3) and torch.allclose(seen.shares(), good.shares(), atol=1e-3)


@pytest.mark.parametrize(("strength", "detail", "looks"), [(0.0, 0.0, 2 * 9), (2.0, 0.0, 2 * 9), (0.3, 0.0, 9 + 3), (0.3, 0.5, 9 + 2 * 3)])
def test_a_second_look_is_taken_where_it_is_due(restorer, clip, monkeypatch, strength, detail, looks):
    """At 0.3 of the noise from which on each frame is looked at twice, at twice of it, and without a past; detail is drawn once a frame besides."""
    taken = []
    network = restorer.network

    def looked(images, seen, weights, enlarged):
        taken.append(1)
        return images[:, :3] + strength * NOISY * 255 * noise(len(taken)) + 2 / 255

    monkeypatch.setattr(network, "forward", looked)
    restore_frames(restorer.configured(carry=strength > 0, detail=detail), clip)
    assert len(taken) == looks and EVERY == 4
    taken.clear()
    restore_frames(restorer.configured(carry=strength > 0, detail=detail, twice=False), clip)
    assert len(taken) == (looks if strength < 1 else 9 + 3)


def test_a_second_look_comes_back_to_its_place():
    images = noise(0)
    assert torch.equal(unmirrored(mirrored(images)), images) and torch.equal(mirrored(images)[0, 0, 7, 9], images[0, 0, 5, 511 - 7])


def test_a_place_where_two_looks_differ_is_left_alone():
    right, first, second = noise(0), noise(1), noise(2)
    there = torch.zeros(1, 1, 512, 512)
    there[..., 200:280, 200:280] = 1
    share = worthwhile(right + there * first, right + there * second)
    assert share[..., 239:241, 239:241].max() < 0.7 * share[..., :100, :].min() and share[..., :100, :].min() > 0.9


def test_what_is_coarse_is_doubted_more():
    """Both looks err alike in it: as noisy a difference leaves less of it."""
    fine, coarse, first, second = (noise(seed) for seed in range(4))
    coarse, first_coarse, second_coarse = (F.interpolate(F.avg_pool2d(8 * part, 8), scale_factor=8.0) for part in (coarse, first, second))
    seen = agreement(fine + coarse + 0.3 * (first + first_coarse), fine + coarse + 0.3 * (second + second_coarse))
    shares = seen.shares().mean((0, 2, 3))
    assert shares[0] > 0.9 and shares[3] < 0.8


def test_colours_that_the_looks_agree_on_are_kept_where_the_luma_is_in_doubt():
    right, first, second = noise(0), noise(1), noise(2)
    colours = right - luma(right)
    seen = agreement(colours + luma(first), colours + luma(second))
    whole, of_colours = seen.shares().split(4, 1)
    assert not whole.any() and of_colours.min() > 0.99  # besides the whole's
    left = kept(colours + luma(first), seen.shares())
    assert torch.allclose(left, colours, atol=1e-7)
    whole, of_colours = agreement(right, right).shares().split(4, 1)
    assert whole.min() == 1 and not of_colours.any()


def test_an_octave_is_kept_by_its_own_share():
    images, everything = noise(0), torch.tensor([1.0] * 4 + [0.0] * 4).view(1, 8, 1, 1).expand(-1, -1, 64, 64)
    assert torch.equal(kept(images, everything), images) and not kept(images, 0 * everything).any()
    assert torch.allclose(energies(images).sum(1).mean(), images.square().mean(), rtol=1e-3)
    only_coarse = kept(images, torch.cat([0 * everything[:, :3], everything[:, 3:]], 1))
    below, wanted = (F.avg_pool2d(part, 64).flatten() for part in (only_coarse, images))
    assert torch.corrcoef(torch.stack([below, wanted]))[0, 1] > 0.95 and only_coarse.std() < 0.2 * images.std()


def test_a_network_that_contradicts_itself_changes_nothing(clip):
    torch.manual_seed(0)
    networks = BlindRestorers(BlindSizes((8, 12), (1, 1)), with_detail=False).eval().requires_grad_(False)
    torch.nn.init.normal_(networks.faithful.tail.weight, std=0.02)
    assert torch.equal(restore_frames(BlindRestorer(networks), clip[:2]), clip[:2])


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


@pytest.mark.parametrize(("scale", "output_scale", "width"), [(1.9, 1, 1.0), (SMALL, 1, 2.0), (3.0, 1, 3.0), (3.0, 2, 1.5), (3.0, 4, 0.75)])
def test_what_is_made_of_a_small_face_counts_by_means_over_its_frames_pixels(restorer, clip, scale, output_scale, width, monkeypatch):
    made = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(BlindRestorers, "forward", lambda *_: made)
    flags, matrix = torch.ones(1), scale * torch.eye(2, 3)[None]
    track = FaceTrack(0, 0, torch.zeros(1, 4), torch.zeros(1, 5, 2), matrix, flags, flags.bool(), flags, (480, 640), output_scale=output_scale)
    seen = restorer.open(track)._look(clip[:1], clip[:1], None, {})
    torch.testing.assert_close(seen, averaged(made, width))
    assert torch.equal(seen, made) == (width <= 1)


def test_means_over_squares_of_any_width():
    picture = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(averaged(picture, 3.0)[..., 1:-1, 1:-1], F.avg_pool2d(picture, 3, 1))
    between = averaged(picture, 2.5)
    torch.testing.assert_close(between.mean(), picture.mean(), rtol=0.05, atol=0)
    point = torch.zeros(1, 1, 9, 9)
    point[..., 4, 4] = 1
    torch.testing.assert_close(averaged(point, 2.5)[0, 0, 4, 2:7], torch.tensor([0, 0.3, 0.4, 0.3, 0]) * 0.4)
