from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fvr.faces import ExternalDetections, faces_from_boxes, faces_from_landmarks
from fvr.faces.geometry import FACE_BOX, TEMPLATE, similarity


def test_a_box_of_the_template_gives_the_template():
    x0, y0, x1, y1 = FACE_BOX
    ((face,),) = faces_from_boxes([[{"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "label": "face", "score": 0.8}]], 1)
    assert_close(face.landmarks.double(), TEMPLATE, atol=1e-3, rtol=0)
    assert_close(similarity(face.landmarks), torch.eye(3)[:2], atol=1e-2, rtol=0)
    assert face.score == 0.8


def test_boxes_come_in_three_layouts():
    box = {"x": 1, "y": 2, "width": 30, "height": 40}
    assert [len(f) for f in faces_from_boxes([[box, box], [], [box]], 3)] == [2, 0, 1]
    assert [len(f) for f in faces_from_boxes([box, box, box], 3)] == [1, 1, 1]
    assert [len(f) for f in faces_from_boxes([box, box], 1)] == [2]
    assert [len(f) for f in faces_from_boxes(box, 3)] == [1, 1, 1]
    assert faces_from_boxes([[{**box, "width": 0}]], 1) == [[]]


def test_boxes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 frames do not fit 3 frames"):
        faces_from_boxes([[], []], 3)
    with pytest.raises(ValueError, match="x, y, width and height"):
        faces_from_boxes([[(1, 2, 3, 4)]], 1)


def mesh():
    points = torch.tensor([60.0, 72.0]).repeat(478, 1)
    for indices, centre in (((33, 133, 159, 145), (40.0, 50.0)), ((362, 263, 386, 374), (80.0, 50.0))):
        for index, offset in zip(indices, ((-6, 0), (6, 0), (0, -3), (0, 3)), strict=True):
            points[index] = torch.tensor(centre) + torch.tensor(offset)
    points[1], points[61], points[291] = torch.tensor([60.0, 75.0]), torch.tensor([45.0, 95.0]), torch.tensor([75.0, 95.0])
    return points


def test_a_mesh_is_reduced_to_eyes_nose_and_mouth():
    face = {"landmarks_xy": mesh().numpy(), "bbox_xyxy": torch.tensor([20.0, 20, 100, 120]).numpy(), "score": 0.9}
    found = faces_from_landmarks({"frames": [[face], []], "image_size": (200, 300)}, 2, (200, 300))
    assert [len(f) for f in found] == [1, 0]
    assert_close(found[0][0].landmarks, torch.tensor([[40.0, 50], [80, 50], [60, 75], [45, 95], [75, 95]]), atol=4, rtol=0)


def test_landmarks_that_do_not_fit_are_refused():
    face = {"landmarks_xy": mesh()[:68], "score": 0.9}
    with pytest.raises(ValueError, match="at least 468 points"):
        faces_from_landmarks({"frames": [[face]]}, 1)
    with pytest.raises(ValueError, match="1 frames do not fit 2"):
        faces_from_landmarks({"frames": [[]]}, 2)
    with pytest.raises(ValueError, match=r"found in frames of \(H, W\) = \(10, 20\)"):
        faces_from_landmarks({"frames": [[]], "image_size": (10, 20)}, 1, (20, 10))


def test_external_faces_are_indexed_by_frame():
    detector = ExternalDetections(faces_from_boxes([[], [{"x": 0, "y": 0, "width": 9, "height": 9}], []], 3))
    assert [len(f) for f in detector.at(1, 2)] == [1, 0]
    with pytest.raises(ValueError, match="3 frames"):
        detector.at(2, 2)
