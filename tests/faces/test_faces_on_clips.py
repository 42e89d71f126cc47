"""Real footage, subsampled to stay quick."""

from __future__ import annotations

import pytest
import torch

from fvr.faces import Paster, crop_clip, find_tracks, load_detector, select_tracks
from fvr.faces.geometry import TEMPLATE

ONE_PERSON = [
    "clean_face_480_tone.mp4",
    "clean_face_512.mp4",
    "degraded_aligned_128.mp4",
    "degraded_aligned_512.mp4",
    "degraded_single_388x512.mp4",
    "edge_rotation90_flag.mp4",
    "edge_vfr_30_15fps.mp4",
    "scene_720p_clean.mp4",
]


@pytest.fixture(scope="module")
def detector():
    return load_detector("auto")


@pytest.mark.parametrize("name", ONE_PERSON)
def test_one_person_is_found_in_every_frame(name, read_clip, detector):
    frames = read_clip(name, 6, 6)
    (track,) = find_tracks([(0, frames)], detector)
    assert (track.start, track.stop) == (0, len(frames))
    assert track.detected.all()
    if "aligned" in name:
        assert (track.landmarks.double() * 512 / frames.shape[-1] - TEMPLATE).norm(dim=-1).mean() < 25


def test_two_people_are_two_people(read_clip, detector):
    frames = read_clip("multiface_2people_480x270.mp4", 3, 18)
    tracks = find_tracks([(0, frames)], detector)
    assert [len(t) for t in tracks] == [18, 18]
    left, right = sorted(float(t.boxes[:, 0].mean()) for t in tracks)
    assert right - left > 80
    assert len(select_tracks(tracks, "largest")) == 1


def test_chunks_agree_with_the_whole_on_footage(read_clip, detector):
    frames = read_clip("degraded_single_388x512.mp4", 3, 5)
    whole = find_tracks([(0, frames)], detector)
    for chunk in (1, 3):
        parts = find_tracks([(k, frames[k : k + chunk]) for k in range(0, len(frames), chunk)], detector)
        assert all(torch.equal(a.matrices, b.matrices) and torch.equal(a.sharpness, b.sharpness) for a, b in zip(parts, whole, strict=True))


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_unrestored_crops_give_the_clean_scene_again(zoom, read_clip, detector):
    frames = read_clip("scene_720p_clean.mp4", 40, 3)
    if zoom != 1:
        frames = torch.nn.functional.interpolate(frames, scale_factor=zoom, mode="bicubic").clamp(0, 1)
    (track,) = find_tracks([(0, frames)], detector)
    clip = crop_clip(frames, track)
    out, mask = Paster(fade=False).paste(frames, 0, [(track, clip.crops, None)])
    for before, after, where in zip(frames, out, mask, strict=True):
        error = (before - after).square().mean(0)
        assert -10 * torch.log10(error[where > 0].mean()) > 40
        assert torch.equal(before[:, where == 0], after[:, where == 0])


def test_a_plant_that_briefly_resembles_a_face_is_no_track(read_clip, detector):
    frames = read_clip("scene_720p_clean.mp4", 1, 120)[104:]
    assert len(find_tracks([(0, frames)], detector)) == 1
