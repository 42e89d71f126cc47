"""The weights that come with the package: there, small, described, and better than enlarging, on a face that they never saw."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from fvr.assembly import EMBEDDED, EMBEDDED_TASKS
from fvr.demo import moving_portrait
from fvr.faces.align import align
from fvr.faces.detection.detectors import load_detector
from fvr.faces.tracking.tracks import find_tracks
from fvr.methods.base import restore_frames
from fvr.methods.flair.options import PRESETS
from fvr.methods.flair.sampler import FlairRestorer
from fvr.methods.registry import build_restorer
from fvr.metrics.fidelity import psnr, ssim
from fvr.metrics.temporal import mean_warping_error
from fvr.models import embedded
from fvr.models.checkpoints.load import load_network
from fvr.models.checkpoints.state_dict import notes_of
from fvr.physics.parser import parse
from fvr.training.data.degradations import BENCHMARK, benchmark_input

FILES = embedded.listed(embedded.RESTORERS | embedded.PRIORS)
X4 = "x4 blur, noise 0.03"


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """Six aligned crops of 512 of a moving portrait (NASA, public domain) that is in no training set."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    frames = moving_portrait(24)[:6]
    track = find_tracks([(0, frames)], load_detector())[0]
    return align(frames, track, 0)


def restored(method: str, crops: torch.Tensor, degradation: str | None = None) -> torch.Tensor:
    known = None if degradation is None else parse(degradation)
    return restore_frames(build_restorer(method, weights=FILES[EMBEDDED[method]], degradation=known), crops)


def native(crops: torch.Tensor) -> torch.Tensor:
    return F.interpolate(crops, (128, 128), mode="area")


@pytest.fixture(scope="module")
def result_of(crops):
    """What a method makes of the crops under one of BENCHMARK, at 128 x 128; each once."""
    return cache(lambda method, damage: native(restored(method, benchmark_input(damage, native(crops), seed=0))))


def test_every_method_has_its_weights_and_all_files_stay_within_60_megabytes():
    assert set(FILES) == {*EMBEDDED.values(), *EMBEDDED_TASKS.values()}
    assert sum(path.stat().st_size for path in embedded.FOLDER.glob("*.safetensors")) <= 60e6


@pytest.mark.parametrize("name", [*EMBEDDED.values(), *EMBEDDED_TASKS.values()])
def test_the_card_says_what_people_must_know(name):
    card = FILES[name].with_suffix(".md").read_text(encoding="utf-8")
    for needed in ("## Data", "United States Congress", "## Licence", "## Recipe", "fvr train", "Seed", "## Bias and limits", "adults", "## Figures"):
        assert needed in card
    notes = notes_of(FILES[name])
    assert notes["licence"] and notes["recipe"] and notes["seed"] and notes["command"].startswith("fvr train")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("embedded codeformer", "codeformer"),
        ("embedded keep", "keep"),
        ("embedded dicface", "dicface"),
        *((title, method) for (method, _), title in EMBEDDED_TASKS.items()),
    ],
)
def test_the_loader_knows_them(name, kind):
    loaded = load_network(FILES[name])
    assert loaded.kind == kind and "128 x 128" in loaded.detail and "Apache-2.0" in loaded.licence


@pytest.mark.parametrize("method", ["codeformer", "dicface", "keep"])
@pytest.mark.parametrize(("degradation", "least"), [(X4, 1.5), ("blur, noise, JPEG 60", 1.0)])
def test_faces_come_back_better_than_enlarged(method, degradation, least, crops, result_of):
    truth = native(crops)
    source, result = benchmark_input(degradation, truth, seed=0), result_of(method, degradation)
    assert psnr(result, truth).mean() > psnr(source, truth).mean() + least
    assert ssim(result, truth).mean() > ssim(source, truth).mean() + 0.02


@pytest.mark.parametrize("method", ["dicface", "keep"])
def test_methods_over_time_are_steadier_than_frame_by_frame(method, crops, result_of):
    truth = native(crops)
    over_time, single = (result_of(name, X4) for name in (method, "codeformer"))
    assert mean_warping_error(over_time, truth).per_value < mean_warping_error(single, truth).per_value
    assert psnr(over_time, truth).mean() > psnr(single, truth).mean() - 0.05


@pytest.mark.parametrize("method", ["codeformer", "dicface", "keep"])
def test_a_clean_face_stays_as_it_was(method, crops):
    assert psnr(restored(method, crops[:3]), crops[:3]).mean() > 33


def test_flair_explains_what_was_seen(crops):
    truth = crops[:2]
    operator = parse(f"average_pool(factor=4) + {BENCHMARK[X4]}")
    y = operator.observe(truth, torch.Generator().manual_seed(0)).clamp(0, 1)
    result = restored("flair", y, f"average_pool(factor=4) + {BENCHMARK[X4]}")
    baseline = F.interpolate(y, (128, 128), mode="bicubic").clamp(0, 1)
    assert psnr(native(result), native(truth)).mean() > psnr(baseline, native(truth)).mean() + 1.35
    assert (operator.forward(result) - y).square().mean().sqrt() < 1.3 * 0.03


def test_a_diffusion_prior_can_be_flairs_enhancer(crops):
    """The paper's Table 9: the prior without condition, as a FLAIR of its own, in the codebook's place; nothing that it is not wired to changes."""
    y = parse(f"average_pool(factor=4) + {BENCHMARK[X4]}").observe(crops[:1], torch.Generator().manual_seed(0)).clamp(0, 1)
    flair = build_restorer("flair", weights=FILES[EMBEDDED["flair"]], degradation=parse(f"average_pool(factor=4) + {BENCHMARK[X4]}"))
    asked = []
    inner = FlairRestorer(flair.prior, options=replace(PRESETS["embedded"], steps=2, guidance=0.0, data_consistency=False))
    predict = flair.prior.predict_x0
    inner.prior = copy(flair.prior)
    inner.prior.predict_x0 = lambda x_t, t, condition=None: asked.append(condition) or predict(x_t, t, condition)
    options = replace(flair.options, steps=2, tau=1)
    alone = FlairRestorer(flair.prior, flair.degradation, replace(options, enhance=False), precleaner=flair.precleaner)
    both = FlairRestorer(flair.prior, flair.degradation, options, inner, precleaner=flair.precleaner)
    plain, enhanced = (native(restore_frames(restorer, y)) for restorer in (alone, both))
    truth = native(crops[:1])
    assert asked and asked == [None] * len(asked)  # eq. 14's unconditional estimate
    assert (enhanced - plain).abs().mean() > 0.2 / 255
    assert psnr(enhanced, truth).mean() > psnr(plain, truth).mean() - 0.5
