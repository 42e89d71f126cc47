"""Distances between sets of features: the formulas, on sets whose distance is known, and the networks' names."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch
import torchvision

from fvr.faces.geometry import TEMPLATE
from fvr.metrics.feature_distance import (
    INCEPTION_FILE,
    available_features,
    frechet_distance,
    identity_features,
    inception_features,
    kernel_distance,
    over_time,
)


@pytest.fixture
def normal():
    generator = torch.Generator().manual_seed(0)
    return lambda n, d: torch.randn(n, d, generator=generator, dtype=torch.float64)


def test_a_set_has_zero_distance_from_itself(normal):
    features = normal(40, 6)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_is_that_of_two_gaussians(normal):
    """As the formula with a matrix square root says; and a shift alone is its square."""
    a, b = normal(60, 5) @ normal(5, 5), normal(50, 5) @ normal(5, 5) + 1
    covariances = [torch.cov(x.mT).numpy() for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + (covariances[0] + covariances[1] - 2 * root).trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a + 2) == pytest.approx(5 * 4, rel=1e-9)


def test_the_kernel_distance_is_unbiased_and_grows_with_a_shift(normal):
    same = [kernel_distance(normal(30, 4), normal(30, 4)) for _ in range(40)]
    assert min(same) < 0 < max(same) and abs(sum(same) / 40) < 0.1
    moved = [kernel_distance(normal(200, 4), normal(200, 4) + shift) for shift in (0.5, 1.0, 2.0)]
    assert 0.1 < moved[0] < moved[1] < moved[2]


def test_the_kernel_distance_is_the_unbiased_mmd_of_a_cubic_kernel(normal):
    """Pair by pair, a feature with itself left out."""
    x, y = normal(4, 3), normal(5, 3) + 0.5

    def mean(pairs):
        values = [(float(a @ b) / 3 + 1) ** 3 for a, b in pairs]
        return sum(values) / len(values)

    own = [mean([(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    assert kernel_distance(x, y) == pytest.approx(sum(own) - 2 * mean([(a, b) for a in x for b in y]))


def test_alternating_frames_are_far_in_temporal_distance_and_near_in_frame_distance(normal):
    still = normal(1, 8).expand(48, 8) + 0.01 * normal(48, 8)
    jumping = still + torch.tensor([0.5, -0.5], dtype=torch.float64).repeat(24)[:, None]
    assert over_time(still).shape == (5, 16) and over_time(still[:10]).shape == (1, 16)
    assert frechet_distance(over_time(still), over_time(jumping)) > 5 * (still.mean(0) - jumping.mean(0)).square().sum() + 1
    with pytest.raises(ValueError, match="two frames or more, got 1"):
        over_time(still[:1])


def test_mismatched_or_too_small_feature_sets_are_refused(normal):
    for measure in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match=r"got \(4, 3\), \(4, 2\)"):
            measure(normal(4, 3), normal(4, 2))
        with pytest.raises(ValueError, match="at least 2"):
            measure(normal(1, 3), normal(4, 3))


def test_feature_networks_are_identified(tmp_path):
    features = identity_features(TEMPLATE)
    found = features.of(torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0)))
    assert "identity" in features.name and found.shape[0] == 2 and found.dtype == torch.float64
    with pytest.raises(FileNotFoundError, match=r"no Inception v3 weights at .*nothing"):
        inception_features(tmp_path / "nothing.pth")


def test_inception_is_used_if_its_file_is_installed(tmp_path, monkeypatch):
    """In a folder that is named, or in torch's own."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert available_features(TEMPLATE).name == "the embedded identity network"
    with torch.device("meta"):
        state = torchvision.models.inception_v3(weights=None, init_weights=False).state_dict()
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / INCEPTION_FILE
    torch.save({name: torch.full(value.shape, 0.01, dtype=torch.float16) for name, value in state.items()}, file)
    features = available_features(TEMPLATE)
    file.unlink()
    found = features.of(torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)))
    assert features.name == "torchvision's Inception v3" and found.shape == (1, 2048) and found.dtype == torch.float64 and found.isfinite().all()
