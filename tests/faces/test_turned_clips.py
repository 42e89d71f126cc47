"""Clips that lie or stand on their heads: everybody found in every frame, and cut out upright."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fvr.faces import align, find_tracks
from fvr.video import open_source

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "clips"
pytestmark = pytest.mark.skipif(not CLIPS.is_dir(), reason="needs ../shared/clips")
FRAMES = 8


@pytest.fixture(scope="module", params=["clean_face_512", "multiface_2people_480x270", "degraded_single_388x512"])
def clip(request):
    (piece,) = open_source(CLIPS / f"{request.param}.mp4", count=FRAMES).chunks(FRAMES)
    return piece.frames


@pytest.fixture(scope="module")
def upright(clip, detector):
    return crops(clip, detector)


def crops(frames, detector):
    """Per track its crops at 64 x 64, people from left to right in the first of them."""
    tracks = find_tracks([(0, frames)], detector, recognise=False)
    assert tracks and all(len(track) == FRAMES and bool(track.detected.all()) for track in tracks)
    return [torch.nn.functional.avg_pool2d(align(frames, track, 0), 8) for track in tracks]


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_rotated_clip_gives_the_crops_of_the_upright_one(clip, detector, upright, quarter):
    turned = crops(torch.rot90(clip, quarter, (2, 3)), detector)
    assert len(turned) == len(upright)
    for one in turned:
        assert min(float((one - other)[..., 12:52, 12:52].abs().mean()) for other in upright) < 0.05
