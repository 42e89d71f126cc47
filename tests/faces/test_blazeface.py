from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fvr.faces import find_tracks, load_detector
from fvr.faces.detection.detectors import following
from fvr.faces.detection.face_search import CERTAIN_SCORE
from fvr.faces.detection.mesh_points import FIVE_POINT_WEIGHTS, face_box, five_points, roll_of
from fvr.faces.detection.mesh_tracking import region_of, to_frame
from fvr.faces.detection.pyramid import Candidate, unrotate
from fvr.faces.geometry import TEMPLATE, scales, similarity

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def test_five_points_are_equivariant_to_similarities_of_the_mesh():
    """f(s R m + t) = s R f(m) + t."""
    mesh = torch.randn(468, 3, generator=torch.Generator().manual_seed(0)) * 40
    roll, zoom, shift = 2.1, 1.7, torch.tensor([30.0, -12.0])
    around = zoom * torch.tensor([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    moved = torch.cat([mesh[:, :2] @ around + shift, zoom * mesh[:, 2:]], 1)
    assert_close(five_points(moved), five_points(mesh) @ around + shift, atol=1e-3, rtol=1e-4)
    assert math.cos(roll_of(moved) - roll_of(mesh) - roll) == pytest.approx(1, abs=1e-5)
    assert_close(FIVE_POINT_WEIGHTS.sum(1), torch.ones(5, dtype=torch.float64), atol=1e-9, rtol=0)


def test_to_frame_inverts_to_crop():
    points = torch.rand(468, 3, generator=torch.Generator().manual_seed(1)) * 200
    region = region_of(points, 0.7)
    matrix = torch.from_numpy(region.to_crop()).float()
    cropped = torch.cat([points[:, :2] @ matrix[:, :2].mT + matrix[:, 2], points[:, 2:] * 192 / region.side], 1)
    assert float(cropped[:, :2].min()) >= 0 and float(cropped[:, :2].max()) <= 192
    assert_close(to_frame(cropped, region), points, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_unrotate_inverts_quarter_turns(quarter):
    picture = torch.zeros(60, 100)
    picture[10:20, 30:70] = 1
    rows, columns = torch.nonzero(torch.rot90(picture, quarter), as_tuple=True)
    box = torch.tensor([columns.min(), rows.min(), columns.max(), rows.max()]).double()
    assert unrotate(Candidate(box, 0.0, 1.0), quarter, 60, 100).box.tolist() == [30, 10, 69, 19]


def test_detects_the_astronaut_at_any_size_and_nothing_elsewhere(astronaut, detector):
    frames = torch.stack([astronaut, astronaut.flip(-1), torch.zeros_like(astronaut)])
    found = detector(frames)
    assert [len(faces) for faces in found] == [1, 1, 0]
    left, right, nose, mouth_left, mouth_right = found[0][0].landmarks
    assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0] and left[1] < nose[1] < mouth_left[1]
    assert_close(511 - found[1][0].landmarks[[1, 0, 2, 4, 3], 0], found[0][0].landmarks[:, 0], atol=5, rtol=0)
    for zoom in (0.35, 2.0):
        other = torch.nn.functional.interpolate(astronaut[None], scale_factor=zoom, mode="bilinear", antialias=True)
        (face,) = detector(other)[0]
        assert_close(face.landmarks, (found[0][0].landmarks + 0.5) * zoom - 0.5, atol=4 * max(zoom, 0.5), rtol=0)


def test_tracking_is_independent_of_chunks_and_misses_no_face(astronaut, detector):
    frames = torch.stack([torch.roll(astronaut, (3 * t, -5 * t), (1, 2)) for t in range(6)])
    frames[4:] = frames[4:].flip(-1)  # a cut
    whole = following(detector)(frames)
    pieces = following(detector)
    chunked = [faces for chunk in frames.split(2) for faces in pieces(chunk)]
    assert [len(faces) for faces in whole] == [1] * 6
    for a, b, alone in zip(whole, chunked, detector(frames), strict=True):
        assert torch.equal(a[0].landmarks, b[0].landmarks) and a[0].score == b[0].score
        assert_close(a[0].landmarks, alone[0].landmarks, atol=4, rtol=0)


@pytest.mark.parametrize("step", [20, 70])
def test_a_jumping_face_is_detected_at_its_new_position(astronaut, detector, step):
    """By up to more than its width between two frames: FaceMesh then sees part of it, or a face in what is left behind."""
    head = torch.nn.functional.avg_pool2d(astronaut[None, :, :280, 120:340], 2)[0]
    frames = torch.full((8, 3, 240, 480), 0.4)
    places = [40 + step * (k % 3) for k in range(8)]
    for frame, x in zip(frames, places, strict=True):
        frame[:, 50:190, x : x + 110] = head
    found = following(detector)(frames)
    assert [len(faces) for faces in found] == [1] * 8
    shown = torch.stack([faces[0].landmarks - torch.tensor([x, 0.0]) for faces, x in zip(found, places, strict=True)])
    assert float((shown - shown.median(0).values).abs().max()) < 4


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_rotated_faces_are_detected_with_upright_crops(astronaut, detector, quarter):
    turned = torch.rot90(astronaut, quarter, (1, 2))[None]
    (face,) = detector(turned)[0]
    (upright,) = detector(astronaut[None])[0]
    side = 511
    x, y = upright.landmarks.unbind(1)
    for _ in range(quarter):
        x, y = y, side - x
    assert_close(face.landmarks, torch.stack([x, y], 1), atol=5, rtol=0)
    if quarter == 2:
        assert load_detector("blazeface", rotate="off")(turned)[0] == []


def test_a_rotated_face_beside_an_upright_one_is_detected_at_once(astronaut, detector):
    head = torch.nn.functional.avg_pool2d(astronaut[None, :, :280, 80:360], 2)[0]
    frames = torch.full((2, 3, 180, 360), 0.4)
    frames[:, :, 20:160, 20:160], frames[:, :, 20:160, 200:340] = head, head.rot90(2, (1, 2))
    assert [len(faces) for faces in following(detector)(frames)] == [2, 2]


def test_faces_rotated_to_either_side_are_detected_at_once(astronaut, detector):
    """The upright picture shows the one who leans, and that was taken to say which way all others lie."""
    head = torch.nn.functional.avg_pool2d(astronaut[None, :, :280, 80:360], 2)[0].permute(1, 2, 0).numpy()
    frame = torch.full((1, 3, 200, 420), 0.4)
    for x, degrees in ((40, -70), (240, 90)):
        turned = cv2.warpAffine(head, cv2.getRotationMatrix2D((70, 70), degrees, 0.8), (140, 140), borderValue=(0.4, 0.4, 0.4))
        frame[0, :, 30:170, x : x + 140] = torch.from_numpy(turned).permute(2, 0, 1)
    assert len(detector(frame)[0]) == 2


def test_a_new_rotated_face_beside_an_upright_one_is_detected_within_four_frames(astronaut, detector):
    """BlazeFace sees a face there in the upright picture, FaceMesh none."""
    head = torch.nn.functional.avg_pool2d(astronaut[None, :, :280, 80:360], 2)[0]
    frames = torch.full((13, 3, 240, 480), 0.4)
    frames[:, :, 50:190, 40:180], frames[6:, :, 50:190, 280:420] = head, head.rot90(1, (1, 2))
    assert [len(faces) for faces in following(detector)(frames)[9:]] == [2] * 4


def test_a_smaller_face_beside_a_small_one_is_detected(astronaut, detector):
    """Faces of 25 pixels in 720p, beside one of 40: nobody smaller than 30 is looked for where everybody is large."""
    frame = torch.full((1, 3, 720, 960), 0.4)
    for x, width in ((100, 70), (400, 44), (700, 44)):
        frame[:, :, 300 : 300 + width, x : x + width] = torch.nn.functional.interpolate(
            astronaut[None, :, 20:230, 120:330], size=(width, width), mode="area"
        )
    assert len(detector(frame)[0]) == 3


@pytest.mark.parametrize("light", [(0.15, 1, 0.3), (0.1, 0.9, 1), (0, 0.1, 1)], ids=["green", "cyan", "blue"])
def test_a_face_in_coloured_light_is_detected(light, astronaut, detector):
    small = torch.nn.functional.avg_pool2d(astronaut[None], 2)[0]
    frames = (small * torch.tensor(light)[:, None, None]).expand(3, -1, -1, -1)
    (track,) = find_tracks([(0, frames)], detector)
    (day,) = detector(small[None])[0]
    assert len(track) == 3 and float((track.landmarks - day.landmarks).abs().max()) < 6


def test_a_crowd_of_low_blazeface_scores_is_detected_completely(astronaut, detector, monkeypatch):
    """Only whom FaceMesh refuses counts against the doubtful."""
    frame = torch.nn.functional.avg_pool2d(astronaut[None, :, :280, 80:360], 4).repeat(1, 1, 2, 3)
    network = detector.search.pyramid.network
    monkeypatch.setattr(
        detector.search.pyramid, "network", lambda picture: (network(picture)[0].clamp(max=math.log(0.25 / 0.75)), network(picture)[1])
    )
    assert len(detector(frame)[0]) == 6


def test_a_new_small_face_is_detected_within_four_frames(astronaut, detector):
    """Beside a large one that stays; less than 7 % of the frame, which coarse searches cannot see."""
    large, small = (torch.nn.functional.interpolate(astronaut[None, :, :280, 80:360], size=(n, n), mode="area")[0] for n in (240, 110))
    frames = torch.full((13, 3, 540, 960), 0.4)
    frames[:, :, 60:300, 40:280] = large
    frames[6:, :, 330:440, 700:810] = small
    found = following(detector)(frames)
    assert [len(faces) for faces in found[:6]] == [1] * 6 and [len(faces) for faces in found[9:]] == [2] * 4


def test_two_distant_new_small_faces_are_detected_within_four_frames(astronaut, detector):
    """A box around both would be most of the frame."""
    small = torch.nn.functional.interpolate(astronaut[None, :, :280, 80:360], size=(110, 110), mode="area")[0]
    frames = torch.full((13, 3, 540, 960), 0.4)
    frames[:, :, 200:310, 420:530] = small
    frames[6:, :, 20:130, 20:130] = frames[6:, :, 400:510, 830:940] = small
    assert [len(faces) for faces in following(detector)(frames)[9:]] == [3] * 4


@pytest.mark.parametrize(("sigma", "people"), [(0.1, 1), (4, 0)])
def test_low_blazeface_scores_are_accepted_where_facemesh_is_certain(sigma, people, astronaut, detector, monkeypatch):
    """Its scores lowered to 0.25, as those of many small faces are."""
    frame = blurred(astronaut[:, :320, 60:380], sigma)[0]
    network, scales = detector.search.pyramid.network, detector.search.pyramid.levels(320, 320, True)
    best = max(candidate.score for candidate in detector.search.pyramid(frame.numpy(), scales))
    shift = math.log(best / (1 - best)) - math.log(0.25 / 0.75)
    assert len(detector(frame[None])[0]) == 1
    monkeypatch.setattr(detector.search.pyramid, "network", lambda picture: (network(picture)[0] - shift, network(picture)[1]))
    assert len(detector(frame[None])[0]) == people


def test_a_face_reappearing_from_occlusion_is_detected_within_two_frames(astronaut, detector):
    """The face is free of the head before it when its picture is at 230; every fourth frame alone would find it at 256."""
    head = torch.nn.functional.interpolate(astronaut[None, :, 40:220, 160:290], size=(125, 90), mode="area")[0]
    frames = torch.full((28, 3, 270, 480), 0.4)
    places = [40 + 9 * t for t in range(len(frames))]
    for x, frame in zip(places, frames, strict=True):
        frame[:, 80:205, x : x + 90] = head.flip(2)
        frame[:, 70:195, 180:270] = head
    found = [len(faces) for faces in following(detector)(frames)]
    assert found[0] == 2 and found[places.index(193)] == 1
    assert all(count == 2 for x, count in zip(places, found, strict=True) if x > 238)


def test_a_dark_face_is_detected(astronaut, detector):
    """Twelve levels of 255, and a sensor's noise."""
    rng = torch.Generator().manual_seed(0)
    small = torch.nn.functional.avg_pool2d(astronaut[None], 3)[0]
    frames = torch.stack([small * 0.05 + 0.004 * torch.randn(small.shape, generator=rng) for _ in range(6)]).mul(255).round().clamp(0, 255) / 255
    (track,) = find_tracks([(0, frames)], detector)
    (day,) = detector(small[None])[0]
    assert len(track) == 6 and float((track.landmarks - day.landmarks).abs().max()) < 6


def smiley(side: int) -> torch.Tensor:
    """A drawn one, (3, 240, 320), in which FaceMesh sees a face with a score of up to 0.94."""
    picture = np.full((240, 320, 3), 0.4, np.float32)
    cv2.circle(picture, (150, 120), side, (1.0, 0.86, 0.24), -1, cv2.LINE_AA)
    for x in (-0.36, 0.36):
        cv2.circle(picture, (round(150 + x * side), round(120 - 0.28 * side)), round(0.13 * side), (0.0, 0.0, 0.0), -1, cv2.LINE_AA)
    axes = (round(0.54 * side), round(0.37 * side))
    cv2.ellipse(picture, (150, round(120 + 0.2 * side)), axes, 0, 10, 170, (0.47, 0.08, 0.08), side // 12, cv2.LINE_AA)
    return torch.from_numpy(picture).permute(2, 0, 1)


def blurred(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    """Six frames in which the blurred picture moves by a pixel each."""
    soft = torch.from_numpy(cv2.GaussianBlur(picture.permute(1, 2, 0).numpy(), (0, 0), sigma)).permute(2, 0, 1)
    return torch.stack([torch.roll(soft, k, 2) for k in range(6)])


@pytest.mark.parametrize(("quarter", "sigma"), [(0, 4), (1, 4), (0, 5)])
def test_a_blurred_face_is_detected_despite_a_low_facemesh_score(astronaut, detector, quarter, sigma):
    """By 4 % of the face, or by 5 % where FaceMesh sees none: BlazeFace sees the reduced face as well, which is upright there however it lies."""
    frames = blurred(astronaut[:, :320, 60:380], sigma).rot90(quarter, (2, 3))
    (track,) = find_tracks([(0, frames)], detector)
    assert len(track) == 6 and float(track.scores.max()) < CERTAIN_SCORE
    (sharp,) = detector(astronaut[None, :, :320, 60:380].rot90(quarter, (2, 3)))[0]
    assert float((track.landmarks[0] - sharp.landmarks).abs().max()) < 6


@pytest.mark.parametrize(("side", "sigma"), [(45, 2), (70, 4), (110, 4)])
def test_a_smiley_is_no_face_at_any_blur(detector, side, sigma):
    frames = blurred(smiley(side), sigma)
    assert len(find_tracks([(0, frames)], detector, sure=0.5)) == 1, "FaceMesh alone sees somebody"
    assert find_tracks([(0, frames)], detector) == []


def test_blazeface_confirms_only_faces_of_low_facemesh_score(astronaut, detector, monkeypatch):
    asked = []
    monkeypatch.setattr(detector.search, "reduced_score", lambda picture, placed: asked.append(placed.score) or 0.9)
    following(detector)(astronaut[None].repeat(6, 1, 1, 1) * torch.linspace(1, 0.95, 6)[:, None, None, None])
    assert asked == []
    faces = following(detector)(blurred(astronaut[:, :320, 60:380], 4))
    assert len(asked) == 2 and all(found[0].agreed for found in faces)  # frames 0 and 4 of 6


@pytest.mark.skipif(not (SHARED / "faces512").is_dir(), reason="needs ../shared/faces512")
def test_five_points_are_calibrated_to_the_template(detector):
    """On portraits that were aligned by another detector, alignment by ours changes nothing on average."""
    import cv2

    maps = []
    for path in sorted((SHARED / "faces512" / "val").glob("*.jpg"))[:8]:
        picture = torch.from_numpy(cv2.imread(str(path))[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255
        face = max(detector(picture[None])[0], key=lambda face: float((face.box[2:] - face.box[:2]).prod()))
        maps.append(similarity(face.landmarks))
    matrices = torch.stack(maps).double()
    moved = TEMPLATE @ matrices[:, :, :2].mT + matrices[:, None, :, 2] - TEMPLATE
    eyes = float((TEMPLATE[1] - TEMPLATE[0]).norm())
    assert float(moved.mean((0, 1)).norm()) < 0.04 * eyes
    assert float(scales(matrices).mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs ../shared/cases")
def test_a_clip_on_its_side_is_tracked_in_every_frame(detector):
    from fvr.pipeline import follow_faces
    from fvr.video import open_source

    (track,) = follow_faces(open_source(SHARED / "cases" / "people_sideways.mp4"), detector)
    assert len(track) == 8 and bool(track.detected.all())


def test_mesh_boxes_match_detector_boxes(astronaut, detector):
    """The mesh ends below the brow; the box begins where other detectors' do."""
    (face,) = detector(astronaut[None])[0]
    width, height = (face.box[2:] - face.box[:2]).tolist()
    assert 1.1 < height / width < 1.7
    inside = (face.landmarks > face.box[:2]) & (face.landmarks < face.box[2:])
    assert bool(inside.all()) and face.pose is not None and abs(face.pose[0]) < 25


def test_mesh_boxes_scale_with_the_mesh():
    mesh = torch.rand(468, 3, generator=torch.Generator().manual_seed(2)) * 100
    mesh[33, :2], mesh[263, :2] = torch.tensor([20.0, 50.0]), torch.tensor([80.0, 50.0])
    assert_close(face_box(mesh * 2), face_box(mesh) * 2, atol=1e-2, rtol=1e-4)


def test_invalid_settings_raise_one_sentence():
    with pytest.raises(ValueError, match="rotate is auto or off, got 'sideways'"):
        load_detector("blazeface", rotate="sideways")
