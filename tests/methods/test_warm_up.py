"""A part of a track, restored by a session that begins in its middle: the whole track's own frames, to the bit or within 50 dB."""

from __future__ import annotations

import pytest
import torch
from helpers.code_networks import moving, small_codeformer, small_dicface, track

from fvr.assembly import weights_for
from fvr.methods.base import WarmUp, restore_frames
from fvr.methods.blind.restorer import BlindRestorer
from fvr.methods.codeformer import CodeFormerOptions, CodeFormerRestorer
from fvr.methods.dicface import DicFaceOptions, DicFaceRestorer
from fvr.methods.flair.options import FlairOptions
from fvr.methods.flair.sampler import FlairRestorer
from fvr.methods.keep import KeepRestorer
from fvr.methods.per_frame import PerFrameRestorer
from fvr.methods.registry import build_restorer
from fvr.physics import TemporalBlur, parse
from fvr.priors.wiener import GaussianPrior

pytestmark = pytest.mark.usefixtures("one_thread")


def embedded_blind(**changes) -> BlindRestorer:
    restorer = build_restorer("blind", weights=weights_for("blind", {}))
    assert isinstance(restorer, BlindRestorer)
    return restorer.configured(**changes)


def embedded_keep(**changes) -> KeepRestorer:
    """The real network, over crops that it takes as they are."""
    restorer = build_restorer("keep", weights=weights_for("keep", {}))
    assert isinstance(restorer, KeepRestorer)
    return restorer.precleaned_by(None).configured(**changes)


EXACT = {
    "per-frame": lambda: PerFrameRestorer(torch.nn.AvgPool2d(3, 1, 1).eval(), place=lambda room: torch.device("cpu"), side=64),
    "codeformer": lambda: CodeFormerRestorer(small_codeformer()),
    "codeformer, smoothed": lambda: CodeFormerRestorer(small_codeformer(), CodeFormerOptions(smoothing=2)),
    "dicface, sampled": lambda: DicFaceRestorer(small_dicface(4), DicFaceOptions(dirichlet="sample")),
    "keep, reset": lambda: embedded_keep(reset_every=4, gain_window=2),
    "blind, not carried": lambda: embedded_blind(carry=False),
    "flair": lambda: FlairRestorer(GaussianPrior(), parse("gaussian_blur(sigma=1)"), FlairOptions(steps=2, window=3, overlap=1)),
}
NEAR = {
    "blind": embedded_blind,
    "keep": lambda: embedded_keep(gain_window=2),
    "flair, blurred in time": lambda: FlairRestorer(GaussianPrior(), TemporalBlur(3), FlairOptions(steps=2, window=2, overlap=1)),
}


def crops_of(restorer, count):
    return moving(count, 512 if isinstance(restorer, FlairRestorer) else 128)


def part_and_whole(restorer, first, count):
    """The frames from `first` on, by a session that begins where the method says, and by one that saw all."""
    crops = crops_of(restorer, count)
    whole_track = track(1, start=3, n=count)
    begin = restorer.warm_up.begin(first)
    assert 0 < begin <= first and begin % restorer.warm_up.every == 0
    session = restorer.resume(whole_track, begin, seed=3)
    part = torch.cat([*(session.push(some) for some in crops[begin:].split(5)), session.close()])
    return part[first - begin :], restore_frames(restorer, crops, whole_track, seed=3)[first:]


@pytest.mark.parametrize("name", EXACT)
def test_what_a_method_calls_exact_is(name):
    restorer = EXACT[name]()
    assert restorer.warm_up.exact
    part, whole = part_and_whole(restorer, 6, 9)
    assert len(part) == 3 and torch.equal(part, whole)


@pytest.mark.parametrize("name", NEAR)
def test_the_others_come_within_50_decibel(name):
    restorer = NEAR[name]()
    warm_up = restorer.warm_up
    assert not warm_up.exact
    first = warm_up.before + 2 * warm_up.every
    part, whole = part_and_whole(restorer, first, first + 2)
    assert (part - whole).square().mean((1, 2, 3)).max() < 1e-5
    assert not torch.equal(whole[0], restore_frames(restorer, crops_of(restorer, first + 2)[first:], track(1), seed=3)[0])  # the past does matter


def test_a_session_begins_where_blocks_do():
    assert [WarmUp(before=5, every=4).begin(first) for first in (3, 5, 8, 9, 13, 14)] == [0, 0, 0, 4, 8, 8]
    assert WarmUp(2, 4).over(WarmUp(12, exact=False)) == WarmUp(14, 4, False)
    assert WarmUp(before=10**9).begin(7) == 0
