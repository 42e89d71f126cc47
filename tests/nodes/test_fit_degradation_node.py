"""Fit Degradation, called as the host calls it: frames at their true size, an operator that explains them, and the figures as data."""

from __future__ import annotations

import json

import pytest
import torch.nn.functional as F

from fvr.demo import moving_portrait
from fvr.nodes.degradation import FitDegradation
from fvr.physics import parse
from fvr.physics.fit import enlarge


def test_an_enlarged_blurred_clip_is_given_back_small_with_what_was_found():
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    clean = F.interpolate(moving_portrait(3), (256, 256), mode="area")
    small = parse("gaussian_blur(sigma=2, factor=2)").forward(clean).clamp(0, 1)
    stored = enlarge(small, 2).clamp(0, 1).permute(0, 2, 3, 1)
    out = FitDegradation.execute(stored)
    frames, operator, text = out.result
    (info,) = json.loads(json.dumps(out.ui["report"], allow_nan=False))
    assert info["enlargement"] == 2 and frames.shape[1:3] == (128, 128) and operator.factor == 2
    assert info["degradation"] == operator.describe() and info["degradation"] in text and out.ui["text"] == (text,)
    assert f"blur of {info['sigma']:.1f} pixels" in text and f"noise of {info['noise'] * 255:.1f} grey levels" in text
    whole = FitDegradation.execute(stored, shrink=False)
    assert whole.ui["report"][0]["enlargement"] == 1 and whole.result[0].shape == stored.shape
