"""Stills set in motion, and clips of a folder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fvr.motion.dis import DisFlow
from fvr.training.data.synthetic_motion import Clips, Motion, animate
from fvr.video import open_sink


def picture(side: int = 64) -> torch.Tensor:
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)[0]


def test_synthetic_motion_is_smooth_bounded_and_repeatable() -> None:
    motion = Motion(period=16)
    clip, again = (animate(picture(), 32, motion, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(clip, again)
    steps = (clip[1:] - clip[:-1]).abs().mean((1, 2, 3))
    assert steps.min() > 0 and steps.max() < (clip[0] - clip[16]).abs().mean()
    flow = DisFlow()
    seen = [flow.features(frame[None] * 2 - 1) for frame in clip]
    largest = max(flow.flow(seen[t], seen[t - 1])[..., 8:-8, 8:-8].abs().quantile(0.95).item() for t in range(1, 32))
    assert 0.1 < largest < 3  # pixels of 64


def test_motion_of_zero_amounts_is_the_identity() -> None:
    still = animate(picture(), 3, Motion(0, 0, 0, 0, light=0), torch.Generator().manual_seed(0))
    assert (still - picture()).abs().max() < 1e-5


def test_sampled_clips_are_consecutive_frames(tmp_path: Path) -> None:
    for index in range(9):
        frame = np.full((32, 32, 3), 20 * index, np.uint8)
        folder = tmp_path / "anna"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{index:03}.png"), frame)
    clips = Clips(tmp_path, 16, 4)
    pieces = [clips.sample(torch.Generator().manual_seed(seed)) for seed in range(8)]
    for piece in pieces:
        levels = (piece.mean((1, 2, 3)) * 255 / 20).round().int().tolist()
        assert levels == list(range(levels[0], levels[0] + 4))
    assert len({float(piece.mean()) for piece in pieces}) > 1
    with pytest.raises(ValueError, match="no clip of at least 10 frames"):
        Clips(tmp_path, 16, 10)


def write_film(path: Path, frames: int, shade: int) -> None:
    with open_sink(path, size=(64, 64), crf=1) as sink:
        for index in range(frames):
            sink.write(torch.full((1, 3, 64, 64), (shade + 2 * index) / 255), [Fraction(index, 25)], [Fraction(index + 1, 25)])


def test_clips_beyond_the_memory_limit_are_decoded_on_demand(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", 80, 20)
    write_film(tmp_path / "b.mp4", 7, 100)
    write_film(tmp_path / "short.mp4", 3, 200)
    one_frame = 3 * 16**2
    held, some, none = (Clips(tmp_path, 16, 4, in_memory=room) for room in (1 << 30, 10 * one_frame, 0))
    assert [[film.pixels is not None for film in clips._videos] for clips in (held, some, none)] == [[True, True], [False, True], [False, False]]
    for seed in range(12):
        pieces = [clips.sample(torch.Generator().manual_seed(seed)) for clips in (held, some, none)]
        assert all(torch.equal(piece, pieces[0]) for piece in pieces)
        levels = (pieces[0].mean((1, 2, 3)) * 255).diff()
        assert bool((levels > 0.5).all()), levels  # consecutive and in order
