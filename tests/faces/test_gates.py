from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fvr.faces import aligned_track
from fvr.faces.compositing.strength import Gates, strengths
from fvr.faces.detection.mesh_points import NEUTRAL_PITCH, pose


def track(size=200.0, yaw=0.0, pitch=0.0, score=1.0, covered=0.0, pose=True):
    one = aligned_track(9)
    return replace(
        one,
        boxes=torch.tensor([0.0, 0.0, size, size]).repeat(9, 1),
        scores=torch.full((9,), score),
        pose=torch.tensor([yaw, pitch]).repeat(9, 1) if pose else None,
        covered=torch.full((9,), covered) if pose else None,
    )


@pytest.mark.parametrize(
    ("fine", "faded"),
    [
        ({"size": 40.0}, {"size": 16.0}),
        ({"yaw": -45.0}, {"yaw": -75.0}),
        ({"pitch": 45.0}, {"pitch": 80.0}),
        ({"score": 0.9}, {"score": 0.5}),
        ({"covered": 0.2}, {"covered": 0.75}),
    ],
)
def test_each_measure_fades_the_face(fine, faded):
    assert float(strengths(track(**fine)).min()) == pytest.approx(1)
    assert float(strengths(track(**faded)).max()) < 0.01


def test_a_profile_and_a_face_of_26_pixels_have_half_strength():
    assert float(strengths(track(yaw=60.0))[4]) == pytest.approx(0.5, abs=0.01)
    assert float(strengths(track(size=26.0))[4]) == pytest.approx(0.5, abs=0.01)


def head(yaw, pitch, roll):
    """A mesh (468, 3) of which only the corners of the eyes, forehead and chin are known, that nods, then turns, then leans; degrees."""
    mesh = torch.zeros(468, 3, dtype=torch.float64)
    mesh[[33, 263, 10, 152]] = torch.tensor([[-45.0, -20, 0], [45, -20, 0], [0, -80, 0], [0, 80, 0]], dtype=torch.float64)
    for degrees, (a, b) in ((pitch + NEUTRAL_PITCH, (1, 2)), (yaw, (0, 2)), (roll, (0, 1))):
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        mesh[:, a], mesh[:, b] = c * mesh[:, a] - s * mesh[:, b], s * mesh[:, a] + c * mesh[:, b]
    return mesh


@pytest.mark.parametrize("turned", [(0, 0, 0), (60, 0, 0), (-80, 0, 0), (85, 0, 30), (0, 40, 0), (60, -30, 0), (70, 20, 90), (40, 30, 180)])
def test_pure_yaw_keeps_the_pitch(turned):
    """The pitch of a head at 85 degrees was 52, which faded it as one that looks down."""
    yaw, pitch = pose(head(*turned))
    assert (yaw, pitch) == (pytest.approx(turned[0], abs=0.1), pytest.approx(turned[1], abs=0.1))


def test_strength_falls_smoothly_with_yaw():
    turning = replace(aligned_track(40), pose=torch.stack([torch.linspace(0, 90, 40), torch.zeros(40)], 1))
    level = strengths(turning)
    assert float(level[0]) == pytest.approx(1) and float(level[-1]) < 0.01
    assert bool((level.diff() <= 1e-6).all()) and float(level.diff().abs().max()) < 0.2


def test_mesh_gates_are_open_without_a_mesh():
    assert float(strengths(track(score=0.5, pose=False)).min()) == pytest.approx(1)


def test_gates_parse_and_print():
    assert Gates.parse("") == Gates() == Gates.parse(Gates().to_text())
    assert Gates.parse("size=10-20, yaw=90-80") == replace(Gates(), size=(10.0, 20.0), yaw=(90.0, 80.0))
    assert float(strengths(track(size=3.0, yaw=89.0, score=0.2, covered=1.0), Gates.parse("off")).min()) == pytest.approx(1)
    for wrong in ("size", "size=5-5", "age=1-2", "yaw=a-b"):
        with pytest.raises(ValueError, match=r"a gate is one of size, blur, yaw, pitch, confidence, occlusion with two values"):
            Gates.parse(wrong)


def test_help_states_the_default_gates(capsys):
    from fvr.cli import main

    with pytest.raises(SystemExit):
        main(["restore", "--help"])
    assert f"gates: {Gates().to_text()}" in " ".join(capsys.readouterr().out.split()).replace("- ", "-")
