"""The blind restorer over clips: chunks, the recurrent state, the self-ensemble, the temporal filter, its options."""

import threading

import pytest
import torch
import torch.nn.functional as F

from fvr.box_filter import fractional_box_filter
from fvr.colour import luma
from fvr.faces.types import FaceTrack
from fvr.methods.base import restore_frames
from fvr.methods.blind import restorer as blind
from fvr.methods.blind.restorer import (
    ENSEMBLE_INTERVAL,
    SMALL_FACE_SCALE,
    TEMPORAL_SIGMA,
    BlindOptions,
    BlindRestorer,
    optical_flow,
    temporal_filter,
)
from fvr.methods.blind.self_ensemble import (
    AVERAGED_FRAMES,
    NOISY_DIFFERENCE,
    EnsembleStatistics,
    apply_gains,
    augment,
    deaugment,
    octave_energies,
)
from fvr.models.blind import BlindRestorers, BlindSizes, BlindUNet
from fvr.motion.warp import warp
from fvr.training.data.synthetic_motion import Motion, animate


@pytest.fixture(scope="module")
def restorer() -> BlindRestorer:
    torch.manual_seed(0)
    networks = BlindRestorers(BlindSizes((8, 12), (1, 1))).eval().requires_grad_(False)
    for network in (networks.faithful, networks.detailed):
        torch.nn.init.normal_(network.tail.weight, std=0.02)
        make_equivariant(network)
    return BlindRestorer(networks)


def make_equivariant(network: BlindUNet) -> None:
    """Makes a network equivariant to mirroring and shifting, about as training does: what two predictions disagree on is left as it was."""
    for name, module in network.named_modules():
        if not isinstance(module, torch.nn.Conv2d):
            continue
        weight = (module.weight + module.weight.flip(-1)) / 2
        if name == "head":  # 4 x 4 pixels of six images, then maps: valid, x and y
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


def test_preprocessing_runs_ahead_and_stops_with_the_session(restorer, clip, monkeypatch):
    """In a thread of its own, which is gone after an interruption too."""
    threads, running, features = set(), threading.active_count(), blind.flow_features

    def noted(crops):
        threads.add(threading.current_thread())
        return features(crops)

    def stopped():
        if threads:
            raise KeyboardInterrupt

    monkeypatch.setattr(blind, "flow_features", noted)
    with pytest.raises(KeyboardInterrupt):
        restorer.open(check_interrupt=stopped).push(clip)
    assert threads and threading.current_thread() not in threads and threading.active_count() == running


def test_the_recurrence_can_be_switched_off(restorer, clip):
    alone = torch.cat([restore_frames(restorer, frame) for frame in clip.split(1)])
    assert torch.equal(restore_frames(restorer.configured(carry=False), clip), alone)
    carried = restore_frames(restorer.configured(ahead=False), clip)
    assert torch.equal(carried[0], alone[0]) and not torch.equal(carried[1], alone[1])


def test_look_ahead_is_one_frame_and_can_be_switched_off(restorer, clip):
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
    assert (warp(before, optical_flow(now, before)) - now)[..., 32:-32, 32:-32].abs().mean() < 0.3 * still


@pytest.mark.parametrize("deviation", [0, 10, 30])
def test_noise_is_consistent_and_another_patch_or_light_is_not(clip, deviation):
    """Noise of so many levels."""
    now, before = ((clip[:1] + deviation * noise(seed)).clamp(0, 1) for seed in (0, 1))
    still, patch = torch.zeros(1, 2, 512, 512), (..., slice(200, 264), slice(200, 264))
    assert blind.consistency_mask(now, before, still) is None
    other = before.clone()
    other[patch] = 1 - other[patch]
    mask = blind.consistency_mask(now, other, still)
    assert mask[patch].mean() < 0.3 and mask.mean() > 0.95
    assert blind.consistency_mask(now, 0.7 * before, still).mean() < 0.2


def test_an_inconsistent_frame_is_restored_without_the_previous_one(restorer, clip):
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
    with pytest.raises(ValueError, match="got pictures of 96 x 64 pixels, but crops of aligned faces are square"):
        restorer.open().push(torch.rand(1, 3, 64, 96))


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(seed)) / 255


def statistics_of(first: torch.Tensor, second: torch.Tensor, recurrent: bool = False, crop: torch.Tensor | None = None) -> EnsembleStatistics:
    """Of two corrections; without a crop they remove what it holds."""
    mean = (first + second) / 2
    return EnsembleStatistics.of(-mean if crop is None else crop, mean, first - mean, recurrent)


def mean_gain(
    first: torch.Tensor, second: torch.Tensor, scale: float = 1.0, recurrent: bool = False, crop: torch.Tensor | None = None
) -> torch.Tensor:
    statistics = statistics_of(first, second, recurrent, crop)
    return statistics.mean_gain(statistics.gains(scale))


def test_the_gain_is_one_where_predictions_agree_and_zero_where_they_do_not():
    right, first, second = 6 * noise(0), 6 * noise(1), 6 * noise(2)
    assert torch.equal(mean_gain(right, right), torch.ones(1, 1, 512, 512))
    assert not mean_gain(first, second).any()
    assert mean_gain(right + 0.1 * first, right + 0.1 * second).min() > 0.95
    half = mean_gain(right + 1.1 * first, right + 1.1 * second)
    assert 0.2 < half.mean() < 0.8 and half.mean() > mean_gain(right + 1.1 * first, right + 1.1 * second, 2.0).mean()
    assert half.mean() > mean_gain(right + 1.1 * first, right + 1.1 * second, recurrent=True).mean()


def test_little_is_removed_only_where_predictions_agree_well():
    """Hair, pores and film grain are as faint as weak noise, and predictions agree less about them."""
    right, first, second = noise(0), noise(1), noise(2)

    def gain(levels: float, apart: float) -> torch.Tensor:
        return mean_gain(levels * (right + apart * first), levels * (right + apart * second)).mean()

    assert gain(2, 0.3) > 0.9 and gain(6, 0.3) > 0.9
    assert not gain(2, 0.8) and gain(6, 0.8) > 0.3


def test_a_fine_correction_may_remove_but_not_sharpen():
    """Noise and texture lie in the finest octave: a correction that takes from it is let through, one that adds to it is not."""
    crop = by_octaves((4.0, 4.0, 6.0, 8.0))
    apart = by_octaves((0.3, 0.2, 0.1, 0.1), seed=4)
    removed = -0.3 * by_octaves((4.0, 2.0, 1.0, 0.5))
    assert mean_gain(removed + apart, removed - apart, crop=crop).mean() > 0.7
    assert not mean_gain(-removed + apart, -removed - apart, crop=crop).any()


def test_predictions_may_differ_about_faces_with_much_texture():
    """Of two corrections that sharpen and differ by a fifth, the coarse one is of damage; the fine one, as strong, is texture that was misread."""
    coarse, fine = (by_octaves(amount) for amount in ((0.5, 0.8, 1.2, 1.5), (1.5, 1.2, 0.5, 0.4)))
    apart = by_octaves((0.6, 0.25, 0.08, 0.05), seed=4)
    assert mean_gain(coarse + apart, coarse - apart, crop=3 * (coarse + apart)).mean() > 0.3
    assert not mean_gain(fine + apart, fine - apart, crop=3 * (fine + apart)).any()


def by_octaves(deviations: tuple[float, ...], seed: int = 0) -> torch.Tensor:
    """Noise (1, 3, 512, 512) whose octaves have these standard deviations in grey levels, from the finest on."""
    total = torch.zeros(1, 3, 512, 512)
    for octave, deviation in enumerate(deviations):
        part = torch.randn(1, 3, 512 >> octave, 512 >> octave, generator=torch.Generator().manual_seed(8 * seed + octave))
        part -= F.interpolate(F.avg_pool2d(part, 2), scale_factor=2.0)
        total += deviation / 255 * F.interpolate(part / part.std(), (512, 512))
    return total


def test_statistics_are_a_running_mean():
    right, first, second = noise(0), noise(1), noise(2)
    good, bad = statistics_of(right, right + 0.1 * first), statistics_of(first, second)
    mean = good.updated(bad)
    assert torch.allclose(mean.decorrelation, (good.decorrelation + bad.decorrelation) / 2)
    for _ in range(10 * AVERAGED_FRAMES):
        mean = mean.updated(good)
    assert torch.allclose(mean.decorrelation, good.decorrelation, atol=1e-3) and torch.allclose(mean.gains(), good.gains(), atol=1e-3)


@pytest.mark.parametrize(("strength", "detail", "predictions"), [(0.0, 0.0, 2 * 9), (2.0, 0.0, 2 * 9), (0.3, 0.0, 9 + 3), (0.3, 0.5, 9 + 2 * 3)])
def test_the_self_ensemble_runs_where_it_is_due(restorer, clip, monkeypatch, strength, detail, predictions):
    """Without recurrence, then at twice and at 0.3 of the noise from which each frame gets two predictions; detail is one prediction more a frame."""
    calls = []
    network = restorer.network

    def predicted(images, valid, weights, scale):
        calls.append(1)
        return images[:, :3] + strength * NOISY_DIFFERENCE * 255 * noise(len(calls)) + 2 / 255

    monkeypatch.setattr(network, "forward", predicted)
    restore_frames(restorer.configured(carry=strength > 0, detail=detail), clip)
    assert len(calls) == predictions and ENSEMBLE_INTERVAL == 4
    calls.clear()
    restore_frames(restorer.configured(carry=strength > 0, detail=detail, twice=False), clip)
    assert len(calls) == (predictions if strength < 1 else 9 + 3)


def test_deaugment_inverts_augment():
    images = noise(0)
    assert torch.equal(deaugment(augment(images)), images) and torch.equal(augment(images)[0, 0, 7, 9], images[0, 0, 5, 511 - 7])


def test_the_gain_falls_only_where_predictions_differ():
    right, first, second = noise(0), noise(1), noise(2)
    there = torch.zeros(1, 1, 512, 512)
    there[..., 216:264, 216:264] = 1
    gain = mean_gain(right + 3 * there * first, right + 3 * there * second)
    assert gain[..., 239:241, 239:241].max() < 0.7 * gain[..., :100, :].min() and gain[..., :100, :].min() > 0.9


def test_coarse_octaves_have_lower_gains():
    """Coarse errors are common to both predictions: from an equal difference follows a lower gain."""
    fine, coarse, first, second = (noise(seed) for seed in range(4))
    coarse, first_coarse, second_coarse = (F.interpolate(F.avg_pool2d(8 * part, 8), scale_factor=8.0) for part in (coarse, first, second))
    statistics = statistics_of(fine + coarse + 0.3 * (first + first_coarse), fine + coarse + 0.3 * (second + second_coarse))
    gains = statistics.gains().mean((0, 2, 3))
    assert gains[0] > 0.9 and gains[3] < 0.8


def test_chroma_has_its_own_gain_where_luma_disagrees():
    right, first, second = noise(0), noise(1), noise(2)
    chroma = right - luma(right)
    gains = statistics_of(chroma + 3 * luma(first), chroma + 3 * luma(second)).gains()
    of_rgb, of_chroma = gains.split(4, 1)
    assert not of_rgb.any() and of_chroma.min() > 0.99  # on top of RGB's
    left = apply_gains(chroma + 3 * luma(first), gains)
    assert torch.allclose(left, chroma, atol=1e-7)
    of_rgb, of_chroma = statistics_of(right, right).gains().split(4, 1)
    assert of_rgb.min() == 1 and not of_chroma.any()


def test_each_octave_is_scaled_by_its_own_gain():
    images, everything = noise(0), torch.tensor([1.0] * 4 + [0.0] * 4).view(1, 8, 1, 1).expand(-1, -1, 64, 64)
    assert torch.equal(apply_gains(images, everything), images) and not apply_gains(images, 0 * everything).any()
    assert torch.allclose(octave_energies(images).sum(1).mean(), images.square().mean(), rtol=1e-3)
    only_coarse = apply_gains(images, torch.cat([0 * everything[:, :3], everything[:, 3:]], 1))
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
    error = (temporal_filter(first, second, everywhere, TEMPORAL_SIGMA**2) - still).square().mean() / (first - still).square().mean()
    assert 0.45 < error < 0.65
    assert torch.equal(temporal_filter(first, second, 0 * everywhere, TEMPORAL_SIGMA**2), first)
    noisier = first + 6 / 255 * torch.randn(first.shape, generator=generator)
    changes = [(temporal_filter(noisier, second, everywhere, tolerance) - noisier).abs().mean() for tolerance in (TEMPORAL_SIGMA**2, (8 / 255) ** 2)]
    assert changes[0] < 0.5 * changes[1]
    assert (temporal_filter(first, second.flip(-1), everywhere, TEMPORAL_SIGMA**2) - first).abs().mean() < 0.1 / 255


@pytest.mark.parametrize(
    ("scale", "output_scale", "width"), [(1.9, 1, 1.0), (SMALL_FACE_SCALE, 1, 2.0), (3.0, 1, 3.0), (3.0, 2, 1.5), (3.0, 4, 0.75)]
)
def test_the_output_of_a_small_face_is_averaged_over_frame_pixels(restorer, clip, scale, output_scale, width, monkeypatch):
    made = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(BlindRestorers, "forward", lambda *_: made)
    flags, matrix = torch.ones(1), scale * torch.eye(2, 3)[None]
    track = FaceTrack(0, 0, torch.zeros(1, 4), torch.zeros(1, 5, 2), matrix, flags, flags.bool(), flags, (480, 640), output_scale=output_scale)
    prediction = restorer.open(track)._predict(clip[:1], clip[:1], None, {})
    torch.testing.assert_close(prediction, fractional_box_filter(made, width))
    assert torch.equal(prediction, made) == (width <= 1)


def test_box_filters_of_fractional_width():
    picture = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(fractional_box_filter(picture, 3.0)[..., 1:-1, 1:-1], F.avg_pool2d(picture, 3, 1))
    between = fractional_box_filter(picture, 2.5)
    torch.testing.assert_close(between.mean(), picture.mean(), rtol=0.05, atol=0)
    point = torch.zeros(1, 1, 9, 9)
    point[..., 4, 4] = 1
    torch.testing.assert_close(fractional_box_filter(point, 2.5)[0, 0, 4, 2:7], torch.tensor([0, 0.3, 0.4, 0.3, 0]) * 0.4)
