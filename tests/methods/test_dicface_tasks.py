"""DicFace's small weights for colours and holes, on people they never saw."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.code_networks import small_dicface

from fvr.assembly import weights_for
from fvr.colour import luma
from fvr.demo import moving_portrait
from fvr.faces.align import align
from fvr.faces.detection.detectors import load_detector
from fvr.faces.tracking.tracks import find_tracks
from fvr.methods.base import restore_frames
from fvr.methods.dicface import DicFaceOptions, DicFaceRestorer, Trained
from fvr.methods.fidelity import LEAST
from fvr.methods.registry import build_restorer
from fvr.methods.tasks import Task, pull_push_fill
from fvr.metrics.fidelity import psnr
from fvr.physics.linear.inpaint import brush_mask
from fvr.training.data.degradations import benchmark_input
from fvr.training.data.faces import FEDERAL, Faces

SHARED = Path(__file__).resolve().parents[3] / "shared"


def the_portrait() -> torch.Tensor:
    """An aligned crop of a portrait (NASA, public domain) that is in no training set, (1, 3, 512, 512)."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    frames = moving_portrait(24)[:1]
    track = find_tracks([(0, frames)], load_detector("blazeface"))[0]
    return align(frames, track, 0)


@pytest.fixture(scope="module", params=["a bundled portrait", "held-out people"])
def truth(request) -> torch.Tensor:
    """Faces (n, 3, 512, 512) in [0, 1]."""
    if request.param == "a bundled portrait":
        return the_portrait()
    if not (SHARED / "faces512" / "val").is_dir():
        pytest.skip("needs ../shared/faces512")
    faces = Faces(SHARED / "faces512", "val", 512, FEDERAL, in_memory=0)
    return torch.stack([faces.face(index) for index in range(0, 48, 12)])


def embedded(**settings: str):
    return build_restorer("dicface", weights=weights_for("dicface", settings), settings=settings)


def each_alone(restorer, crops: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
    """Restored crops, every crop a clip of its own."""
    every = [slice(i, i + 1) for i in range(len(crops))]
    return torch.cat([restore_frames(restorer, crops[one], masks=None if masks is None else masks[one]) for one in every])


def test_grey_faces_get_plausible_skin(truth):
    result = each_alone(embedded(mode="colourise"), luma(truth).expand_as(truth))
    assert torch.allclose(luma(result), luma(truth), atol=0.02)  # the light is the input's
    wrong, grey = ((picture - luma(picture) - truth + luma(truth)).square().mean().sqrt() for picture in (result, luma(truth).expand_as(truth)))
    assert wrong < 0.85 * grey
    skin = result[..., 260:400, 200:312].mean((2, 3)).clamp(0, 1)  # nose, cheeks and mouth of the template
    for colour in skin:
        hue, saturation, _ = cv2.cvtColor(colour.view(1, 1, 3).numpy(), cv2.COLOR_RGB2HSV)[0, 0]
        assert (hue < 40 or hue > 345) and 0.08 < saturation < 0.7


def test_holes_are_filled_better_than_by_their_rim_and_nothing_else_changes(truth):
    hole = torch.stack([~brush_mask((512, 512), 0.2, 0.08, number)[None] for number in range(len(truth))]).float()
    result = each_alone(embedded(mode="inpaint"), torch.where(hole > 0, 1.0, truth), hole)
    known = (hole == 0).expand_as(truth)
    assert torch.equal(result[known], truth[known])
    simple = torch.stack([telea(face, mask) for face, mask in zip(truth, hole, strict=True)])
    ours, telea_s = (10 * torch.log10(1 / (picture - truth)[~known].square().mean()) for picture in (result, simple))
    assert ours > telea_s


def telea(face: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    picture = (255 * face.permute(1, 2, 0).numpy()).round().astype(np.uint8)
    filled = cv2.inpaint(np.ascontiguousarray(picture), (hole[0].numpy() > 0).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return torch.from_numpy(filled).permute(2, 0, 1) / 255


def test_weights_for_one_task_say_so_when_asked_for_another():
    restorer = DicFaceRestorer(small_dicface(), trained=Trained("colourise"))
    assert restorer.options.mode == "colourise" and restorer.task == Task("colourise", keep_luminance=True)
    with pytest.raises(ValueError, match="trained to colourise, and the mode is inpaint: set the mode to colourise, or load weights"):
        restorer.configured(mode="inpaint")
    with pytest.raises(ValueError, match="trained to inpaint, and the mode is restore"):
        DicFaceRestorer(small_dicface(), DicFaceOptions(), trained=Trained("inpaint"))


@pytest.mark.parametrize("side", [37, 64])
def test_filling_from_the_rim_keeps_what_is_known_and_spreads_it(side):
    crops = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    hole = (~brush_mask((side, side), 0.4, 0.15, 1)).float()[None, None].expand(2, 1, -1, -1)
    filled = pull_push_fill(crops, hole)
    assert torch.equal(filled[(hole == 0).expand_as(filled)], crops[(hole == 0).expand_as(crops)])
    assert filled.min() >= crops.min() and filled.max() <= crops.max()
    flat = torch.full_like(crops, 0.3)
    assert torch.allclose(pull_push_fill(torch.where(hole > 0, 1.0, flat), hole), flat, atol=1e-6)
    assert torch.allclose(pull_push_fill(crops, torch.ones_like(hole)), torch.full_like(crops, 0.5))  # nothing known
    assert torch.equal(pull_push_fill(crops, torch.zeros_like(hole)), crops)


@pytest.mark.parametrize("method", ["dicface", "codeformer"])
def test_fidelity_ends_where_the_embedded_network_still_draws_a_face(truth, method):
    """At 0 it is better than enlarging by bicubic, which with codes alone (w = 0) it is not."""
    small = F.interpolate(truth, (128, 128), mode="area")
    seen = benchmark_input("x4 blur, noise 0.03", small, seed=0)
    restorer = build_restorer(method, weights=weights_for(method, {}), settings={"fidelity": "0"})
    assert restorer.weight == LEAST and restorer.configured(fidelity=1.0).weight == 1
    result = F.interpolate(each_alone(restorer, seen), (128, 128), mode="area")
    assert psnr(result, small).mean() > psnr(seen, small).mean() + 1


def test_published_weights_keep_the_whole_range_of_fidelity():
    restorer = DicFaceRestorer.of_file(small_dicface(), DicFaceOptions(fidelity=0.0), notes={})
    assert restorer.weight == 0
