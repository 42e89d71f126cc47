"""Clips whose pixels are not square: faces are found, cut out and put back as the clip is displayed."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from fvr.faces import Paster, align, load_detector
from fvr.faces.detection.anisotropic_pixels import plausible
from fvr.faces.geometry import TEMPLATE, inverse
from fvr.pipeline import follow_faces
from fvr.video import FrameTimes, SourceInfo, open_sink, open_source

PAL_WIDE, TALL = Fraction(16, 11), Fraction(8, 9)


def stored(portrait, aspect):
    """The portrait with pixels of that shape, as many of them as it takes for the same picture."""
    return F.interpolate(portrait[None], size=(512, round(512 / aspect)), mode="bicubic", antialias=True).clamp(0, 1)


def followed(frames, aspect, path):
    """What the first pass finds in a clip of these frames."""
    times = FrameTimes.constant(len(frames), 25)
    like = SourceInfo(None, frames.shape[-1], frames.shape[-2], sample_aspect=aspect)
    with open_sink(path, like, size=tuple(frames.shape[-2:]), crf=10) as sink:
        sink.write(frames, times.starts, times.ends)
    source = open_source(path)
    assert source.info.sample_aspect == aspect
    (track,) = follow_faces(source, load_detector("blazeface"))
    return track


def misfit(track):
    """Mean distance of the landmarks from the template, in pixels of the crop."""
    matrix = track.matrices[0].double()
    return float((track.landmarks[0].double() @ matrix[:, :2].mT + matrix[:, 2] - TEMPLATE).norm(dim=-1).mean())


def placed(track):
    """Where the template's landmarks lie in the frame, (5, 2)."""
    back = inverse(track.matrices)[0]
    return TEMPLATE @ back[:, :2].mT + back[:, 2]


@pytest.mark.parametrize("aspect", [PAL_WIDE, TALL], ids=str)
def test_crops_match_those_of_square_pixels(aspect, astronaut, tmp_path):
    frames = stored(astronaut, aspect).repeat(2, 1, 1, 1)
    square = followed(astronaut.repeat(2, 1, 1, 1), Fraction(1), tmp_path / "square.mp4")
    track = followed(frames, aspect, tmp_path / "clip.mp4")
    assert misfit(track) < misfit(square) + 1.5
    there, wanted = placed(track), placed(square)
    there[:, 0] = (there[:, 0] + 0.5) * float(aspect) - 0.5
    assert (there - wanted).norm(dim=-1).mean() < 5, "five points of the crop, in pixels of the picture, whose face is 90 wide"
    one = torch.tensor([float(aspect), 1.0], dtype=torch.float64)
    linear = inverse(track.matrices)[0, :, :2] * one[:, None]
    assert torch.allclose(linear.mT @ linear, torch.eye(2, dtype=torch.float64) * (linear**2).sum() / 2, atol=1e-4), "not a similarity"


def test_pasted_crops_return_to_their_place(astronaut, tmp_path):
    frames = stored(astronaut, PAL_WIDE).repeat(2, 1, 1, 1)
    track = followed(frames, PAL_WIDE, tmp_path / "clip.mp4")
    pasted, mask = Paster(fade=False).paste(frames, 0, [(track, align(frames, track, 0), None)])
    assert (pasted - frames).abs().mean() < 0.003 and float(mask.max()) == pytest.approx(1)
    brighter, _ = Paster(fade=False).paste(frames, 0, [(track, align(frames, track, 0) * 0 + 1, None)])
    x, y = track.landmarks[0, 2].round().long()
    assert float(brighter[0, :, y, x].min()) > 0.99


@pytest.mark.parametrize(("info", "taken"), [(1.0, 1.0), (64 / 45, 64 / 45), (0.3, 0.3), (100.0, 1.0), (0.001, 1.0)])
def test_implausible_pixel_aspects_are_treated_as_square(info, taken):
    assert plausible(info) == taken
