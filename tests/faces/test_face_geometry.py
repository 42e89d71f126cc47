from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from fvr.faces.geometry import FACE_BOX, TEMPLATE, inverse, iou, landmarks_in_box, scales, similarity, smooth, smooth_path, steady, umeyama


def place(points, scale, angle, x, y):
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return scale * points @ turn.double().mT + torch.tensor([x, y], dtype=torch.float64)


poses = st.tuples(st.floats(0.05, 5), st.floats(-3, 3), st.floats(-500, 3000), st.floats(-500, 3000))


@settings(max_examples=40, deadline=None)
@given(poses)
def test_similarity_recovers_any_pose(pose):
    landmarks = place(TEMPLATE, *pose)
    matrix = similarity(landmarks).double()
    assert_close(landmarks @ matrix[:, :2].mT + matrix[:, 2], TEMPLATE, atol=0.05, rtol=0)
    assert float(scales(matrix)) == pytest.approx(1 / pose[0], rel=1e-3)


def test_similarity_is_robust_to_one_outlier():
    landmarks = place(TEMPLATE, 0.5, 0.1, 100.0, 60.0)
    truth = similarity(landmarks)
    landmarks[4] += torch.tensor([25.0, -30.0])
    assert_close(similarity(landmarks), truth, atol=1e-2, rtol=1e-2)
    assert (umeyama(landmarks, TEMPLATE) - truth).abs().max() > 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 800), st.floats(-50, 800)), min_size=1, max_size=5))
def test_any_five_points_give_an_invertible_transform(points):
    landmarks = torch.tensor((points * 5)[:5], dtype=torch.float32)
    matrix = similarity(landmarks)
    assert torch.isfinite(matrix).all()
    assert float(torch.linalg.det(matrix[:, :2].double())) > 0
    assert torch.equal(matrix, similarity(landmarks))


def test_non_finite_landmarks_are_refused():
    with pytest.raises(ValueError, match="finite"):
        similarity(torch.full((5, 2), torch.nan))


@pytest.mark.parametrize("sigma", [0.7, 2.0, 5.0])
@pytest.mark.parametrize("count", [2, 3, 40])
def test_smooth_is_a_gaussian_with_reflection(sigma, count):
    ndimage = pytest.importorskip("scipy.ndimage")
    values = torch.randn(count, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_close(smooth(values, sigma), torch.from_numpy(ndimage.gaussian_filter1d(values.numpy(), sigma, axis=0, mode="reflect")))


def test_smooth_path_deviates_by_at_most_its_slack():
    rng = torch.Generator().manual_seed(4)
    still = torch.randn(30, 2, dtype=torch.float64, generator=rng)
    assert_close(smooth_path(still, 2.0, torch.full((30,), 9.0)), smooth(still, 2.0))
    walk = torch.stack([torch.arange(30.0) * 12, 40 * torch.sin(torch.arange(30.0))], 1).double()
    assert float((smooth(walk, 2.0) - walk).norm(dim=-1).max()) > 18
    assert float((smooth_path(walk, 2.0, torch.full((30,), 2.0)) - walk).norm(dim=-1).max()) <= 2.0 + 1e-9


def test_steady_keeps_constants_and_similarities():
    still = similarity(place(TEMPLATE, 0.4, 0.3, 50.0, 80.0)).expand(9, 2, 3)
    assert_close(steady(still, 1.0), still, atol=1e-3, rtol=1e-5)
    moving = torch.stack([similarity(place(TEMPLATE, 0.4 + 0.02 * k, 0.1 * k, 50.0 + 3 * k, 80.0)) for k in range(9)])
    linear = steady(moving, 1.0)[..., :2].double()
    unit = linear @ linear.mT / scales(moving.new_zeros(9, 2, 3) + torch.cat([linear, linear[..., :1]], -1))[:, None, None] ** 2
    assert_close(unit, torch.eye(2, dtype=torch.float64).expand(9, 2, 2), atol=1e-5, rtol=0)


def test_steady_smooths_a_jump():
    jump = torch.stack([similarity(place(TEMPLATE, 0.5, 0.0, 50.0 + 4 * (k >= 10), 80.0)) for k in range(20)])
    travel = lambda m: inverse(m)[:, 0, 2].diff().abs().max()  # noqa: E731
    assert travel(steady(jump, 1.0)) < 0.5 * travel(jump)


def test_iou_is_intersection_over_union():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]])
    overlap = iou(boxes, boxes)
    assert_close(overlap.diagonal(), torch.tensor([1.0, 1, 1, 0]))
    assert_close(overlap, overlap.mT)
    assert overlap[0, 1] == pytest.approx(1 / 3)
    assert overlap[0, 2] == 0


def test_the_template_lies_in_its_own_box():
    assert_close(landmarks_in_box(torch.tensor(FACE_BOX, dtype=torch.float64)), TEMPLATE)
