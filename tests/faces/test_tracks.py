from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from fvr.faces import ExternalDetections, Tracker, find_tracks
from fvr.faces.tracking.association import FORBIDDEN, assign

SIZE = (120, 240)


@pytest.fixture
def stage(texture, face_at):
    """Plays a scene: per frame a list of (person, x, y); persons differ in look. Returns frames and faces; later ones stand in front."""
    looks = {"ann": texture(60, 48, 11, blur=2.0) * torch.tensor([1.0, 0.7, 0.6])[:, None, None], "bob": texture(60, 48, 22, blur=2.0).flip(0)}
    looks["bob"] = (looks["bob"] * torch.tensor([0.4, 0.8, 1.0])[:, None, None]).clamp(0, 1)

    def play(scene):
        frames = texture(*SIZE, 5, blur=3.0).repeat(len(scene), 1, 1, 1)
        faces = []
        for frame, cast in zip(frames, scene, strict=True):
            for person, x, y in cast:
                look = looks[person]
                frame[:, y - 30 : y + 30, x - 24 : x + 24] = look
            faces.append([face_at(x, y, 40) for _, x, y in cast])
        return frames, faces

    return play


def follow(frames, faces, cuts=(), chunk=None, **options):
    chunk = chunk or len(frames)
    pieces = [(k, frames[k : k + chunk]) for k in range(0, len(frames), chunk)]
    return find_tracks(pieces, ExternalDetections(faces), cuts, **options)


def centres(track):
    return (track.boxes[:, 0] + track.boxes[:, 2]) / 2


def crossing(hidden):
    """Ann walks right, Bob walks left; while they meet only Ann, who is in front, is seen."""
    scene = []
    for k in range(40):
        ann, bob = ("ann", 40 + 4 * k, 60), ("bob", 200 - 4 * k, 60)
        scene.append([ann] if abs(ann[1] - bob[1]) < hidden else [bob, ann])
    return scene


@pytest.mark.parametrize("hidden", [14, 24, 40])
def test_crossing_people_are_not_swapped(hidden, stage):
    frames, faces = stage(crossing(hidden))
    tracks = follow(frames, faces, sigma=0)
    assert len(tracks) == 2
    for track in tracks:
        steps = centres(track).diff()
        assert len(track) == 40 and (steps.sign() == steps[0].sign()).all()


def test_chunks_agree_with_the_whole(stage):
    frames, faces = stage(crossing(24) + crossing(24))
    whole = follow(frames, faces, (40,))
    assert len(whole) == 4
    for chunk in (1, 7):
        parts = follow(frames, faces, (40,), chunk)
        assert len(parts) == len(whole)
        for a, b in zip(parts, whole, strict=True):
            assert (a.person, a.start, a.shot) == (b.person, b.start, b.shot)
            for name in ("boxes", "landmarks", "matrices", "scores", "detected", "sharpness"):
                assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_gaps_are_interpolated_linearly(stage):
    scene = [[("ann", 40 + 3 * k, 60)] if 4 <= k < 26 and not 10 <= k < 16 else [] for k in range(30)]
    (track,) = follow(*stage(scene), sigma=0)
    assert (track.start, track.stop) == (4, 26)
    assert_close(centres(track), 40 + 3 * torch.arange(4, 26).float(), atol=1e-3, rtol=0)
    assert track.detected.tolist() == [not 10 <= k < 16 for k in range(4, 26)]
    assert (track.scores[~track.detected] == 0).all() and (track.scores[track.detected] > 0.9).all()


def test_a_gap_longer_than_allowed_ends_the_track(stage):
    scene = [[("ann", 60, 60)] if not 8 <= k < 13 else [] for k in range(20)]
    assert [(t.start, t.stop) for t in follow(*stage(scene), max_gap=4)] in ([(0, 8), (13, 20)], [(13, 20), (0, 8)])
    assert len(follow(*stage(scene), max_gap=5)) == 1


def test_a_cut_ends_the_track_of_a_static_face(stage):
    frames, faces = stage([[("ann", 60, 60)]] * 20)
    tracks = sorted(follow(frames, faces, (7, 15)), key=lambda t: t.start)
    assert [(t.start, t.stop) for t in tracks] == [(0, 7), (7, 15), (15, 20)]
    assert [t.shot for t in tracks] == [(0, 7), (7, 15), (15, 20)]
    assert [t.person for t in tracks] == [0, 0, 0]  # it is the same face


def test_nothing_is_interpolated_or_smoothed_across_a_cut(stage):
    frames, faces = stage([[("ann", 60, 60)]] * 8 + [[]] * 2 + [[("ann", 75, 60)]] * 8)
    first, second = sorted(follow(frames, faces, (9,)), key=lambda t: t.start)
    assert (first.stop, second.start) == (8, 10)
    assert_close(centres(first), torch.full((8,), 60.0))
    assert_close(centres(second), torch.full((8,), 75.0))


def test_a_cut_may_be_passed_late(stage):
    frames, faces = stage([[("ann", 60, 60)]] * 20)
    tracker = Tracker(SIZE)
    tracker.push(0, frames[:10], faces[:10])
    tracker.push(10, frames[10:], faces[10:], [7])
    assert sorted((t.start, t.stop) for t in tracker.finish()) == [(0, 7), (7, 20)]


def test_false_positives_are_dropped_and_short_shots_kept(stage):
    frames, faces = stage([[("ann", 60, 60)] + ([("bob", 190, 60)] if k in (3, 11) else []) for k in range(16)])
    assert len(follow(frames, faces)) == 1
    single = stage([[("ann", 60, 60)]])
    (still,) = follow(*single)
    assert len(still) == 1 and still.shot == (0, 1)
    one_frame_shot = stage([[("ann", 60, 60)]] * 5 + [[("bob", 190, 60)]] + [[("ann", 60, 60)]] * 5)
    assert sorted(len(t) for t in follow(*one_frame_shot, (5, 6))) == [1, 5, 5]


@pytest.mark.parametrize("count", [1, 8])
def test_tracks_of_low_score_are_dropped_unless_external(count, stage, face_at):
    frames, _ = stage([[("ann", 60, 60)]] * count)

    class Guess:
        name = "guess"

        def __init__(self, score):
            self.score = score

        def __call__(self, frames):
            return [[face_at(60, 60, 40, score=self.score)] for _ in frames]

    assert find_tracks([(0, frames)], Guess(0.9)) == []
    assert len(find_tracks([(0, frames)], Guess(0.99))) == 1
    assert len(follow(frames, [[face_at(60, 60, 40, score=0.6)]] * count)) == 1


@pytest.mark.parametrize(("agreed", "people"), [(0, 0), (4, 0), (5, 1), (8, 1)])
def test_low_scores_are_kept_where_a_second_network_agrees(agreed, people, stage, face_at):
    frames, _ = stage([[("ann", 60, 60)]] * 8)

    class Guess:
        name = "guess"

        def __call__(self, frames):
            return [[replace(face_at(60, 60, 40, score=0.8), agreed=k < agreed)] for k in range(len(frames))]

    assert len(find_tracks([(0, frames)], Guess())) == people


def test_duplicate_detections_are_one_person(stage, face_at):
    frames, faces = stage([[("ann", 60, 60)]] * 10)
    doubled = [[*found, face_at(63, 62, 42, score=0.9)] for found in faces]
    assert len(follow(frames, doubled)) == 1


def test_an_occluded_interpolated_face_is_not_pasted(stage):
    frames, faces = stage(crossing(40))
    from fvr.faces.compositing.strength import strengths

    left = next(t for t in follow(frames, faces, sigma=0) if centres(t)[0] > 120)
    assert not left.detected.all()
    middle = len(left) // 2
    assert left.sharpness[middle] == 0 and strengths(left)[middle] < 0.1


def test_a_jump_to_another_person_starts_another_track(stage):
    frames, faces = stage([[("ann", 60, 60)]] * 8 + [[("bob", 75, 60)]] * 8)
    assert sorted((t.start, t.stop) for t in follow(frames, faces)) == [(0, 8), (8, 16)]


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_jump_across_the_frame_keeps_the_person(count, stage):
    """A burst, a batch of two frames, a camera that shakes: the same look in the next frame is the same person, wherever."""
    frames, faces = stage([[("ann", 40 + 150 * (k % 2), 60), ("bob", 110, 60 + 3 * k)] for k in range(count)])
    tracks = follow(frames, faces)
    assert [len(track) for track in tracks] == [count] * 2 and all(track.detected.all() for track in tracks)
    assert {round(float(track.boxes[:, 0].max() - track.boxes[:, 0].min())) for track in tracks} == {0, 150 - round(2 * 0.025 * 46)}


def test_two_people_in_a_batch_of_two_frames_are_both_kept(stage):
    frames, faces = stage([[("ann", 60, 60)], [("bob", 190, 60)]])
    assert sorted((t.start, t.stop) for t in follow(frames, faces)) == [(0, 1), (1, 2)]


def test_person_0_is_the_largest(stage, face_at):
    frames, _ = stage([[]] * 6)
    faces = [[face_at(50, 60, 30), face_at(170, 60, 60)] for _ in range(6)]
    tracks = follow(frames, faces)
    assert [t.person for t in tracks] == [0, 1]
    assert centres(tracks[0])[0] == pytest.approx(170)


def test_smoothing_follows_motion_and_removes_jitter(stage, face_at):
    frames, _ = stage([[("ann", 40 + 4 * k, 60)] for k in range(40)])
    wobble = torch.randn(40, generator=torch.Generator().manual_seed(2))
    faces = [[face_at(40 + 4 * k + float(w), 60, 40)] for k, w in enumerate(wobble)]
    (track,) = follow(frames, faces)
    path = track.landmarks[:, 2, 0]
    line = 40 + 4 * torch.arange(40) + (path - 40 - 4 * torch.arange(40)).mean()
    assert (path - line)[8:-8].abs().max() < 0.7 * wobble.abs().max()
    assert path.diff().diff()[8:-8].abs().max() < 0.3 * wobble.diff().diff().abs().max()


@pytest.mark.parametrize("way", [lambda k: 30 + 6 * k, lambda k: 120 + 11 * (-1) ** k, lambda k: 60 + 6 * min(k, 15)])
def test_crops_do_not_lag_behind_motion(way, stage, face_at):
    """The crop shows the face in its place in every frame, the shot's first and last among them."""
    frames, faces = stage([[("ann", way(k), 60)] for k in range(30)])
    (track,) = follow(frames, faces)
    shown = torch.stack([face.landmarks for (face,) in faces]) @ track.matrices[:, :, :2].mT + track.matrices[:, None, :, 2]
    assert float((shown - shown.mean(0)).norm(dim=-1).max()) < 0.05 * 307  # of the side of a face on the template


def test_no_frames_and_no_faces_give_no_tracks(stage):
    frames, _ = stage([[]] * 3)
    assert find_tracks([], ExternalDetections([])) == []
    assert follow(frames, [[]] * 3) == []


def test_frames_out_of_order_or_resized_are_refused(stage):
    frames, faces = stage([[("ann", 60, 60)]] * 4)
    tracker = Tracker(SIZE)
    tracker.push(0, frames[:2], faces[:2])
    with pytest.raises(ValueError, match="frame 2 comes next, got frames from 3"):
        tracker.push(3, frames[3:], faces[3:])
    with pytest.raises(ValueError, match="one size"):
        tracker.push(2, frames[2:, :, :50], faces[2:])
    with pytest.raises(ValueError, match="one list per frame"):
        tracker.push(2, frames[2:], faces[:1])
    with pytest.raises(ValueError, match="given for 4 frames"):
        follow(torch.cat([frames, frames]), faces)


def test_every_frame_reports_progress(stage):
    frames, faces = stage([[("ann", 60, 60)]] * 11)
    ticks = []
    follow(frames, faces, chunk=4, on_frame=ticks.append)
    assert ticks == [4, 4, 3]


def test_an_assignment_always_exists():
    """Where no pair is allowed SciPy would raise on infinite costs; finite ones give an empty assignment."""
    assert assign(torch.full((3, 2), FORBIDDEN)) == []
    assert assign(torch.tensor([[1.0, FORBIDDEN], [0.5, 1.0]])) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_a_single_row_takes_the_minimum_cost(shape):
    cost = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    rows, columns = linear_sum_assignment(cost.numpy())
    assert assign(cost) == [(int(rows[0]), int(columns[0]))]
    assert assign(torch.full(shape, FORBIDDEN)) == []
