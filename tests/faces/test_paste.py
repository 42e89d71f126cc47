from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import pytest
import torch
from torch.testing import assert_close

from fvr.faces import Paster, align
from fvr.faces.compositing.strength import strengths
from fvr.faces.warp import low_pass

PLAIN = Paster(fade=False, grain="off")


def psnr(a, b, where=None):
    error = (a - b).square().mean(-3)
    return -10 * torch.log10((error if where is None else error[where]).mean().clamp(min=1e-14))


@pytest.fixture(params=[0.7, 1.0, 1.25, 2.0, 5.0], ids="scale {}".format)
def scene(request, texture, track_of):
    """Frames with a face of the given scale, its track, and its crops."""
    size = (900, 1000) if request.param < 1 else (640, 700)
    track = track_of(2, size, request.param)
    frames = torch.stack([texture(*size, seed) for seed in range(2)])
    return frames, track, align(frames, track, 0)


def test_unrestored_crops_give_the_frame_again(scene):
    """To the bit where it is known that nothing changed them, also in one of two frames."""
    frames, track, crops = scene
    out, mask = PLAIN.paste(frames, 0, [(track, crops, None)])
    assert psnr(out, frames) > 90
    one = torch.stack([crops[0], crops[1].flip(-1)])
    for paster in (PLAIN, replace(PLAIN, colour_match=True)):
        out, mask = paster.paste(frames, 0, [(track, one, crops)])
        assert torch.equal(out[0], frames[0]) and not mask[0].any()
        assert not torch.equal(out[1], frames[1]) and mask[1].any()


def test_nothing_changes_outside_the_mask(scene):
    frames, track, crops = scene
    before = frames.clone()
    out, mask = PLAIN.paste(frames, 0, [(track, 1 - crops, crops)])
    outside = (mask == 0)[:, None].expand_as(frames)
    assert torch.equal(out[outside], frames[outside])
    assert torch.equal(frames, before)
    changed = (out != frames).any(1)
    assert (changed & (mask > 0.5)).sum() > 0.9 * (mask > 0.5).sum()
    assert 0.05 < float((mask > 0).float().mean()) * track.scale**2 * frames[0, 0].numel() / 512**2 <= 1.05


def test_paste_over_reuses_the_frames_memory(texture, track_of):
    """The same pixels as on copies; of two faces, the second is measured against the frame without the first; without a face nothing is copied."""
    frames = torch.stack([texture(300, 320, seed) for seed in range(2)])
    track = track_of(2, (300, 320), 1.2)
    crops = align(frames, track, 0)
    other = replace(track, person=1, matrices=track.matrices + torch.tensor([[0, 0, 90.0], [0, 0, -60.0]]))
    one, two = (track, 0.8 * crops, crops), (other, 1 - crops, align(frames, other, 0))
    for items in ([], [one], [one, two]):
        expected, _ = PLAIN.paste(frames, 0, items)
        own = frames.clone()
        assert torch.equal(PLAIN.paste_over(own, 0, items), expected)
        if len(items) < 2:
            assert torch.equal(own, expected)


def test_the_restored_face_replaces_the_original(scene, texture):
    frames, track, crops = scene
    restored = torch.full_like(crops, 0.25)
    restored[:, 0] = 0.75
    out, mask = PLAIN.paste(frames, 0, [(track, restored, crops)])
    inner = mask > 0.99
    shown = out.permute(0, 2, 3, 1)[inner].mean(0)
    assert_close(shown, torch.tensor([0.75, 0.25, 0.25]), atol=0.01, rtol=0)


def test_chunks_agree_with_the_whole(scene):
    frames, track, crops = scene
    restored = crops.flip(1)
    whole, mask = PLAIN.paste(frames, 0, [(track, restored, crops)])
    for k in range(2):
        one, one_mask = PLAIN.paste(frames[k : k + 1], k, [(track, restored[k : k + 1], crops[k : k + 1])])
        assert torch.equal(one[0], whole[k]) and torch.equal(one_mask[0], mask[k])


def test_noise_is_replaced_where_the_face_is_smaller_than_its_crop(texture, track_of):
    track = track_of(1, (400, 400), 3.0)
    clean = texture(400, 400, blur=2.0)[None]
    noisy = (clean + 0.08 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    out, mask = PLAIN.paste(noisy, 0, [(track, align(clean, track, 0), align(noisy, track, 0))])
    inner = mask > 0.99
    assert psnr(out, clean, inner) > psnr(noisy, clean, inner) + 12


def test_frame_detail_is_kept_where_the_face_is_larger_than_its_crop(texture, track_of):
    track = track_of(1, (1000, 1000), 0.5)
    frame = texture(1000, 1000, blur=0.4)[None]
    crops = align(frame, track, 0)
    out, mask = PLAIN.paste(frame, 0, [(track, (crops + 0.1).clamp(0, 1), crops)])
    inner = mask[0] > 0.99
    fine = lambda image: (image - low_pass(image, 3.0))[:, inner]  # noqa: E731
    assert_close(fine(out[0]).std(), fine(frame[0]).std(), rtol=0.02, atol=0)


def test_a_face_that_hardly_changes_keeps_its_finest_detail(texture, track_of):
    """Resampling a crop back to a third of its size took 3 % of it, however little the restoration changed."""
    track = track_of(1, (400, 400), 3.0)
    frame = texture(400, 400, blur=0.4)[None]
    crops = align(frame, track, 0)
    out, mask = PLAIN.paste(frame, 0, [(track, (crops + 0.001).clamp(0, 1), crops)])
    assert psnr(out, frame, mask > 0.99) > 55


def test_a_restored_crop_is_pasted_without_aliasing(track_of):
    track = track_of(1, (300, 300), 4.0, drift=0)
    checks = ((torch.arange(512)[:, None] + torch.arange(512)) % 2).float().expand(1, 3, -1, -1)
    out, mask = PLAIN.paste(torch.full((1, 3, 300, 300), 0.5), 0, [(track, checks, None)])
    assert (out[0][:, mask[0] > 0.99] - 0.5).abs().max() < 0.02


def test_a_growing_face_never_pops(texture, track_of):
    """From direct to difference paste: between neighbouring scales the picture moves no more than elsewhere."""
    frame = texture(700, 700)[None]
    pictures = []
    for scale in torch.linspace(0.95, 1.6, 14).tolist():
        track = track_of(1, (700, 700), scale)
        crops = align(frame, track, 0)
        pictures.append(PLAIN.paste(frame, 0, [(track, 0.5 * crops, crops)])[0][0, :, 250:450, 250:450])
    steps = torch.stack([(a - b).abs().mean() for a, b in pairwise(pictures)])
    assert steps.max() < 0.005


@pytest.mark.parametrize("feather", [0, 8, 60])
def test_feather_sets_the_border_width(feather, track_of):
    track = track_of(1, (800, 800), 1.0, drift=0)
    _, mask = Paster(feather=feather, fade=False, grain="off").paste(torch.rand(1, 3, 800, 800), 0, [(track, torch.rand(1, 3, 512, 512), None)])
    soft = ((mask > 0) & (mask < 1)).sum()
    assert soft == pytest.approx(512**2 - (512 - 2 * feather) ** 2, rel=0.03, abs=2500)
    steepest = max(float(mask.diff(dim=-1).abs().max()), float(mask.diff(dim=-2).abs().max()))
    assert steepest == 1 if feather == 0 else steepest < 2 / feather


def test_strength_blends_linearly(texture, track_of):
    track = track_of(1, (200, 200), 3.0)
    frame = texture(200, 200)[None]
    crops = 1 - align(frame, track, 0)
    none, full, half = (Paster(strength=s, fade=False, grain="off").paste(frame, 0, [(track, crops, None)]) for s in (0.0, 1.0, 0.5))
    assert torch.equal(none[0], frame) and not none[1].any()
    assert_close(half[0], (frame + full[0]) / 2, atol=1e-6, rtol=0)
    assert_close(half[1], full[1] / 2)


def test_frames_without_the_face_pass_through(texture, track_of):
    track = track_of(2, (150, 150), 4.0, start=3)
    frames = texture(150, 150).expand(6, -1, -1, -1)
    crops = torch.zeros(2, 3, 512, 512)
    out, mask = PLAIN.paste(frames, 0, [(track, crops, None)])
    assert [bool(m.any()) for m in mask] == [False, False, False, True, True, False]
    assert torch.equal(out[[0, 1, 2, 5]], frames[[0, 1, 2, 5]])
    later, _ = PLAIN.paste(frames[:2], 10, [(track, crops[:0], None)])
    assert torch.equal(later, frames[:2])


def test_the_parser_masks_the_paste(texture, track_of):
    track = track_of(1, (300, 300), 2.0, drift=0)
    frame = texture(300, 300)[None]
    left = torch.zeros(1, 512, 512)
    left[..., :256] = 1
    out, mask = Paster(fade=False, grain="off", parser=lambda crops: left).paste(frame, 0, [(track, torch.zeros(1, 3, 512, 512), None)])
    whole = PLAIN.paste(frame, 0, [(track, torch.zeros(1, 3, 512, 512), None)])[1]
    assert mask.sum() == pytest.approx(float(whole.sum()) / 2, rel=0.02)
    assert (mask <= whole + 1e-6).all()
    assert torch.equal(out[0][:, mask[0] == 0], frame[0][:, mask[0] == 0])


def test_colour_match_removes_a_cast(texture, track_of):
    track = track_of(1, (400, 400), 2.0)
    frame = texture(400, 400, blur=3.0)[None]
    crops = align(frame, track, 0)
    cast = (0.6 * crops + torch.tensor([0.25, 0.1, 0.0])[:, None, None]).clamp(0, 1)
    matched, mask = Paster(fade=False, grain="off", colour_match=True).paste(frame, 0, [(track, cast, crops)])
    plain, _ = PLAIN.paste(frame, 0, [(track, cast, crops)])
    inner = mask > 0.99
    assert psnr(matched, frame, inner) > psnr(plain, frame, inner) + 10


def test_crops_that_do_not_fit_are_refused(track_of):
    track = track_of(2, (100, 100), 5.0)
    with pytest.raises(ValueError, match=r"person 0 needs crops \(2, 3, 512, 512\)"):
        PLAIN.paste(torch.zeros(2, 3, 100, 100), 0, [(track, torch.zeros(1, 3, 512, 512), None)])
    with pytest.raises(ValueError, match="feather"):
        Paster(feather=-1)
    with pytest.raises(ValueError, match="strength"):
        Paster(strength=1.5)


def test_tracks_that_fill_their_shot_do_not_fade(track_of):
    assert strengths(track_of(1, (300, 300), 2.0)).tolist() == [1.0]
    assert_close(strengths(track_of(30, (300, 300), 2.0)), torch.ones(30))


def test_track_ends_within_a_shot_fade(track_of):
    track = track_of(30, (300, 300), 2.0, start=10, shot=(0, 60))
    level = strengths(track)
    assert level[0] < 0.3 and level[-1] < 0.3
    assert (level[5:-5] == 1).all()
    assert level.diff().abs().max() < 0.3
    assert strengths(replace(track, shot=(10, 60)))[0] == 1


def test_interpolated_blurred_and_tiny_faces_fade_smoothly(track_of):
    track = track_of(40, (300, 300), 2.0)
    detected = torch.ones(40, dtype=torch.bool)
    detected[15:25] = False
    gap = strengths(replace(track, detected=detected))
    sharp = torch.full((40,), 0.5)
    sharp[18:23] = 0.05
    blurred = strengths(replace(track, sharpness=sharp))
    for level in (gap, blurred):
        assert level[20] < 0.5 and (level[:8] > 0.99).all() and (level[-8:] > 0.99).all()
        assert level.diff().abs().max() < 0.35
    soft_throughout = strengths(replace(track, sharpness=torch.full((40,), 0.05)))
    assert_close(soft_throughout, torch.ones(40))
    sizes = torch.linspace(8, 60, 40)
    growing = strengths(replace(track, boxes=torch.stack([0 * sizes, 0 * sizes, sizes, sizes], 1)))
    assert growing[0] < 0.01 and growing[-1] > 0.99 and (growing.diff() >= -1e-6).all()


def test_gap_fade_of_an_hour_is_linear_in_its_length(track_of):
    """An hour of one face: linear in its length, and a filled-in face is as strong as it is near to a detection."""
    track = track_of(90_000, (300, 300), 2.0)
    detected = torch.ones(90_000, dtype=torch.bool)
    detected[1000:1007] = detected[1010:1013] = False
    from fvr.faces.compositing.strength import gap_fade

    level = gap_fade(replace(track, detected=detected))
    assert_close(level[1000:1007], level[1000:1007].flip(0))
    assert level[1003] < level[1001] < level[1000] < 1 and level[1010] == level[1012] == level[1000]
    assert (level[detected] == 1).all()


def test_occluders_are_kept_and_the_face_is_restored():
    """A hand that the restorer painted over shows in the result; detail that it drew elsewhere does too."""
    from fvr.faces.compositing.occlusion import unoccluded

    rng = torch.Generator().manual_seed(0)
    face = torch.nn.functional.interpolate(0.3 + 0.3 * torch.rand(1, 3, 8, 8, generator=rng), size=(512, 512), mode="bicubic").clamp(0, 1)
    restored = (face + 0.1 * torch.randn(1, 3, 512, 512, generator=rng)).clamp(0, 1)
    original = face.clone()
    original[:, :, 300:420, 100:260] = 0.95
    clear = unoccluded(restored, original)[0]
    assert float(clear[310:410, 110:250].max()) < 0.05
    assert float(clear[:250].min()) > 0.95 and float(clear[:, 330:].min()) > 0.95
    assert float(unoccluded(restored, face).min()) > 0.99
    assert float(unoccluded(restored + 0.05, face).min()) > 0.99


def test_a_skin_coloured_hand_is_detected_by_structure():
    from fvr.faces.compositing.occlusion import unoccluded

    rng = torch.Generator().manual_seed(1)
    face = torch.nn.functional.interpolate(0.45 + 0.2 * torch.rand(1, 1, 10, 10, generator=rng), size=(512, 512), mode="bicubic").repeat(1, 3, 1, 1)
    fingers = 0.55 + 0.05 * torch.sin(torch.arange(512) / 10)[:, None].expand(512, 512)
    original = face.clone()
    original[:, :, 260:420, 180:340] = fingers[260:420, 180:340]
    clear = unoccluded(face, original)[0]
    assert float(clear[280:400, 200:320].mean()) < 0.25
    assert float(clear[:180].min()) > 0.95 and float(clear[500:].min()) > 0.95


@pytest.mark.parametrize("sigma", [8, 16, 30])
def test_blur_neither_is_nor_hides_an_occluder(sigma):
    """The truth is restored from a face that was blurred: nearly all of it was kept out."""
    from fvr.faces.compositing.occlusion import unoccluded

    rng = torch.Generator().manual_seed(3)
    face = torch.nn.functional.interpolate(0.2 + 0.6 * torch.rand(1, 3, 14, 14, generator=rng), size=(512, 512), mode="bicubic").clamp(0, 1)
    covered = face.clone()
    covered[:, :, 300:420, 150:300] = 0.02
    blurred = [torch.from_numpy(cv2.GaussianBlur(x[0].permute(1, 2, 0).numpy(), (0, 0), sigma)).permute(2, 0, 1)[None] for x in (face, covered)]
    assert float(unoccluded(face, blurred[0]).mean()) > 0.98
    clear = unoccluded(face, blurred[1])[0]
    assert float(clear[320:400, 170:280].max()) < 0.05 and float(clear[:150].mean()) > 0.99


def test_removed_noise_is_no_occluder_on_small_faces():
    """Pixels of a frame are 16 of the crop here, and a restorer takes the noise out of them."""
    from fvr.faces.compositing.occlusion import unoccluded

    rng = torch.Generator().manual_seed(2)
    small = torch.nn.functional.interpolate(0.3 + 0.4 * torch.rand(1, 3, 4, 4, generator=rng), size=(32, 32), mode="bicubic")
    noisy = small + 0.03 * torch.randn(1, 3, 32, 32, generator=rng)
    restored, original = (torch.nn.functional.interpolate(x, size=(512, 512), mode="bicubic").clamp(0, 1) for x in (small, noisy))
    assert float(unoccluded(restored, original, 16.0).min()) > 0.95
    assert float(unoccluded(restored, original, 1.0).min()) < 0.8
