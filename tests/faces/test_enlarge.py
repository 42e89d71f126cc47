"""Enlarged output: the frame is larger and otherwise what it was, and a small face keeps the detail that its crop has."""

from __future__ import annotations

import weakref
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from helpers.film_grain import fine, grainy, robust

from fvr.faces import Paster, align, find_tracks, load_detector
from fvr.faces.compositing.enlarge import enlarged, grain_kept, in_larger_frame, lanczos_resize
from fvr.faces.geometry import crop_corners
from fvr.methods.base import Restorer, Session, restore_frames
from fvr.methods.registry import embedded_blind
from fvr.models.device import on
from fvr.models.upscaling import OVERLAP, load_upscaler, ramp, spans
from fvr.pipeline import Walk
from fvr.video import FrameChunk, ShotCutDetector

PLAIN = Paster(fade=False, grain="off")


def psnr(a, b, where=None):
    error = (a - b).square().mean(-3)
    return -10 * torch.log10((error if where is None else error[where]).mean().clamp(min=1e-14))


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("face", [0.8, 1.2, 4.0])
def test_unrestored_crops_give_the_enlarged_frame(texture, track_of, scale, face):
    """Odd sides; outside the mask to the bit."""
    size = (401, 433) if face < 1 else (241, 275)
    frames, track = texture(*size)[None], track_of(1, size, face)
    crops = align(frames, track, 0)
    large = enlarged(frames, scale)
    out, mask = replace(PLAIN, scale=scale).paste(frames, 0, [(track, crops, None)])
    assert out.shape[-2:] == mask.shape[-2:] == (size[0] * scale, size[1] * scale)
    assert psnr(out, large, mask > 0.99) > 38
    assert torch.equal(out[0][:, mask[0] == 0], large[0][:, mask[0] == 0])
    assert torch.equal(replace(PLAIN, scale=scale).paste(frames, 0, [(track, crops, crops)])[0], large)


def test_transforms_of_the_larger_frame_map_the_same_points(track_of):
    (matrix,) = track_of(1, (200, 300), 2.5).matrices
    small, large = crop_corners(matrix), crop_corners(in_larger_frame(matrix, 3))
    torch.testing.assert_close(large, small * 3 + 1, rtol=0, atol=1e-3)


def test_enlarging_then_reducing_is_the_identity(texture):
    picture = texture(120, 90)
    for side in (2, 3):
        assert psnr(lanczos_resize(lanczos_resize(picture, 120 * side, 90 * side), 120, 90), picture) > 45


def test_a_small_face_keeps_the_detail_of_its_crop(read_clip, track_of):
    """The restored crop is the truth's: what is pasted at twice the size has fine detail that the enlarged paste cannot have."""
    truth = read_clip("clean_face_512.mp4", 20, 2)
    truth = F.interpolate(truth, (240, 240), mode="area")
    small = F.interpolate(truth, (120, 120), mode="area")
    track = track_of(2, (120, 120), 512 / 110, centre=(60.0, 66.0), drift=0)
    crops = align(truth, replace(track, matrices=in_larger_frame(track.matrices, 2), frame_size=(240, 240)), 0)
    once, _ = PLAIN.paste(small, 0, [(track, crops, None)])
    twice, mask = replace(PLAIN, scale=2).paste(small, 0, [(track, crops, None)])
    inside = (mask > 0.9)[:, None].expand_as(twice)

    assert likeness(twice, truth, inside) > 0.95 > 0.5 > likeness(enlarged(once, 2), truth, inside)


def test_detail_of_the_default_restorer_shows_at_twice_the_size(read_clip):
    """A face of 53 pixels: the fine detail of what blind restoration makes of it is nearer to the truth than what is left of it at that size."""
    blind = embedded_blind(lambda network: on(network, "cpu"))
    if blind is None:
        pytest.skip("the embedded weights are not here")
    truth = F.interpolate(read_clip("clean_face_512.mp4", 20, 2), (240, 240), mode="area")
    small = F.interpolate(truth, (120, 120), mode="area")
    (track,) = find_tracks([(0, small)], load_detector("blazeface"), ShotCutDetector())
    crops = align(small, track, 0)
    items = [(track, restore_frames(blind, crops, track), crops)]
    (once, _), (twice, mask) = (replace(PLAIN, scale=scale).paste(small, 0, items) for scale in (1, 2))
    inside = (mask > 0.9)[:, None].expand_as(twice)
    assert likeness(twice, truth, inside) > likeness(enlarged(once, 2), truth, inside) + 0.05


def likeness(frames, truth, inside):
    """Correlation of what twice the size has beyond the size itself."""
    fine = [(picture - enlarged(F.avg_pool2d(picture, 2), 2))[inside] for picture in (frames, truth)]
    return float(torch.corrcoef(torch.stack(fine))[0, 1])


def test_an_enlarged_face_matches_the_grain_of_its_frame(track_of):
    data = pytest.importorskip("skimage.data", reason="the portrait comes with scikit-image")
    picture = torch.from_numpy(data.astronaut()[:384]).permute(2, 0, 1) / 255
    frames = grainy(picture, 7)[None]
    track = track_of(1, (384, 512), 2.5, centre=(224.0, 110.0), drift=0.0)
    items = [(track, align(picture[None], track, 0), align(frames, track, 0))]
    off, mask = replace(PLAIN, scale=2).paste(frames, 0, items)
    auto, _ = Paster(fade=False, scale=2).paste(frames, 0, items)
    inside, far = (mask[0] > 0.95).numpy(), (mask[0] == 0).numpy()
    ground = enlarged(picture[None], 2)[0]
    around = robust(fine(enlarged(frames, 2)[0] - ground)[far])
    assert robust(fine(off[0] - ground)[inside]) < 0.3 * around
    assert 0.6 * around < robust(fine(auto[0] - ground)[inside]) < 1.2 * around


def test_no_grain_is_restored_where_the_upscaler_removed_it(texture):
    """`grain_kept` is what the enlarged frame still has."""
    frame = grainy(texture(128, 128, blur=3.0), 8)
    large = enlarged(frame[None], 2)[0]
    assert grain_kept(frame, large) == pytest.approx(1, abs=1e-6)
    cleaned = F.avg_pool2d(large[None], 9, 1, 4)[0]
    assert grain_kept(frame, cleaned) < 0.2


class Crops(Session):
    """Gives back what it gets, all at the end."""

    def __init__(self):
        self.held = []

    def push(self, crops):
        self.held.append(crops)
        return torch.empty(0, 3, 512, 512)

    def close(self):
        return torch.cat(self.held)


class Holding(Restorer):
    name = "holding"

    def open(self, track=None, **how):
        return Crops()


def test_enlarged_frames_are_bounded_in_memory(track_of, monkeypatch):
    """A session that holds everything back finishes all frames at once; two of them are enlarged at a time, and gone before the next are."""
    monkeypatch.setattr("fvr.faces.compositing.paste.MAX_BYTES", 12 * 400 * 400 * 2)
    made, at_once = [], []

    def noted(frames, *how):
        at_once.append(len(frames) + sum(len(one) for one in (ref() for ref in made) if one is not None))
        large = enlarged(frames, *how)
        made.append(weakref.ref(large))
        return large

    monkeypatch.setattr("fvr.faces.compositing.paste.enlarged", noted)
    frames, tracks = torch.rand(12, 3, 100, 100), [track_of(12, (100, 100), 6.0, drift=0)]
    walk = Walk(tracks, Holding(), Paster(fade=False, grain="off", scale=4))
    times = tuple(Fraction(n, 25) for n in range(13))
    written = 0
    for begin in range(0, 12, 4):
        part = slice(begin, begin + 4)
        for done in walk.push(FrameChunk(begin, frames[part], times[part], times[begin + 1 : begin + 5])):
            assert done.index == written and done.frames.shape[-1] == 400
            written += len(done)
            del done
    assert walk.empty and written == 12 and len(made) == 6 and max(at_once) == 2


@pytest.fixture
def network(tmp_path):
    """A file of a small upscale model of 4x whose weights are random."""
    arch = pytest.importorskip("spandrel.architectures.Compact")
    torch.manual_seed(0)
    model = arch.Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=3, upscale=4)
    torch.save({"params": model.state_dict()}, tmp_path / "x4.pth")
    return tmp_path / "x4.pth"


def test_tiles_are_seamless(network, texture, monkeypatch):
    upscaler = load_upscaler(network, device=torch.device("cpu"))
    picture = texture(150, 203)
    whole = upscaler(picture)
    assert whole.shape == (3, 600, 812) and upscaler.name.startswith("RealESRGAN Compact 4x ")
    torch.testing.assert_close(upscaler.in_tiles(picture, 96), whole, rtol=0, atol=1e-5)
    calls = []

    def tight(tile):
        calls.append(tile.shape[-1])
        if tile.shape[-1] > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return F.interpolate(tile, scale_factor=4)

    assert replace(upscaler, call=tight)(picture).shape == (3, 600, 812) and max(calls) == 203 and min(calls) == 64
    for scale in (2, 3, 4):
        large = enlarged(picture[None], scale, upscaler)
        assert large.shape == (1, 3, 150 * scale, 203 * scale)
        assert psnr(lanczos_resize(large[0], 150, 203)[None], lanczos_resize(whole, 150, 203)[None]) > 40


@pytest.mark.parametrize("length", [1, 64, 65, 100, 161, 500])
def test_tiles_cover_every_pixel_evenly(length):
    total = torch.zeros(2 * length)
    for span in spans(length, 64):
        assert span.stop - span.start == min(64, length)
        total[2 * span.start : 2 * span.stop] += ramp(span, length, 2)
    assert total.min() > 0.99 and (length < 128 or total[: 2 * (64 - OVERLAP)].max() == 1)


def test_networks_that_do_not_enlarge_are_refused(network, tmp_path):
    arch = pytest.importorskip("spandrel.architectures.DnCNN")
    torch.save({"params": arch.DnCNN(in_nc=3, out_nc=3, nc=16, nb=10, act_mode="R", mode="DnCNN").state_dict()}, tmp_path / "same.pth")
    torch.save({"nothing": torch.zeros(3)}, tmp_path / "none.pth")
    for name, sentence in (("same", "which does not enlarge frames"), ("none", "is no upscale model that spandrel knows")):
        with pytest.raises(ValueError, match=sentence):
            load_upscaler(tmp_path / f"{name}.pth", device=torch.device("cpu"))
    with pytest.raises(ValueError, match="scale is 1 to 4 times the size of the frames, a whole number, got 5"):
        Paster(scale=5)
    with pytest.raises(ValueError, match="an upscale model enlarges frames, and scale is 1"):
        Paster(upscaler=load_upscaler(network, device=torch.device("cpu")))
