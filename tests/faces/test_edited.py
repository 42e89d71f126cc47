"""Crops that any model has changed, pasted back: what was not changed stays, and what a VAE costs cancels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from fvr.demo import moving_portrait
from fvr.faces import FaceClip, Paster, align, find_tracks, load_detector, with_context
from fvr.faces.compositing.edited import edited_faces
from fvr.faces.detection.mesh_points import roll_of
from fvr.faces.detection.mesh_tracking import MeshEstimator, Region, region_of
from fvr.video import ShotCutDetector

PLAIN = Paster(fade=False)


@pytest.fixture(params=[(2.5, 1.0), (2.5, 2.0), (0.7, 3.0)], ids="scale {0[0]} context {0[1]}".format)
def scene(request, texture, track_of):
    """Frames of two people and their clips, as Face Align gives them."""
    scale, context = request.param
    frames = torch.stack([texture(500, 800, seed, blur=0.5) for seed in range(3)])
    left = with_context(track_of(3, (500, 800), scale, centre=(250, 250)), context)
    right = with_context(replace(track_of(2, (500, 800), scale, centre=(550, 250), start=1), person=1), context)
    return frames, [FaceClip(track, align(frames[track.start : track.stop], track, track.start)) for track in (left, right)]


def pasted(paster, frames, clips):
    return paster.paste(frames, 0, [(clip.track, clip.crops, align(frames[clip.track.start :], clip.track, clip.track.start)) for clip in clips])


def batch(clips):
    return torch.cat([clip.crops for clip in clips])


def test_unedited_crops_leave_the_frames_alone(scene):
    frames, clips = scene
    out, mask = pasted(PLAIN, frames, edited_faces(clips, batch(clips)))
    assert torch.equal(out, frames) and mask.max() == 0


def test_a_zero_difference_leaves_the_frame_bit_exact(scene):
    """Whatever the round trip did to them, at any size."""
    frames, clips = scene
    for side in (512, 768):
        through = torch.rand(5, 3, side, side, generator=torch.Generator().manual_seed(side))
        out, mask = pasted(PLAIN, frames, edited_faces(clips, through, decoded=through))
        assert torch.equal(out, frames) and mask.max() == 0


def test_autoencoder_error_cancels(scene):
    """A VAE that blurs, and an edit that brightens by 0.1: the difference keeps the detail, the plain paste does not."""
    frames, clips = scene
    crops = batch(clips)
    decoded = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(crops, 8), (512, 512), mode="bilinear") * 0.9
    edited = decoded + 0.05
    out, mask = pasted(PLAIN, frames, edited_faces(clips, edited, decoded=decoded))
    inner = (mask > 0.999)[:, None].expand_as(frames)
    wrong = (out[inner] - frames[inner] - 0.05).abs() > 2e-3
    assert wrong.float().mean() < 0.01, "but for what has reached white"
    plain, _ = pasted(PLAIN, frames, edited_faces(clips, edited))
    assert ((plain[inner] - frames[inner] - 0.05).abs() > 0.01).float().mean() > 0.5


def test_only_the_face_is_pasted_at_any_context(texture, track_of):
    frames = texture(500, 800)[None]
    track = track_of(1, (500, 800), 2.0)
    masks = []
    for context in (1.0, 1.7, 3.0):
        wide = with_context(track, context)
        crops = align(frames, wide, 0)
        out, mask = PLAIN.paste(frames, 0, [(wide, 1 - crops, crops)])
        assert torch.equal(out[:, :, mask[0] == 0], frames[:, :, mask[0] == 0])
        masks.append(mask)
        back = wide.matrices[0, :, :2]
        assert_close(torch.linalg.det(back).sqrt().item(), 2.0 / context, atol=1e-4, rtol=0)
    for mask in masks[1:]:
        assert_close(mask, masks[0], atol=1e-4, rtol=0)
    assert_close(with_context(with_context(track, 3.0), 1.0).matrices, track.matrices, atol=1e-3, rtol=0)


def test_context_gives_the_documented_face_heights():
    """From the chin to the top of the forehead, points 152 and 10 of FaceMesh; of 79 faces of ../shared eight in ten lie between 1.56 and 1.65."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    frames = moving_portrait(1)
    (track,) = find_tracks([(0, frames)], load_detector("blazeface"), ShotCutDetector())
    mesh_estimator = MeshEstimator()
    for context, heights in ((1.0, 1.6), (1.3, 2.0), (1.9, 3.0)):
        (crop,) = align(frames, with_context(track, context), 0).numpy()
        mesh, _ = mesh_estimator(crop, Region(256, 256 + 40 / context, 400 / context, 0.0))
        for _ in range(2):
            mesh, sure = mesh_estimator(crop, region_of(mesh, roll_of(mesh)))
        assert sure > 0 and 512 / float((mesh[10] - mesh[152])[:2].norm()) == pytest.approx(heights, rel=0.1)


def test_the_parser_gets_the_template_crop_at_any_context(texture, track_of):
    """ParseNet gets the template's part of a wide crop, at 512."""
    frames = texture(500, 800, blur=2.0)[None]
    track = track_of(1, (500, 800), 2.0)
    seen = []

    def parser(crops):
        seen.append(crops)
        return torch.ones(len(crops), 512, 512)

    for context in (1.0, 2.0):
        wide = with_context(track, context)
        crops = align(frames, wide, 0)
        Paster(fade=False, parser=parser).paste(frames, 0, [(wide, crops, None)])
    assert (seen[0] - seen[1]).abs().mean() < 0.01


def test_mask_and_strength_weight_the_edit(scene):
    _, clips = scene
    crops = batch(clips)
    edited = 1 - crops
    left = torch.zeros(1, 1, 64, 64)
    left[..., :32] = 1
    half = batch(edited_faces(clips, edited, mask=left, strength=0.5))
    assert torch.equal(half[..., 300:], crops[..., 300:])
    assert_close(half[..., :200], (0.5 * crops + 0.5 * edited)[..., :200])
    each = torch.stack([torch.full((1, 8, 8), float(k == 4)) for k in range(5)])
    one = batch(edited_faces(clips, edited, mask=each))
    assert torch.equal(one[:4], crops[:4])
    assert_close(one[4], edited[4])


def test_edits_of_any_size_are_accepted(scene):
    _, clips = scene
    crops = batch(clips)
    large = torch.nn.functional.interpolate(crops, (1024, 1024), mode="bicubic", align_corners=False).clamp(0, 1)
    assert (batch(edited_faces(clips, large)) - crops).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"edited": torch.zeros(4, 3, 512, 512)}, r"4 edited crops came for faces that have 5 \(person 0: 3, person 1: 2\)"),
        ({"edited": torch.zeros(5, 3, 512, 512), "decoded": torch.zeros(8, 3, 512, 512)}, "8 decoded crops came"),
        ({"edited": torch.zeros(5, 3, 512, 768)}, "crops of 768 x 512 came, and those of Face Align are square"),
        ({"edited": torch.zeros(5, 3, 512, 512), "mask": torch.zeros(2, 1, 8, 8)}, "2 masks came for 5 crops"),
        ({"edited": torch.zeros(5, 3, 512, 512), "strength": float("nan")}, "strength is 0 to 1, got nan"),
    ],
)
def test_what_does_not_fit_is_refused(scene, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        edited_faces(scene[1], **given)


def test_context_below_one_is_refused(track_of):
    with pytest.raises(ValueError, match="context is 1 or more"):
        with_context(track_of(1, (100, 100), 2.0), 0.5)
