"""CodeFormer's options, batches and smoothing, on a small network."""

from __future__ import annotations

import pytest
import torch
from helpers.code_networks import moving, small_codeformer

from fvr.methods.base import from_network, restore_frames, to_network
from fvr.methods.codeformer import FAITHFUL, CodeFormerOptions, CodeFormerRestorer, Trained, gaussian_weights
from fvr.methods.detail_fusion import completed
from fvr.methods.fidelity import LEAST, weight_of

NETWORK = small_codeformer()
CLIP = moving(6)


@pytest.mark.parametrize(
    ("options", "weight", "match"),
    [
        (CodeFormerOptions(), 0.5, True),
        (CodeFormerOptions(mode="colourise"), 0.0, True),
        (CodeFormerOptions(mode="inpaint"), 1.0, False),
        (CodeFormerOptions(fidelity=0.0, adain=False), 0.0, False),
        (CodeFormerOptions(mode="inpaint", fidelity=0.2, adain=True), 0.2, True),
    ],
)
def test_the_mode_brings_its_published_settings_unless_told_otherwise(options, weight, match):
    expect_settings(CodeFormerRestorer(NETWORK, options), weight, match)


@pytest.mark.parametrize(
    ("options", "weight", "match"),
    [(CodeFormerOptions(), 1.0, False), (CodeFormerOptions(fidelity=0.3), weight_of(0.3, LEAST), False), (CodeFormerOptions(adain=True), 1.0, True)],
)
def test_weights_bring_settings_of_their_own(options, weight, match):
    restorer = CodeFormerRestorer(NETWORK, options, trained=FAITHFUL)
    expect_settings(restorer, weight, match)
    expect_settings(restorer.configured(batch=2), weight, match)
    assert CodeFormerRestorer(NETWORK).trained == Trained()
    assert restorer.configured(fidelity=0.0).weight == LEAST and restorer.configured(fidelity=1.0).weight == 1


def expect_settings(restorer, weight, match):
    assert (restorer.weight, restorer.match) == (weight, match)
    task = restorer.options.task
    with torch.no_grad():
        shown, kept = task.prepare(CLIP[:1])
        image = NETWORK(to_network(shown, 64, torch.device("cpu")), weight, match=match)
        expected = task.finish(completed(image, shown) if task.mode == "restore" else from_network(image), kept)
    assert torch.equal(restore_frames(restorer, CLIP[:1]), expected)


def test_larger_batches_change_rounding_only():
    single, fours = (restore_frames(CodeFormerRestorer(NETWORK, CodeFormerOptions(batch=size)), CLIP) for size in (1, 4))
    assert (single - fours).abs().max() < 1e-3


def test_a_batch_that_does_not_fit_is_halved():
    network, sizes = small_codeformer(), []

    def narrow(module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    network.register_forward_pre_hook(narrow)
    out = restore_frames(CodeFormerRestorer(network, CodeFormerOptions(batch=6)), CLIP)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    assert torch.equal(out, restore_frames(CodeFormerRestorer(NETWORK), CLIP))


def test_smoothing_averages_the_logits_of_the_window_and_keeps_the_frame_s_own_features():
    half, x = 2, to_network(CLIP, 64, torch.device("cpu"))
    with torch.no_grad():
        coded = [NETWORK.encode(frame) for frame in x.split(1)]
        logits = torch.stack([NETWORK.logits(latent) for latent, _ in coded])
        weights = torch.tensor(gaussian_weights(half)).view(-1, 1, 1, 1)
        expected = []
        for t, (latent, features) in enumerate(coded):
            around = logits[torch.arange(t - half, t + half + 1).clamp(0, 5)]
            codes = NETWORK.quantize.lookup((weights * around).sum(0).argmax(-1))
            expected.append(completed(NETWORK.decode(codes, latent, features, 0.5), CLIP[t : t + 1]))
    restorer = CodeFormerRestorer(NETWORK, CodeFormerOptions(smoothing=half))
    assert restorer.look_ahead == half and restorer.configured(smoothing=0).look_ahead == 0
    assert (restore_frames(restorer, CLIP) - torch.cat(expected)).abs().max() < 1e-4


def test_smoothing_leaves_a_still_clip_alone():
    still = CLIP[:1].repeat(3, 1, 1, 1)
    smooth = restore_frames(CodeFormerRestorer(NETWORK, CodeFormerOptions(smoothing=3)), still)
    assert (smooth - restore_frames(CodeFormerRestorer(NETWORK), still)).abs().max() < 1e-5


def test_smoothing_changes_fewer_codes_between_frames():
    def changes(half):
        network, maps = small_codeformer(), []
        network.generator.register_forward_pre_hook(lambda module, args: maps.append(args[0]))
        restore_frames(CodeFormerRestorer(network, CodeFormerOptions(smoothing=half, adain=False)), moving(8))
        maps = torch.cat(maps)
        return (maps[1:] != maps[:-1]).any(1).float().mean()

    assert changes(3) < 0.8 * changes(0)


@pytest.mark.parametrize("half", [1, 2, 8])
def test_weights_of_the_window_are_symmetric_falling_and_sum_to_one(half):
    weights = gaussian_weights(half)
    assert len(weights) == 2 * half + 1 and weights == weights[::-1] and sum(weights) == pytest.approx(1)
    assert weights[: half + 1] == sorted(weights[: half + 1])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (dict(fidelity=-0.1), "fidelity must lie between 0 and 1, got -0.1"),
        (dict(smoothing=9), "smoothing must lie between 0 and 8 frames on each side, got 9"),
        (dict(batch=0), "batch must lie between 1 and 64 frames, got 0"),
        (dict(mode="inpaint", keep_luminance=True), "keep_luminance belongs to the mode 'colourise'"),
    ],
)
def test_wrong_options_are_one_clear_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        CodeFormerOptions(**wrong)
