"""Colours do not shift: right matrix, right range, and no 8-bit bottleneck."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from helpers.video_helpers import moving, save
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.video import ColourTags, SourceInfo, VideoError, open_sink, open_source, probe, read_frames
from fvr.video.colour import LUMA_WEIGHTS, YCbCr
from fvr.video.pixels import plane_view, to_tensor

TAGS = [ColourTags(1, False, 1, 1), ColourTags(1, True, 1, 1), ColourTags(6, False, 6, 6), ColourTags(5, True, 5, 6), ColourTags(9, False, 9, 14)]
PATCHES = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5], [0.9, 0.6, 0.5], [0.2, 0.3, 0.7]])


def patches() -> torch.Tensor:
    """Eight flat colours, (1, 3, 64, 128)."""
    return PATCHES.T.reshape(1, 3, 2, 4).repeat_interleave(32, 2).repeat_interleave(32, 3)


@pytest.mark.parametrize("layout", [(2, 2), (2, 1), (1, 2), (4, 1), (4, 4)], ids=str)
def test_bands_of_rows_are_the_picture_in_one(layout, monkeypatch):
    """To the bit, whatever is left over at the right and below."""
    generator = torch.Generator().manual_seed(0)
    space = YCbCr(1, False, 8, *layout)
    for height, width in ((1, 3), (33, 7), (40, 22)):
        small = -(-height // layout[1]), -(-width // layout[0])
        planes = [torch.randint(0, 256, size, generator=generator, dtype=torch.uint8) for size in ((height, width), small, small)]
        made = []
        for band in (16, 1 << 20):
            monkeypatch.setattr("fvr.video.colour.BAND", band)
            rgb = space.to_rgb(*planes)
            made.append((rgb, *space.from_rgb(rgb)))
        assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


@pytest.mark.parametrize("tags", TAGS, ids=str)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p10le"])
def test_flat_colours_come_back(tmp_path, tags, pixel_format):
    """Within what rounding to 8 or 10 bits of Y'CbCr costs (half a step of luma and chroma together); the tags are the same."""
    like = SourceInfo(None, 128, 64, colour=tags)
    path = save(tmp_path / "clip.mp4", patches(), like=like, crf=1, pixel_format=pixel_format)
    assert probe(path).colour == tags
    seen = read_frames(path)[0]
    means = seen.unfold(2, 32, 32).unfold(3, 32, 32)[..., 8:24, 8:24].mean((-2, -1))
    error = (means.flatten(2)[0].T - PATCHES).abs() * 255
    assert error.mean() < (0.5 if "10" in pixel_format else 1)
    assert error.max() < (0.5 if "10" in pixel_format else 1.7)


@pytest.mark.skipif(not hasattr(Interpolation, "ACCURATE_RND"), reason="PyAV before 17 cannot ask swscale for its accurate path")
@pytest.mark.parametrize("matrix, full", [(1, False), (1, True), (6, False), (6, True), (9, False)])
def test_decoding_agrees_with_swscale(matrix, full):
    """FFmpeg's own converter at its most accurate, on chroma that needs no interpolation, as the independent witness."""
    rng = np.random.default_rng(0)
    frame = VideoFrame(64, 48, "yuv444p")
    for plane in frame.planes:
        low, high = (0, 256) if full else (16, 236)
        plane.update(rng.integers(low, high, (48, 64), np.uint8).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    ranges = {"src_color_range": 2 if full else 1, "dst_color_range": 2}
    theirs = frame.reformat(format="rgb24", src_colorspace=matrix, interpolation=flags, **ranges).to_ndarray()
    ours = to_tensor(frame).permute(1, 2, 0).mul(255).numpy()
    assert np.abs(ours - theirs).max() < 2
    assert np.abs(ours - theirs).mean() < 0.5


@settings(max_examples=40, deadline=None)
@given(
    matrix=st.sampled_from(sorted(LUMA_WEIGHTS)), full=st.booleans(), bits=st.sampled_from([8, 10, 12, 16]),
    height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99),
)  # fmt: skip
def test_rgb_to_ycbcr_and_back_is_the_identity_up_to_rounding(matrix, full, bits, height, width, seed):
    space = YCbCr(matrix, full, bits, 1, 1)
    rgb = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    assert (space.to_rgb(*space.from_rgb(rgb)) - rgb).abs().max() < 2.5 / (1 << bits) * (1 if full else 256 / 219) + 1e-6


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), sub=st.sampled_from([(2, 2), (2, 1), (1, 2)]), grey=st.floats(0, 1))
def test_subsampling_keeps_flat_colours_at_any_size(height, width, sub, grey):
    space = YCbCr(1, False, 10, *sub)
    rgb = torch.tensor([grey, 0.3, 0.8]).view(3, 1, 1).expand(3, height, width)
    y, cb, cr = space.from_rgb(rgb)
    assert cb.shape == cr.shape == (-(-height // sub[1]), -(-width // sub[0]))
    assert (space.to_rgb(y, cb, cr) - rgb).abs().max() < 0.003


def test_chroma_sits_where_h264_says():
    """A chroma ramp, linear in x and y, survives 4:2:0: a shift of half a pixel would tilt it."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    blue = 0.3 + 0.012 * x + 0.01 * y
    luma = 0.5
    kr, kb = LUMA_WEIGHTS[1]
    rgb = torch.stack((torch.full_like(blue, luma), (luma - kr * luma - kb * blue) / (1 - kr - kb), blue))
    space = YCbCr(1, True, 12)
    assert (space.to_rgb(*space.from_rgb(rgb)) - rgb)[:, 2:-2, 2:-2].abs().max() < 0.002


@pytest.mark.parametrize("name", ["scene_720p_clean.mp4", "degraded_single_388x512.mp4", "clean_face_480_tone.mp4"])
def test_real_clips_keep_their_mean_colour(shared, tmp_path, name):
    """Tagged BT.709 and untagged clips: every channel's mean moves by less than half a level of 255."""
    source = open_source(shared(name), count=3)
    frames, times = read_frames(source)
    path = save(tmp_path / "clip.mp4", frames, times, source.info, crf=10)
    assert probe(path).colour.matrix == source.info.colour.matrix
    assert (read_frames(path)[0] - frames).mean((0, 2, 3)).abs().max() * 255 < 0.5


def test_an_untagged_clip_that_grows_states_its_matrix(tmp_path):
    """Players guess BT.601 below 577 lines and BT.709 above; x4 must not change the guess."""
    like = SourceInfo(None, 320, 180)
    path = save(tmp_path / "clip.mp4", patches().repeat_interleave(10, 2).repeat_interleave(10, 3), like=like)
    assert probe(path).colour.matrix == 6


def test_ten_bits_are_not_cut_to_eight(tmp_path):
    """A ramp of 1000 greys keeps more than 256 of them, and its error is below an 8-bit step."""
    ramp = torch.linspace(0, 1, 1024).view(1, 1, 1, -1).expand(1, 3, 32, -1)
    path = save(tmp_path / "clip.mp4", ramp, pixel_format="yuv420p10le", crf=0)
    seen = read_frames(path)[0]
    assert seen[0, 1, 16].unique().numel() > 600
    assert (seen - ramp).abs().mean() < 0.25 / 255


def test_lossless_is_lossless(tmp_path):
    """FFV1 4:4:4 10-bit returns every 8-bit colour exactly."""
    frames = (moving(3) * 255).round() / 255
    path = save(tmp_path / "clip.mkv", frames, codec="ffv1", pixel_format="yuv444p10le")
    assert ((read_frames(path)[0] * 255).round() / 255 - frames).abs().max() < 1e-6


FORMATS = ["rgb24", "yuv444p", "bgr24", "gbrp", "rgba", "gray", "nv12", "yuvj420p", "yuv411p", "yuva420p", "rgb48le", "p010le", "gray16le", "yuyv422"]


@pytest.mark.parametrize("name", [*FORMATS, "gbrp10le"])
def test_every_pixel_format_decodes_to_the_same_picture(name):
    """A grey ramp looks the same whatever FFmpeg stores it in; alpha is dropped."""
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)[None, :, None].repeat(16, 0).repeat(3, 2)
    source = VideoFrame.from_ndarray(np.ascontiguousarray(ramp), format="rgb24")
    frame = source.reformat(format=name, dst_colorspace=1, dst_color_range=2 if name.startswith(("gray", "yuvj")) else None)
    if name.startswith("gray"):
        frame.color_range = 2
    assert (to_tensor(frame).mul(255) - torch.from_numpy(ramp).permute(2, 0, 1)).abs().max() < 2.1


@pytest.mark.parametrize("name", ["gray", "gray16le", "gray10be", "ya8"])
@pytest.mark.parametrize(("stated", "black", "white"), [(0, 0, 1), (1, -16 / 219, 239 / 219), (2, 0, 1)])
def test_grey_is_of_full_range_unless_it_says_otherwise(name, stated, black, white):
    """FFmpeg writes the grey of film scans so, and without a word of it."""
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)[None].repeat(16, 0)
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(ramp), format="gray16le").reformat(format=name, src_color_range=2, dst_color_range=2)
    frame.color_range = stated
    expected = torch.linspace(black, white, 64).clamp(0, 1)
    assert (to_tensor(frame) - expected).abs().max() < 8e-3


@pytest.mark.parametrize("name", ["rgb555le", "rgb565le", "bgr555le", "rgb8"])
def test_white_stays_white_in_few_bits(name):
    """Old screen recordings have five bits per colour, whose 31 is white."""
    pixels = np.stack([np.zeros((2, 8, 3), np.uint8), np.full((2, 8, 3), 255, np.uint8)], 1).reshape(4, 8, 3)
    frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=name)
    rgb = to_tensor(frame)
    assert rgb[:, 0].max() == 0 and rgb[:, 1].min() > 0.985


def test_colours_that_are_no_luma_and_chroma_are_refused(tmp_path):
    """Read as BT.709, YCgCo would be green and magenta."""
    with av.open(str(tmp_path / "screen.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace = 8
        out.mux(stream.encode(VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24").reformat(format="yuv444p")))
        out.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"screen\.mkv are stored as YCgCo, which is not read here"):
        open_source(tmp_path / "screen.mkv")


def test_tags_are_in_the_stream(tmp_path):
    """The file carries the tags in its stream, where other players look for them."""
    path = save(tmp_path / "clip.mp4", moving(2), like=SourceInfo(None, 64, 48, colour=ColourTags(6, True, 6, 6)))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (6, 2, 6, 6)


@pytest.mark.parametrize("codec, suffix", [("prores", "mov"), ("h265", "mp4"), ("av1", "mkv"), ("ffv1", "mkv")])
def test_high_dynamic_range_is_said_in_every_frame(tmp_path, codec, suffix):
    """BT.2020 and PQ come back from the decoded frame, which players believe over the container; ProRes says it nowhere else."""
    like = SourceInfo(None, 64, 64, colour=ColourTags(9, False, 9, 16), pix_fmt="yuv420p10le")
    pixels = {"prores": None}.get(codec, "yuv420p10le")
    path = save(tmp_path / f"clip.{suffix}", moving(2, 64), like=like, codec=codec, pixel_format=pixels)
    if codec == "prores" and not hasattr(VideoFrame, "color_trc"):  # PyAV before 17
        with open_sink(tmp_path / "said.mov", like, codec=codec) as sink:
            assert "of high dynamic range" in sink.warnings[0]
            sink.write(moving(1, 64), (Fraction(0),), (Fraction(1),))
    else:
        assert probe(path).colour == ColourTags(9, False, 9, 16)


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p16le", "bgr0", "gbrp10le", "gbrp16le"])
@pytest.mark.parametrize("height, width", [(32, 48), (31, 47)])
def test_ffv1_to_ffv1_keeps_every_bit_of_untouched_frames(tmp_path, name, height, width):
    """And its pixel format; changed frames are as near as the format allows."""
    path, rng = tmp_path / "in.mkv", np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, name
        for index in range(3):
            frame = av.VideoFrame(width, height, name)
            for plane in frame.planes:
                deep = frame.format.components[0].bits > 8
                top = 1 << frame.format.components[0].bits if deep else 256
                numbers = rng.integers(0, top, plane.buffer_size // (2 if deep else 1)).astype("<u2" if deep else np.uint8)
                plane.update(numbers.tobytes())
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    source = open_source(path)
    with open_sink(tmp_path / "out.mkv", source.info, audio=source, codec="ffv1") as sink:
        for chunk in source.chunks():
            changed = (chunk.stored[0], None, chunk.stored[2])
            sink.write(chunk.frames, chunk.starts, chunk.ends, changed)
    assert sink.warnings == []
    pairs = []
    for file in (path, tmp_path / "out.mkv"):
        with av.open(str(file)) as container:
            pairs.append(list(container.decode(video=0)))
    for index, (one, other) in enumerate(zip(*pairs, strict=True)):
        assert one.format.name == other.format.name == name
        before, after = (numbers_of(frame) for frame in (one, other))
        if index != 1 or "b" in name:
            assert all(np.array_equal(*planes) for planes in zip(before, after, strict=True))


def numbers_of(frame) -> list[np.ndarray]:
    """What each plane holds, without the padding and the unused byte of bgr0."""
    deep = frame.format.components[0].bits > 8
    kind = np.dtype("<u4" if frame.format.name == "bgr0" else "<u2" if deep else np.uint8)
    used = kind.type(0xFFFFFF if kind.itemsize == 4 else np.iinfo(kind).max)
    return [plane_view(frame, index, kind) & used for index in range(len(frame.planes))]
