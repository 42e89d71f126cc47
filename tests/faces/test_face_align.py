from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fvr.faces import align, crop_clip
from fvr.faces.geometry import inverse
from fvr.faces.warp import affine_grid


def waves(x, y):
    return torch.stack([0.5 + 0.3 * torch.sin(x / 23 + y / 31), 0.5 + 0.3 * torch.cos(x / 37), 0.5 + 0.3 * torch.sin(y / 29)]).float()


@pytest.mark.parametrize("scale", [0.5, 0.9, 1.4, 4.0])
def test_crops_sample_the_right_positions(scale, track_of):
    track = track_of(2, (1400, 1500), scale)
    y, x = torch.meshgrid(torch.arange(1400.0), torch.arange(1500.0), indexing="ij")
    crops = align(waves(x, y).expand(2, -1, -1, -1), track, 0)
    for crop, matrix in zip(crops, track.matrices, strict=True):
        u, v = affine_grid(inverse(matrix), 512, 512)
        assert_close(crop, waves(u, v), atol=4e-3, rtol=0)


def test_downsampled_crops_do_not_alias(track_of):
    track = track_of(1, (1600, 1600), 0.4)
    y, x = torch.meshgrid(torch.arange(1600), torch.arange(1600), indexing="ij")
    stripes = ((x + y) % 2).float().expand(1, 3, -1, -1)
    assert (align(stripes, track, 0) - 0.5).abs().max() < 0.02


def test_borders_are_replicated(track_of):
    track = track_of(1, (120, 160), 2.0, centre=(5.0, 60.0))
    frame = torch.zeros(1, 3, 120, 160)
    frame[..., :40] = 0.7
    crop = align(frame, track, 0)[0]
    assert_close(crop[:, 150:350, :200], torch.full((3, 200, 200), 0.7), atol=1e-5, rtol=0)


def test_chunks_agree_with_the_whole(track_of, texture):
    track = track_of(5, (200, 220), 1.7, start=3)
    frames = torch.stack([texture(200, 220, seed) for seed in range(8)])
    whole = crop_clip(frames, track).crops
    ones = torch.cat([align(frames[k : k + 1], track, k) for k in range(3, 8)])
    assert torch.equal(whole, ones)
    assert whole.min() >= 0 and whole.max() <= 1


def test_frames_outside_the_track_are_refused(track_of, texture):
    track = track_of(3, (64, 64), 3.0, start=2)
    frames = texture(64, 64).expand(5, -1, -1, -1)
    with pytest.raises(ValueError, match="frames 2 to 4, got frames 1 to 3"):
        align(frames[:3], track, 1)
    with pytest.raises(ValueError, match="found in frames of"):
        align(frames[:1, :, :60], track, 2)
    with pytest.raises(ValueError, match="got 4 frames"):
        crop_clip(frames[:4], track)
