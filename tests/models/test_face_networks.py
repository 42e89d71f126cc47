"""BlazeFace and FaceMesh give what the published files give: figures of the TFLite interpreter (ai-edge-litert 2.3.0) for one pattern."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from fvr.models.blazeface import BlazeFace
from fvr.models.checkpoints.state_dict import notes_of
from fvr.models.embedded import BLAZEFACE, FACE_MESH, FOLDER, load_embedded
from fvr.models.face_mesh import FaceMesh

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pattern():
    """(1, 3, 192, 192) in [0, 1]."""
    y, x = torch.meshgrid(*[torch.arange(192, dtype=torch.float64) / 192] * 2, indexing="ij")
    return torch.stack([0.5 + 0.5 * torch.sin(2 * math.pi * (k + 1) * x + 3 * y * (k + 2)) for k in range(3)]).float()[None]


@torch.inference_mode()
def test_blazeface_is_the_published_one(pattern):
    logits, places = load_embedded(BlazeFace)(pattern * 2 - 1)
    assert logits.shape == (1, 48, 48) and places.shape == (1, 48, 48, 8, 2)
    seen = torch.stack([logits[0, y, x] for y, x in ((0, 0), (10, 30), (24, 24), (47, 47))])
    assert_close(seen, torch.tensor([-6.070, -3.817, -3.113, -8.360]), atol=2e-3, rtol=0)
    assert_close(places[0, 24, 24, :2], torch.tensor([[-2.024, -1.865], [34.728, 34.725]]), atol=2e-3, rtol=0)
    assert_close(places[0, 47, 0, 7], torch.tensor([7.610, -9.806]), atol=2e-3, rtol=0)


@torch.inference_mode()
def test_face_mesh_is_the_published_one_up_to_half_precision(pattern):
    points, presence = load_embedded(FaceMesh)(pattern)
    wanted = {0: (78.30, 114.89, -12.39), 33: (46.50, 69.38, 8.01), 152: (75.02, 158.47, 2.81), 467: (122.45, 65.81, 4.99)}
    for vertex, place in wanted.items():
        assert_close(points[0, vertex], torch.tensor(place), atol=0.04, rtol=0)
    assert float(presence) == pytest.approx(-8.016, abs=0.02)


@torch.inference_mode()
def test_a_larger_picture_is_searched_as_its_parts_are(pattern):
    """Being convolutional, the network sees in a larger picture what it sees in a tile, away from the tile's edges."""
    network = load_embedded(BlazeFace)
    wide = torch.zeros(1, 3, 192, 1152)
    wide[..., 480:672] = pattern * 2 - 1
    tile = wide[..., 192:960]
    assert_close(network(wide)[0][:, :, 120:168], network(tile)[0][:, :, 72:120], atol=5e-3, rtol=0)


def test_embedded_files_have_a_card_a_licence_and_room():
    names = [path.name for path in FOLDER.glob("*.safetensors")]
    assert {BLAZEFACE, FACE_MESH} <= set(names)
    for name in names:
        card = (FOLDER / name).with_suffix(".md").read_text(encoding="utf-8")
        assert "## Licence" in card and name in card and notes_of(FOLDER / name).get("licence"), name
    assert sum((FOLDER / name).stat().st_size for name in names) < 60_000_000
