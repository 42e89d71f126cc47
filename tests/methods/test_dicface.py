"""DicFace's stream against whole windows, its samples and its uncertainty, on a small network."""

from __future__ import annotations

import pytest
import torch
from helpers.code_networks import moving, small_dicface, track

from fvr.methods.base import restore_frames, to_network
from fvr.methods.detail_fusion import completed
from fvr.methods.dicface import DicFaceOptions, DicFaceRestorer, code_variance, dirichlet_sample, uncertainty
from fvr.models.dicface.network import dirichlet_mean

NETWORK = small_dicface()
CLIP = moving(6)


def alphas(*shape, low=0.01, high=3.0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * (high - low) + low


@pytest.mark.parametrize("fidelity", [0.0, 0.4])
def test_the_stream_is_the_centre_of_every_whole_window(fidelity):
    """The official way, window by window with repeated ends: all five frames encoded, mixed and decoded, the third kept."""
    x = to_network(CLIP[:4], 64, torch.device("cpu"))
    with torch.no_grad():
        windows = [x[torch.arange(t - 2, t + 3).clamp(0, 3)] for t in range(4)]
        images = torch.cat([NETWORK(window[None], fidelity)[0, 2:3] for window in windows])
        expected = completed(images, CLIP[:4])
    out = restore_frames(DicFaceRestorer(NETWORK, DicFaceOptions(fidelity=fidelity)), CLIP[:4])
    assert (out - expected).abs().max() < 1e-4


def test_each_frame_is_encoded_once_and_decoded_once_and_then_forgotten():
    network = small_dicface()
    runs = {"encoder": [], "generator": []}
    for name, calls in runs.items():
        getattr(network, name).register_forward_pre_hook(lambda module, args, calls=calls: calls.append(len(args[0])))
    session = DicFaceRestorer(network).open()
    for crop in CLIP:
        session.push(crop[None])
        held = list(session._window._items)
        assert len(held) <= 5 and sum(bool(frame.features) for frame in {id(frame): frame for frame in held}.values()) <= 2
    session.close()
    assert runs == {"encoder": [1] * 6, "generator": [1] * 6}


def test_a_still_clip_is_one_frame_repeated():
    still = CLIP[:1].repeat(4, 1, 1, 1)
    out = restore_frames(DicFaceRestorer(NETWORK), still)
    assert torch.equal(out, out[:1].expand_as(out)) and torch.equal(out[:1], restore_frames(DicFaceRestorer(NETWORK), still[:1]))


def test_samples_scatter_around_the_mean():
    """The average of many sampled code maps nears the mean's, at the rate 1 / sqrt(n) that their variance says."""
    codebook = NETWORK.quantize.embedding.weight.detach()
    alpha = alphas(1, 256, 64)
    exact = NETWORK.quantize.mix(dirichlet_mean(alpha)).detach()
    n = 400
    draws = torch.stack([NETWORK.quantize.mix(dirichlet_sample(alpha, 0, number)).detach() for number in range(n)])
    standard_error = (code_variance(alpha, codebook).mean() / n).sqrt()
    error = (draws.mean(0) - exact).square().sum(1).mean().sqrt()
    assert 0.9 * standard_error < error < 1.1 * standard_error
    spread = (draws - exact).square().sum(2).mean()
    torch.testing.assert_close(spread, code_variance(alpha, codebook).mean(), rtol=0.02, atol=0)


def test_samples_depend_on_their_key_alone():
    alpha = alphas(1, 8, 64)
    assert torch.equal(dirichlet_sample(alpha, 1, 2, 3), dirichlet_sample(alpha, 1, 2, 3))
    assert not torch.equal(dirichlet_sample(alpha, 1, 2, 3), dirichlet_sample(alpha, 1, 2, 4))
    weights = dirichlet_sample(torch.full((2, 5, 64), 0.01), 0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))
    assert weights.min() >= 0 and weights.isfinite().all()


def test_a_person_s_frames_are_drawn_by_their_number_in_the_clip():
    """The same still picture, sampled: every frame differs, and a track that begins later draws what its frames' numbers say."""
    restorer = DicFaceRestorer(NETWORK, DicFaceOptions(dirichlet="sample"))
    still = CLIP[:1].repeat(4, 1, 1, 1)
    first, later, other = (restore_frames(restorer, still, who, seed=5) for who in (track(0), track(0, start=2), track(1)))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[2:], later[:2]) and not torch.equal(first, other)


def test_code_variance_is_that_of_the_distribution():
    codebook = torch.randn(16, 5, generator=torch.Generator().manual_seed(1)) + 3
    alpha = alphas(16)
    draws = torch.distributions.Dirichlet(alpha.double()).sample((200_000,)) @ codebook.double()
    assert float(code_variance(alpha, codebook)) == pytest.approx(float(draws.var(0).sum()), rel=0.02)


def test_uncertainty_knows_the_prior_evidence_and_distance():
    codebook = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    prior = torch.ones(1, 64)
    assert float(uncertainty(prior, codebook)) == pytest.approx(0.5, abs=1e-5)
    grown = [float(uncertainty(scale * alphas(1, 64), codebook)) for scale in (0.1, 1, 10, 1000)]
    assert grown == sorted(grown, reverse=True) and 0 <= grown[-1] < 0.01 and grown[0] <= 1
    one = torch.full((1, 64), 0.01)
    one[0, 7] = 60.0
    assert uncertainty(one, codebook) < 0.1  # a single code, with evidence
    rivals = torch.full((1, 64), 1e-4)
    rivals[0, :2] = 0.5
    assert uncertainty(rivals, codebook) > 0.9  # two distant codes, without: a sample takes one of them
    near = codebook.clone()
    near[1] = near[0] + 0.01
    assert uncertainty(rivals, near) < 0.3  # two like codes: no matter which


def test_uncertainty_comes_with_the_frames_it_is_of():
    restorer = DicFaceRestorer(NETWORK)
    session = restorer.open()
    session.push(CLIP)
    session.close()
    assert session.maps() == {}  # nobody asked, nothing is kept
    session = restorer.open()
    session.return_maps = True
    maps = []
    for start in range(0, 6, 3):
        out = session.push(CLIP[start : start + 3])
        found = session.maps()
        assert len(found.get("uncertainty", ())) == len(out)
        maps.extend(found.values())
    session.close()
    maps = torch.cat([*maps, session.maps()["uncertainty"]])
    assert maps.shape == (6, 1, 512, 512) and maps.min() >= 0 and maps.max() <= 1 and maps.dtype == torch.float32 and not maps.is_inference()
    whole = restorer.open()
    whole.return_maps = True
    whole.push(CLIP)
    whole.close()
    assert torch.equal(whole.maps()["uncertainty"], maps)
    assert maps[0].std() > 1e-3


def test_a_decoder_in_half_precision_changes_neither_codes_nor_uncertainty():
    network = small_dicface()
    given, maps, out = [], [], []
    network.generator.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    for dtype in (torch.float32, torch.bfloat16):
        for part in network.decoder_parts():
            part.to(dtype)
        session = DicFaceRestorer(network).open()
        session.return_maps = True
        out.append(torch.cat([session.push(CLIP[:1]), session.close()]))
        maps.append(session.maps()["uncertainty"])
    assert torch.equal(given[0], given[1]) and torch.equal(*maps)
    assert 0 < (out[1] - out[0]).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (dict(fidelity=1.5), "fidelity must lie between 0 and 1, got 1.5"),
        (dict(fidelity=float("nan")), "fidelity must lie between 0 and 1, got nan"),
        (dict(dirichlet="mode"), "dirichlet must be one of mean, sample, got 'mode'"),
        (dict(mode="colorize"), "mode must be one of restore, colourise, inpaint, got 'colorize'"),
        (dict(keep_luminance=True), "keep_luminance belongs to the mode 'colourise', got the mode 'restore'"),
    ],
)
def test_wrong_options_are_one_clear_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        DicFaceOptions(**wrong)
