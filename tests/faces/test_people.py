"""Who is who: across cuts, after absences, in dissolves, and by a picture."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from fvr.faces import Identity, aligned_track, find_tracks, identity_in, report, select_tracks
from fvr.faces.geometry import TEMPLATE
from fvr.faces.tracking.people import OTHER_PERSON_DISTANCE, SAME, assign_people, change_point, clarity, embedding_crop, encode_crop, load_embedder
from fvr.faces.tracking.selection import tracks_like
from fvr.models.face_embedding import PLACES
from fvr.plots import decode_image
from fvr.video import ShotCutDetector, find_cuts, open_source

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
needs_cases = pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs ../shared/cases")
needs_faces = pytest.mark.skipif(not (SHARED / "faces512").is_dir(), reason="needs ../shared/faces512")


def seen(start, count, embedding):
    return replace(aligned_track(count), start=start, embedding=None if embedding is None else torch.tensor(embedding))


def ids(tracks):
    return [track.person for track in assign_people(tracks)]


def test_similar_tracks_are_one_person_and_the_most_frequent_is_0():
    a, b = [0.0, 0.0], [1.0, 0.0]
    assert ids([seen(0, 5, a), seen(5, 9, b), seen(14, 3, a), seen(20, 2, b)]) == [1, 0, 1, 0]


def test_faces_in_the_same_frame_are_different_people():
    assert sorted(ids([seen(0, 5, [0.0, 0.0]), seen(3, 5, [0.0, 0.0])])) == [0, 1]


def test_uncertain_tracks_stay_separate_and_are_marked_unsure():
    tracks = assign_people([seen(0, 5, [0.0, 0.0]), seen(5, 4, [SAME + 0.05, 0.0]), seen(9, 3, [3.0, 0.0]), seen(12, 2, None)])
    assert [track.person for track in tracks] == [0, 1, 2, 3]
    assert [track.unsure for track in tracks] == [True, True, False, False]
    assert "(0, 1 may be the same)" in report(tracks, tracks, 14).to_text()


def small(track, size=24.0):
    return replace(track, boxes=torch.tensor([0.0, 0.0, size, size]).repeat(len(track), 1))


def large(track):
    return small(track, 96.0)


def test_small_faces_are_merged_later_and_unsure_earlier():
    """Damaged faces of 24 pixels look alike, whoever they show: 37 of 1,640 pairs of two people are nearer than SAME there."""
    tracks = assign_people([small(seen(0, 5, [0.0, 0.0])), small(seen(5, 4, [SAME - 0.05, 0.0])), large(seen(9, 3, [0.0, 0.7]))])
    assert [track.person for track in tracks] == [0, 1, 2]
    assert [track.unsure for track in tracks] == [True, True, False]
    assert ids([small(seen(0, 5, [0.0, 0.0])), small(seen(5, 4, [SAME - 0.2, 0.0]))]) == [0, 0]
    assert ids([small(seen(0, 5, [0.0, 0.0])), large(seen(5, 4, [SAME - 0.05, 0.0]))]) == [0, 0]
    apart = [large(seen(0, 5, [0.0, 0.0])), small(seen(5, 4, [OTHER_PERSON_DISTANCE + 0.02, 0.0]), 50.0)]
    assert [track.unsure for track in assign_people(apart)] == [False, True]


def soft(track, level=0.25):
    return large(replace(track, clarity=level))


def test_blurred_faces_are_merged_later_and_unsure_earlier():
    """Faces blurred by 3 % of their side have a clarity of 0.25 and look alike: 31 of 3,916 pairs of two people are nearer than SAME there."""
    a, near = [0.0, 0.0], [SAME - 0.05, 0.0]
    tracks = assign_people([soft(seen(0, 5, a)), soft(seen(5, 4, near)), large(seen(9, 3, [0.0, 0.7]))])
    assert [track.person for track in tracks] == [0, 1, 2] and [track.unsure for track in tracks] == [True, True, False]
    assert ids([soft(seen(0, 5, a)), soft(seen(5, 4, [SAME - 0.15, 0.0]))]) == [0, 0]
    assert ids([soft(seen(0, 5, a)), large(seen(5, 4, near))]) == [0, 0]  # one sharp face of the two is enough
    assert ids([soft(seen(0, 5, a), 0.15), soft(seen(5, 4, [SAME - 0.15, 0.0]), 0.15)]) == [0, 1]


def test_clarity_is_robust_to_noise():
    """Noise lifts `sharpness` by half on a face blurred by 6 %, which so passed for one of 3 %."""
    shape = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), (150, 150), mode="bicubic")[0]
    noise = 0.02 * torch.randn(3, 150, 150, generator=torch.Generator().manual_seed(1))
    fine = torch.rand(3, 75, 75, generator=torch.Generator().manual_seed(2)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    smooth, noisy, detailed = (float(clarity(0.6 * shape.clamp(0, 1) + more)) for more in (0, noise, 0.4 * fine))
    assert abs(noisy - smooth) < 0.02 < 0.1 < detailed - smooth


def whom(tracks, like):
    return {track.person for track in tracks_like(assign_people(tracks), like)}


def test_an_unreliable_reference_matches_only_a_clearly_nearest_person():
    """A still of a clip blurred by 6 % is nearer than SAME to most people in it: 239 of 300 times others were chosen too, or alone."""
    a, b = [0.0, 0.0], [0.0, 0.6]
    cast = [soft(seen(0, 9, a), 0.16), soft(seen(10, 5, b), 0.16)]
    sharp, unreliable = (Identity(torch.tensor([0.42, 0.16]), level, 96.0) for level in (0.4, 0.16))
    assert whom(cast, sharp) == {0}  # 0.45 from one, 0.61 from the other
    assert whom(cast, unreliable) == {0}
    between = replace(unreliable, embedding=torch.tensor([0.3, 0.29]))
    with pytest.raises(ValueError, match=r"may be person 0 or 1 of this clip \(at distances of 0\.6\d and 0\.6\d\); give a clearer picture"):
        whom(cast, between)
    clear = [large(seen(0, 9, a)), large(seen(10, 5, b))]
    assert whom(clear, Identity(torch.tensor([0.55, 0.0]), 0.4, 96.0)) == {0}
    with pytest.raises(ValueError, match=r"nearest is person 0 at a distance of 0\.62, 0\.60 is the limit"):
        whom(clear, Identity(torch.tensor([0.62, 0.0]), 0.4, 96.0))


def test_a_person_is_counted_once_in_the_report():
    tracks = assign_people([seen(0, 5, [0.0, 0.0]), seen(8, 4, [0.0, 0.0])])
    said = report(tracks, tracks[:1], 12)
    assert said.restored == 5 and said.not_selected == 4 and said.no_face == 3
    (person,) = said.people
    assert (person.frames, person.tracks, person.start, person.stop) == (9, 2, 0, 12)


def test_thousands_of_tracks_are_clustered_in_seconds():
    """A film has a track for every shot and face: 60 people in 1,000 tracks, all found."""
    generator = torch.Generator().manual_seed(0)
    who = torch.randint(60, (1000,), generator=generator)
    looks = 0.07 * torch.randn(60, 128, generator=generator)[who] + 0.01 * torch.randn(1000, 128, generator=generator)
    track, began = aligned_track(1), time.process_time()
    people = ids([replace(track, start=n, embedding=look) for n, look in enumerate(looks)])
    assert time.process_time() - began < 10
    assert len({(int(a), b) for a, b in zip(who, people, strict=True)}) == len(set(people)) == len(set(who.tolist()))


def test_change_point_finds_a_change_of_person():
    a, b = torch.zeros(8, 2), torch.tensor([[1.0, 0.0]]).repeat(8, 1)
    noise = 0.1 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    assert change_point(torch.cat([a[:3], b[:5]]) + noise) == 3
    assert change_point(a + noise) is None and change_point(a[:1]) is None


def test_embedding_crops_are_aligned_and_survive_jpeg():
    frame = torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(0))
    frame = torch.nn.functional.avg_pool2d(frame[None], 9, 1, 4)[0]
    face = embedding_crop(frame, TEMPLATE.float())
    assert face.shape == (3, 150, 150)
    assert float((decode_image(encode_crop(face)) - face).abs().mean()) < 0.03
    x, y = PLACES[0]
    corner = TEMPLATE[0].round().long()
    assert_close(face[:, round(y), round(x)], frame[:, corner[1], corner[0]], atol=0.06, rtol=0)


@needs_faces
def test_a_degraded_face_is_nearest_to_its_own_person(picture_of):
    embed = load_embedder()
    people = [picture_of(k) for k in range(4)]
    ruined = [
        torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(p[None], 8), size=(512, 512), mode="bicubic")[0].clamp(0, 1) for p in people
    ]
    faces = embed(torch.stack([embedding_crop(p, TEMPLATE.float()) for p in people + ruined]))
    far = torch.cdist(faces[:4], faces[4:])
    assert float(far.diagonal().max()) < SAME < float((far + torch.eye(4)).min())


@needs_faces
def test_embeddings_are_robust_to_lighting(picture_of):
    """Dark, lit from the side, and against the light: nearer to themselves than SAME, and to nobody else."""
    side = torch.linspace(0.15, 1.25, 512)
    people = [picture_of(k) for k in (0, 5, 9, 13)]
    embed = load_embedder()

    def embedded(change):
        return embed(torch.stack([embedding_crop(change(p).clamp(0, 1), TEMPLATE.float()) for p in people]))

    known = embedded(lambda p: p)
    for light in (lambda p: 0.6 * p**2.2, lambda p: p * side, lambda p: 0.35 * p + 0.5):
        far = torch.cdist(embedded(light), known)
        assert float(far.diagonal().max()) < SAME < float((far + torch.eye(4)).min())


@pytest.fixture(scope="module")
def picture_of():
    import cv2

    paths = sorted((SHARED / "faces512" / "val").glob("*.jpg"))

    def read(k):
        return torch.from_numpy(cv2.imread(str(paths[k]))[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255

    return read


@needs_cases
def test_alternating_shots_of_two_people_are_two_people(detector):
    from fvr.pipeline import follow_faces

    source = open_source(SHARED / "cases" / "people_abab.mp4")
    tracks = follow_faces(source, detector)
    assert sorted({track.person for track in tracks}) == [0, 1] and len(tracks) == 4
    chosen = select_tracks(tracks, "0")
    assert report(tracks, chosen, 32).restored == 16
    (first,) = [piece.frames for piece in source.chunks(1) if piece.index == 0]
    like = select_tracks(tracks, "all", like=identity_in(first[0]))
    assert {track.person for track in like} == {tracks_at(tracks, 0).person} and sum(map(len, like)) == 16


def tracks_at(tracks, frame):
    (track,) = [track for track in tracks if track.start <= frame < track.stop]
    return track


@needs_faces
def test_a_returning_person_is_one_and_a_dissolve_is_two(picture_of, detector):
    a, b = (torch.nn.functional.avg_pool2d(picture_of(k)[None], 2)[0] for k in (0, 2))
    empty = torch.full_like(a, 0.4)
    away = torch.stack([*[a] * 8, *[empty] * 14, *[a] * 8])
    tracks = find_tracks([(0, away)], detector, ShotCutDetector())
    assert [track.person for track in tracks] == [0, 0]
    mix = torch.linspace(0, 1, 10)[:, None, None, None]
    dissolve = torch.cat([a.repeat(10, 1, 1, 1), a + mix * (b - a), b.repeat(10, 1, 1, 1)])
    tracks = find_tracks([(0, dissolve)], detector)
    assert {track.person for track in tracks} == {0, 1}
    parts = sorted(tracks, key=lambda t: t.start)
    assert parts[0].start == 0 and parts[-1].stop == 30 and 11 <= parts[0].stop <= 19


@needs_faces
def test_two_people_cut_before_one_background_are_two(picture_of, detector):
    """Shot and countershot in one room: the picture hardly changes, and the faces lie where the others were; light that changes at once is no cut."""
    a, b = (torch.nn.functional.avg_pool2d(picture_of(k)[None], 4)[0] for k in (0, 2))
    frames = torch.full((27, 3, 320, 320), 0.5)
    frames[:, :, 96:224, 96:224] = a
    frames[9:18, :, 96:224, 96:224] = b
    assert find_cuts(frames) == []
    tracks = sorted(find_tracks([(0, frames)], detector, ShotCutDetector()), key=lambda t: t.start)
    assert [(track.start, len(track), track.person) for track in tracks] == [(0, 9, 0), (9, 9, 1), (18, 9, 0)]
    frames[9:18, :, 96:224, 96:224] = a.flip(2) * torch.tensor([0.7, 0.5, 0.4])[:, None, None]
    (track,) = find_tracks([(0, frames)], detector, ShotCutDetector())
    assert len(track) == 27


@needs_faces
def test_a_partly_occluded_start_is_one_person(picture_of, detector):
    """The side of another face lies before this one in its first five frames: as in a dissolve, the first pictures look like somebody else."""
    a, b = (torch.nn.functional.avg_pool2d(picture_of(k)[None], 2)[0] for k in (5, 7))
    half = a.clone()
    half[:, :, :146] = b[:, :, :146]
    (track,) = find_tracks([(0, torch.stack([*[half] * 5, *[a] * 20]))], detector)
    assert len(track) == 25


@needs_faces
def test_people_are_recognised_in_single_frame_shots(picture_of, detector):
    """Photographs as a batch: every one is a shot, and who is on two of them is one person."""
    frames = torch.stack([torch.nn.functional.avg_pool2d(picture_of(k)[None], 2)[0] for k in (0, 2, 5, 0, 7, 2)])
    frames[3:] = frames[3:].roll(20, 3)
    tracks = sorted(find_tracks([(0, frames)], detector, ShotCutDetector()), key=lambda t: t.start)
    people = [track.person for track in tracks]
    assert len(tracks) == 6 and people[3] == people[0] and people[5] == people[1] and len(set(people)) == 4


@needs_faces
def test_a_long_dissolve_separates_two_people(picture_of, detector):
    """Two seconds of it: the shots end in the middle, and nobody of one is tied to the other."""
    a, b = (torch.nn.functional.avg_pool2d(picture_of(k)[None], 4)[0] for k in (0, 2))
    mix = torch.linspace(0, 1, 48)[:, None, None, None]
    dissolve = torch.cat([a.repeat(10, 1, 1, 1), a + mix * (b - a), b.repeat(10, 1, 1, 1)])
    tracks = find_tracks([(0, dissolve)], detector, ShotCutDetector())
    assert {track.person for track in tracks} == {0, 1}
    assert {track.person for track in tracks if track.start < 10} != {track.person for track in tracks if track.stop > 58}


@needs_faces
def test_an_unmatched_reference_raises_one_sentence(picture_of, detector, tmp_path):
    small = torch.nn.functional.avg_pool2d(picture_of(0)[None], 2)
    tracks = find_tracks([(0, small.repeat(4, 1, 1, 1))], detector)
    with pytest.raises(ValueError, match=r"nobody in this clip looks like .*the nearest is person 0 at a distance of 0\.\d\d"):
        select_tracks(tracks, "all", like=identity_in(picture_of(5)))
    with pytest.raises(OSError, match="cannot be read"):
        select_tracks(tracks, f"like:{tmp_path / 'none.jpg'}")
    with pytest.raises(ValueError, match="shows no face"):
        identity_in(torch.zeros(3, 64, 64))
