"""What the small DicFace says of its own doubt, on people it never saw: less than of noise where it sees a face, most where it errs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from fvr.methods.base import restore_frames
from fvr.methods.registry import build_restorer
from fvr.models import embedded
from fvr.training.data.degradations import BENCHMARK, benchmark_input
from fvr.training.data.faces import FEDERAL, Faces
from fvr.training.engine import generator_for
from fvr.training.evidence import mostly_noise

SHARED = Path(__file__).resolve().parents[3] / "shared"
PEOPLE = 6


def in_doubt(restorer, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces (n, 3, 128, 128), each a clip of its own, to what comes back of them and the uncertainty over their places, (n, 1, 16, 16)."""
    restored, maps = [], []
    for face in faces:
        session = restorer.open()
        session.return_maps = True
        crop = F.interpolate(face[None], (512, 512), mode="bicubic", align_corners=False).clamp(0, 1)
        out = torch.cat([session.push(crop), session.close()])
        restored.append(F.interpolate(out, (128, 128), mode="area"))
        maps.append(F.adaptive_avg_pool2d(session.maps()["uncertainty"], 16))
    return torch.cat(restored), torch.cat(maps)


def test_uncertainty_rises_with_damage_and_marks_the_errors():
    """Uncertainty of clean faces < of damaged ones < of noise; its rank correlation with the true error is above 0.3."""
    if not (SHARED / "faces").is_dir():
        pytest.skip("needs ../shared/faces")
    people = Faces(SHARED / "faces", "val", 128, FEDERAL, in_memory=0)
    truth = torch.stack([people.face(index) for index in range(0, 9 * PEOPLE, 9)])
    restorer = build_restorer("dicface", weights=embedded.FOLDER / embedded.DICFACE)
    noise = torch.stack([mostly_noise(face, generator_for("noise", i), 0.0) for i, face in enumerate(truth)])
    clean, blank = (in_doubt(restorer, faces)[1].mean() for faces in (truth, noise))
    for name in BENCHMARK:
        restored, doubt = in_doubt(restorer, benchmark_input(name, truth, seed=0))
        assert clean < doubt.mean() < blank, name
        error = F.adaptive_avg_pool2d((restored - truth).abs().mean(1, keepdim=True), 16)
        assert spearmanr(doubt.flatten(), error.flatten()).statistic > 0.3, name


def test_a_draw_differs_from_the_mean_where_the_face_leaves_it_open():
    if not (SHARED / "faces").is_dir():
        pytest.skip("needs ../shared/faces")
    people = Faces(SHARED / "faces", "val", 128, FEDERAL, in_memory=0)
    faces = benchmark_input("x8 bicubic", torch.stack([people.face(index) for index in range(0, 36, 9)]), seed=0)
    restorer = build_restorer("dicface", weights=embedded.FOLDER / embedded.DICFACE)
    apart = []
    for crop in F.interpolate(faces, (512, 512), mode="bicubic", align_corners=False).clamp(0, 1).split(1):
        mean, drawn = (restore_frames(restorer.configured(dirichlet=how), crop) for how in ("mean", "sample"))
        apart.append((mean - drawn).abs().mean())
    assert 255 * torch.stack(apart).mean() > 0.1
