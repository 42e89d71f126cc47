"""What lies before a face fades it; what belongs to it, and light, do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from fvr.faces import aligned_track, find_tracks, report
from fvr.faces.compositing.occlusion import outside_mesh, unoccluded
from fvr.faces.compositing.strength import strengths
from fvr.faces.detection.detectors import following
from fvr.faces.detection.mesh_points import FACE_OVAL, MESH_BOUNDS, SPOKES, outline
from fvr.faces.tracking.coverage import POINTS, colours, covered
from fvr.faces.tracking.report import table
from fvr.video import open_source

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="needs ../shared/clips")
COUNT, HELD = 18, slice(6, 12)


@pytest.fixture(scope="module")
def clip():
    return torch.cat([piece.frames for piece in open_source(CLIPS / "clean_face_512.mp4", count=COUNT).chunks(COUNT)])


@pytest.fixture(scope="module")
def faces(clip, detector):
    return [found[0] for found in following(detector)(clip)]


def before(frames, faces, share, colour):
    """Frames of HELD with something from below before `share` of the face."""
    out = frames.clone()
    for k in range(HELD.start, HELD.stop):
        x0, y0, x1, y1 = faces[k].box.round().int().tolist()
        top = y1 - round(share * (y1 - y0))
        out[k, :, top:, x0 - 20 : x1 + 20] = colour(torch.arange(x0 - 20, x1 + 20))
    return out


def fingers(x):
    return torch.tensor([0.8, 0.6, 0.5])[:, None, None] * (0.8 + 0.2 * torch.cos(x / 12))


@needs_clips
def test_an_occluding_hand_fades_only_its_frames(clip, faces, detector):
    (track,) = find_tracks([(0, before(clip, faces, 0.5, fingers))], detector, recognise=False)
    assert track.covered is not None and track.outline is not None and track.outline.shape == (COUNT, SPOKES)
    assert float(track.covered[HELD].min()) > 0.4 and float(track.covered[:5].max()) < 0.1 and float(track.covered[13:].max()) < 0.1
    level = strengths(track)
    assert float(level[9]) < 0.3 and float(level[:3].min()) > 0.95 and float(level[-3:].min()) > 0.95
    said = report([track], [track], COUNT).people[0]
    assert said.covered == 6 and "covered" in said.marks and "covered" in table([track], str)


def look(frames, faces):
    """Of known meshes, so that every change of the picture costs no detection."""
    return torch.stack([colours(frame, face.landmarks, face.mesh) for frame, face in zip(frames, faces, strict=True)])


@needs_clips
def test_larger_occluders_cover_more_also_in_grey(clip, faces):
    shares = [float(covered(look(before(clip, faces, share, fingers), faces))[HELD].median()) for share in (0.0, 0.3, 0.5, 0.7)]
    grey = [float(covered(look(before(clip, faces, s, fingers).mean(1, keepdim=True).expand(-1, 3, -1, -1), faces))[HELD].median()) for s in (0, 0.5)]
    assert shares[0] < 0.05 < 0.1 < shares[1] < shares[2] < shares[3] and grey[0] < 0.05 and grey[1] > 0.35


@needs_clips
def test_a_mostly_occluded_track_still_finds_its_visible_frames(clip, faces):
    """The usual face is the one that looks like a face, not the one that is seen most often."""
    shown = before(clip, faces, 0.5, fingers)
    some = [*range(6, 12), *range(7, 11), 0, 1, 2, 16, 17]
    share = covered(look(shown[some], [faces[k] for k in some]))
    assert float(share[:10].min()) > 0.3 and float(share[10:].max()) < 0.1


def lower(faces, change):
    """A change of the lower third of every face."""

    def changed(frames):
        out = frames.clone()
        for picture, face in zip(out, faces, strict=True):
            x0, y0, x1, y1 = face.box.round().int().tolist()
            top = y1 - (y1 - y0) // 3
            picture[:, top:y1, x0:x1] = change(picture[:, top:y1, x0:x1])
        return out

    return changed


def shade(frames):
    """A shadow whose edge wanders over the face."""
    x = torch.arange(frames.shape[-1]).float()
    return torch.stack([frame * (0.45 + 0.55 * ((x - 150 - 15 * k) / 40).sigmoid()) for k, frame in enumerate(frames)])


@needs_clips
@pytest.mark.parametrize(
    "change",
    [
        lambda f: f,
        lambda f: f.mean(1, keepdim=True).expand(-1, 3, -1, -1),
        lambda f: 0.35 * f**1.6,  # dark skin, and little light
        shade,
        lambda f: f * torch.linspace(0.5, 1, COUNT)[:, None, None, None],
        lambda f: f * torch.stack([torch.linspace(1, 0.7, COUNT), torch.ones(COUNT), torch.linspace(0.7, 1, COUNT)], 1)[..., None, None],
        lambda f: f + 0.05 * torch.randn(f.shape, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["as it is", "grey", "dark", "shadow", "light goes up", "light changes colour", "noise"],
)
def test_illumination_and_expressions_are_no_occlusion(clip, faces, change):
    assert float(covered(look(change(clip).clamp(0, 1), faces)).max()) < 0.15


@needs_clips
def test_a_beard_is_no_occlusion(clip, faces):
    bearded = lower(faces, lambda part: 0.3 * part.mean(0) * torch.tensor([1.1, 0.9, 0.8])[:, None, None])(clip)
    assert float(covered(look(bearded, faces)).max()) < 0.15


def test_too_few_frames_give_no_occlusion():
    seen = torch.randint(0, 255, (5, len(POINTS), 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert covered(seen).tolist() == [0.0] * 5


def ellipse(x_half, y_half):
    x0, y0, x1, y1 = MESH_BOUNDS
    turn = torch.linspace(-torch.pi / 2, 1.5 * torch.pi, len(FACE_OVAL) + 1)[:-1]
    mesh = torch.zeros(468, 2)
    mesh[list(FACE_OVAL)] = torch.stack([(x0 + x1) / 2 + x_half * turn.cos(), (y0 + y1) / 2 + y_half * turn.sin()], 1)
    return mesh


def test_the_outline_of_the_mean_mesh_is_the_mean_outline():
    x0, y0, x1, y1 = MESH_BOUNDS
    spokes = outline(ellipse((x1 - x0) / 2, (y1 - y0) / 2), torch.eye(2, 3))
    assert_close(spokes[[0, 4, 8, 12]], torch.tensor([x1 - x0, y1 - y0, x1 - x0, y1 - y0]) / 2, atol=1.5, rtol=0)
    assert float((outside_mesh(64, spokes[None]) - outside_mesh(64)).abs().max()) < 0.1
    turned = torch.tensor([[0.0, 2.0, 7.0], [-2.0, 0.0, 9.0]])  # the map from a frame whose faces lie
    back = torch.linalg.inv(turned[:, :2])
    lying = (ellipse(90, 120) - turned[:, 2]) @ back.mT
    assert_close(outline(lying, turned), outline(ellipse(90, 120), torch.eye(2, 3)), atol=1e-2, rtol=1e-4)


def test_the_mask_follows_a_narrow_outline():
    """A profile's mesh ends where the mean one goes on: what is painted there counts as beside the face."""
    rng = torch.Generator().manual_seed(0)
    original = torch.nn.functional.interpolate(0.3 + 0.3 * torch.rand(1, 3, 8, 8, generator=rng), size=(512, 512), mode="bicubic")
    restored = original.clone()
    restored[:, 0, 250:350, 330:400] += 0.16
    narrow = outline(ellipse(60, 160), torch.eye(2, 3))[None]
    wide = unoccluded(restored, original)[0, 260:340, 345:385].mean()
    assert float(unoccluded(restored, original, 1.0, narrow)[0, 260:340, 345:385].mean()) < 0.3 < 0.6 < float(wide)


def test_the_occlusion_gate_is_smooth_in_time_and_fraction():
    rising = replace(aligned_track(40), covered=torch.linspace(0, 1, 40))
    level = strengths(rising)
    assert float(level[8]) > 0.99 and float(level[-4]) < 0.01 and float(level.diff().abs().max()) < 0.15
