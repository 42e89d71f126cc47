"""Landmarks that are known to be off by so much; faces aligned for recognition."""

from __future__ import annotations

import pytest
import torch
from helpers.moving_texture import texture

from fvr.metrics.identity import TEMPLATE, identity_crop, load_arcface
from fvr.metrics.landmarks import landmark_distance, landmark_motion_error


@pytest.fixture
def truth():
    """Five points over six frames that drift."""
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(0)) * 100
    return points + torch.arange(6.0).view(6, 1, 1) * torch.tensor([1.5, -0.5])


def test_a_constant_landmark_offset_has_no_deviation_and_no_motion_error(truth):
    found = truth + torch.tensor([3.0, 4.0])
    distance = landmark_distance(found, truth)
    torch.testing.assert_close(distance, torch.full((6,), 5.0, dtype=torch.float64))
    assert distance.std(correction=0) == pytest.approx(0, abs=1e-6)
    error = landmark_motion_error(found, truth)
    assert error[0].isnan() and error[1:].abs().max() < 1e-5


def test_an_alternating_landmark_offset_has_the_known_deviation_and_motion_error(truth):
    found = truth.clone()
    found[1::2, :, 0] += 2
    distance = landmark_distance(found, truth)
    assert distance.mean() == pytest.approx(1) and distance.std(correction=0) == pytest.approx(1)
    torch.testing.assert_close(landmark_motion_error(found, truth)[1:], torch.full((5,), 2.0, dtype=torch.float64))


def test_one_of_five_landmarks_counts_a_fifth(truth):
    found = truth.clone()
    found[:, 2, 1] += 10
    assert landmark_distance(found, truth).mean() == pytest.approx(2)


def test_frames_without_a_face_give_nan(truth):
    found = truth + 1
    found[2] = torch.nan
    assert landmark_distance(found, truth).isnan().tolist() == [False, False, True, False, False, False]
    assert landmark_motion_error(found, truth).isnan().tolist() == [True, False, True, True, False, False]


def test_landmarks_that_do_not_fit_are_refused(truth):
    with pytest.raises(ValueError, match=r"\(T, K, 2\) of one shape"):
        landmark_distance(truth, truth[:3])


def test_a_face_at_the_template_is_cropped_unchanged():
    frame = texture(112, 112)[0]
    torch.testing.assert_close(identity_crop(frame, TEMPLATE.float()), frame, atol=1e-4, rtol=0)


@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("zoom", [2, 3])
def test_a_larger_turned_face_gives_the_same_crop(turns, zoom):
    """A picture, enlarged by repeating its pixels and turned by right angles, with the landmarks taken along."""
    small = texture(112, 112)[0]
    large = small.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2).rot90(turns, (1, 2))
    points = (TEMPLATE + 0.5) * zoom - 0.5
    last = 112 * zoom - 1
    for _ in range(turns):
        points = torch.stack([points[:, 1], last - points[:, 0]], 1)
    found = identity_crop(large, points.float())
    assert (found - small).abs()[:, 2:-2, 2:-2].max() < 0.05 and (found - small).abs().mean() < 0.005
    assert (found - small.roll(5, -1)).abs().mean() > 0.01


def test_faces_without_landmarks_are_refused():
    with pytest.raises(ValueError, match="five finite landmarks"):
        identity_crop(texture()[0], torch.full((5, 2), torch.nan))


def test_arcface_is_read_from_a_file_and_never_fetched(tmp_path):
    """facexlib's own network with random weights: unit vectors, the same face is itself, colours are told apart."""
    with pytest.raises(FileNotFoundError, match="no ArcFace IR-SE-50 weights at"):
        load_arcface(tmp_path / "recognition_arcface_ir_se50.pth")
    from facexlib.recognition.arcface_arch import Backbone

    with torch.device("meta"):
        network = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se").eval()
    rng = torch.Generator().manual_seed(0)
    state = {}
    for key, value in network.state_dict().items():
        wide = value.ndim > 1
        state[key] = torch.rand(value.shape, generator=rng) * (3 / value[0].numel()) ** 0.5 if wide else torch.ones(value.shape, dtype=value.dtype)
    state = {key: value - value.mean() if value.ndim > 1 else value for key, value in state.items()}
    network.load_state_dict(state, assign=True)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "arcface.pth")
    embed = load_arcface(tmp_path / "arcface.pth")
    face = texture(112, 112)
    found = embed(torch.cat([face, face, face.flip(1)]))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3, dtype=torch.float64))
    with torch.no_grad():
        bgr = network(face.flip(1) * 2 - 1)[0].double()
    assert (found[0] @ bgr).item() == pytest.approx(1, abs=1e-4)
    assert (found[0] @ found[1]).item() == pytest.approx(1, abs=1e-6)
    assert (found[0] @ found[2]).item() < 1 - 1e-6
