"""What cannot be kept is said in one sentence, what can be is kept: mirrored pictures, names of sound tracks."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from av.stream import Disposition
from helpers.video_helpers import copy, moving, psnr, save
from PIL import Image, ImageCms, features

from fvr.video import ColourTags, SourceInfo, VideoError, open_sink, open_source, read_frames
from fvr.video.reading.probe import is_transparent
from fvr.video.writing.boxes import Box, boxes, find

DATA = Path(__file__).resolve().parents[1] / "data"


def encode(path, frames, codec: str, pixel_format: str, *, options=None, metadata=None, stamps=None):
    """RGB (H, W, 3 or 4) uint8 pictures by FFmpeg alone."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.metadata.update(metadata or {})
        for index, picture in zip(stamps or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgba" if picture.shape[2] == 4 else "rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def pictures(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    return [(frame.permute(1, 2, 0).numpy() * 255).astype(np.uint8) for frame in moving(count, height, width)]


def noise(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(index).integers(0, 255, (64, 64, 3), np.uint8) for index in range(count)]


# ---------------------------------------------------------------- images


def test_one_image_with_many_pages_is_refused(tmp_path):
    images = [Image.new("RGB", (32, 24), (20 * level, 0, 0)) for level in range(6)]
    images[0].save(tmp_path / "pages.tif", save_all=True, append_images=images[1:])
    with pytest.raises(VideoError, match="holds 6 pictures"):
        open_source(tmp_path / "pages.tif")


@pytest.mark.parametrize("name", ["moving.webp", "moving.png", "pages.tif"])
def test_of_a_sequence_each_image_is_one_picture(tmp_path, name):
    images = [Image.new("RGB", (32, 24), (20 * level, 0, 0)) for level in range(6)]
    images[0].save(tmp_path / f"single{name[-5:]}")
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=100)
    source = open_source(tmp_path)
    assert len(read_frames(source)[0]) == 2
    assert [sentence for sentence in source.warnings if "several pictures" in sentence] == source.warnings and source.warnings


@pytest.mark.parametrize("name", ["moving.webp", "moving.png", "moving.apng", "moving.gif", "moving.avif"])
def test_an_animated_image_is_a_clip_with_its_own_times(tmp_path, name):
    """Some pictures stay longer than others; any part is that part of the whole."""
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    images = [Image.new("RGB", (32, 24), (40 * level, 30, 0)) for level in range(6)]
    lengths = [100] * 6 if name.endswith(".avif") else [100, 100, 300, 40, 100, 200]
    exact = {"lossless": True} if name.endswith(".webp") else {}
    images[0].save(
        tmp_path / name, format="png" if name.endswith(".apng") else None, save_all=True, append_images=images[1:], duration=lengths, **exact
    )
    source = open_source(tmp_path / name)
    frames, times = read_frames(source)
    assert frames[:, 0].mean((1, 2)).mul(255).tolist() == pytest.approx([40 * level for level in range(6)], abs=6)
    if not name.endswith((".png", ".apng")):  # of which FFmpeg takes the last length for the one before
        assert times.durations == tuple(Fraction(length, 1000) for length in lengths)
    assert times.starts == tuple(Fraction(sum(lengths[:n]), 1000) for n in range(6)) and source.warnings == []
    part, when = read_frames(tmp_path / name, start=2, count=3)
    assert torch.equal(part, frames[2:5]) and when.starts == times.starts[2:5]
    window, _ = read_frames(tmp_path / name, window=(times.starts[2], times.starts[4] - times.starts[2]))
    assert torch.equal(window, frames[2:4])
    out = open_source(copy(source, tmp_path / "out.mp4"))
    assert out.times().starts == times.starts


def test_an_animated_picture_that_is_cut_short_gives_what_it_has(tmp_path):
    noise = [Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)) for seed in range(6)]
    noise[0].save(tmp_path / "whole.webp", save_all=True, append_images=noise[1:], duration=40)
    data = (tmp_path / "whole.webp").read_bytes()
    (tmp_path / "cut.webp").write_bytes(data[: len(data) * 2 // 3])
    try:
        source = open_source(tmp_path / "cut.webp")
        frames, _ = read_frames(source)
    except VideoError as error:
        assert "cut short" in str(error)
    else:
        assert 0 < len(frames) < 6 and source.warnings


def test_a_page_with_its_small_copy_is_one_picture(tmp_path):
    """Cameras and scanners put a thumbnail behind the page, marked by NewSubfileType 1."""
    big, small = (Image.new("RGB", size, (200, 0, 0)) for size in ((32, 24), (8, 6)))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    big.save(tmp_path / "scan.tif", save_all=True, append_images=[small])
    assert read_frames(tmp_path / "scan.tif")[0].shape == (1, 3, 24, 32)


@pytest.mark.parametrize(
    "numbers, lacks", [((1, 2, 5), 2), ((0, 2, 4, 8), 1), ((1, 2, 3), 0), ((0, 5, 10), 0), ((1004, 2010, 3021), 0), ((9, 10, 12), 1)]
)
def test_gaps_in_a_numbered_sequence_are_said(tmp_path, numbers, lacks):
    """A regular step is a choice, and times of day are no numbering."""
    for number in numbers:
        cv2.imwrite(str(tmp_path / f"shot_{number}.png"), np.zeros((8, 8, 3), np.uint8))
    source = open_source(tmp_path)
    assert len(read_frames(source)[0]) == len(numbers)
    assert [f"lacks {lacks} of its images" in sentence for sentence in source.warnings] == [True] * bool(lacks)


def test_transparent_images_are_said(tmp_path):
    opaque, clear = (np.full((8, 8, 4), (10, 20, 30, alpha), np.uint8) for alpha in (255, 100))
    cv2.imwrite(str(tmp_path / "opaque.png"), opaque)
    cv2.imwrite(str(tmp_path / "clear.png"), clear)
    assert open_source(tmp_path / "opaque.png").warnings == []
    assert "transparency is not kept" in open_source(tmp_path / "clear.png").warnings[0]


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_one_transparent_image_of_many_is_said(tmp_path, kind):
    for number in range(3):
        picture = Image.new("RGBA", (8, 8), (10, 20, 30, 100 if number else 255))
        options = {"transparency": 0} if kind == "P" and number else {}
        picture.convert(kind).save(tmp_path / f"{number}.png", **options)
    source = open_source(tmp_path)
    read_frames(source), read_frames(source)
    assert source.warnings == [f"{tmp_path / '1.png'} has transparent parts; transparency is not kept"]


@pytest.mark.parametrize("name", ["late.webp", "late.gif", "late.apng", "late.png", "late.avif", "late.mov", "late.mkv"])
def test_transparency_that_comes_late_is_said(tmp_path, name):
    """Once, whichever picture is the first to have any; nothing where there is none."""
    clear, opaque = ([np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]) for picture in pictures(4)] for _ in range(2))
    for picture in clear[2:]:
        picture[4:20, 4:28, 3] = 0
    for pixels, said in ((clear, True), (opaque, False)):
        if name.endswith((".mov", ".mkv")):
            codec, kind = {".mov": ("prores_ks", "yuva444p10le"), ".mkv": ("ffv1", "yuva420p")}[name[-4:]]
            encode(tmp_path / name, pixels, codec, kind)
        elif name.endswith(".avif") and not features.check("avif"):
            pytest.skip("this Pillow writes no AVIF")
        else:
            images = [Image.fromarray(one if said else one[..., :3]) for one in pixels]
            form = {"format": "png"} if name.endswith(".apng") else {}
            images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=100, disposal=2, **form)
        source = open_source(tmp_path / name)
        read_frames(source), read_frames(source)
        assert [sentence for sentence in source.warnings if "transparency is not kept" in sentence] == source.warnings
        assert len(source.warnings) == said


@pytest.mark.parametrize("kind", ["yuva420p", "yuva444p10le", "rgba"])
def test_what_is_opaque_in_fewer_bits_is_opaque_in_sixteen(tmp_path, kind):
    """FFmpeg leaves the lowest bits 0, also those of alpha."""
    for alpha in (255, 250):
        picture = np.full((16, 16, 4), (10, 20, 30, alpha), np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=kind).reformat(format="rgba64le")
        pixels = frame.to_ndarray(format="rgba64le")
        cv2.imwrite(str(tmp_path / f"{alpha}.png"), pixels[..., [2, 1, 0, 3]])
        deep = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=kind).reformat(format="yuva444p16le")
        found = [bool(open_source(tmp_path / f"{alpha}.png").warnings), is_transparent(frame), is_transparent(deep)]
        assert found == [alpha < 255] * 3 and pixels[..., 3].max() < 65535


def test_what_an_image_carries_is_said(tmp_path):
    """Its turn is obeyed and its layout no news; an sRGB profile changes nothing."""
    picture, exif = Image.new("RGB", (24, 16), (200, 0, 0)), Image.Exif()
    exif[0x112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    exif[0x10F] = "Camera"
    picture.save(tmp_path / "shot.jpg", exif=exif)
    picture.save(tmp_path / "plain.tif")
    for name, kind in (("srgb", "sRGB"), ("lab", "LAB")):
        picture.save(tmp_path / f"{name}.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes())
    said = {file.name: open_source(file).warnings for file in tmp_path.iterdir()}
    assert [name for name, sentences in said.items() if not sentences] == [name for name in said if name in ("turned.jpg", "plain.tif", "srgb.png")]
    assert "EXIF" in said["shot.jpg"][0] and "colour profile" in said["lab.png"][0]


# ---------------------------------------------------------------- pictures


def mirrored_file(path, matrix, size=(32, 48)):
    """A clip whose display matrix is overwritten, by bytes: a, b, c, d and the place of the upper left corner."""
    frames = pictures(3, *size)
    encode(path, frames, "libx264", "yuv444p", options={"crf": "1"})
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        moov = find(file, Box(b"", 0, len(data)), b"moov")
        header = next(find(file, box, b"tkhd") for box in boxes(file, moov.start, moov.stop) if box.kind == b"trak")
    a, b, c, d, x, y = (value << 16 for value in matrix)
    data[header.start + 40 : header.start + 76] = struct.pack(">9i", a, b, 0, c, d, 0, x, y, 1 << 30)
    path.write_bytes(data)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255


MATRICES = {
    "left to right": ((-1, 0, 0, 1, 48, 0), lambda frames: frames.flip(-1)),
    "top to bottom": ((1, 0, 0, -1, 0, 32), lambda frames: frames.flip(-2)),
    "transposed": ((0, 1, 1, 0, 0, 0), lambda frames: frames.transpose(-1, -2)),
    "transposed the other way": ((0, -1, -1, 0, 32, 48), lambda frames: frames.transpose(-1, -2).flip(-1, -2)),
    "turned": ((-1, 0, 0, -1, 48, 32), lambda frames: frames.flip(-1, -2)),
    "turned right": ((0, 1, -1, 0, 32, 0), lambda frames: frames.rot90(-1, (-2, -1))),
}


@pytest.mark.parametrize("name", list(MATRICES))
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_mirrored_pictures_stay_as_they_are_shown(tmp_path, name, suffix):
    """x' = a x + c y + t_x, y' = b x + d y + t_y: read so, and in the copy again, by the same matrix or in the pixels."""
    matrix, shown = MATRICES[name]
    stored = mirrored_file(tmp_path / "in.mp4", matrix)
    source = open_source(tmp_path / "in.mp4")
    frames, _ = read_frames(source)
    assert psnr(frames, shown(stored)) > 30
    out = copy(source, tmp_path / f"out{suffix}", crf=1, pixel_format="yuv444p")
    assert psnr(read_frames(out)[0], frames) > 40
    if suffix == ".mp4":
        matrices = []
        for path in (tmp_path / "in.mp4", out):
            with av.open(str(path)) as container:
                matrices.append(bytes(next(container.decode(video=0)).side_data["DISPLAYMATRIX"]))
        assert matrices[0] == matrices[1]


def test_interlaced_footage_is_said(tmp_path):
    for name, options in (("woven.mp4", {"x264-params": "tff=1"}), ("whole.mp4", {})):
        encode(tmp_path / name, pictures(4, 64, 64), "libx264", "yuv420p", options=options)
    woven, whole = (open_source(tmp_path / name, deinterlace="off") for name in ("woven.mp4", "whole.mp4"))
    assert len(woven.warnings) == 1 and "deinterlace it first" in woven.warnings[0]
    read_frames(woven), read_frames(whole)
    assert len(woven.warnings) == 1 and whole.warnings == []


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_a_recording_that_begins_between_key_frames_says_what_does_not_decode(tmp_path, codec):
    """Decoders drop without an error what refers to pictures before the beginning."""
    path = encode(tmp_path / "whole.ts", pictures(36, 96, 96), codec, "yuv420p", options={"g": "12", "sc_threshold": "1000000000"})
    whole = open_source(path)
    assert len(read_frames(whole)[0]) == 36 and whole.warnings == []
    data = path.read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[len(data) // 188 // 2 * 188 :])
    source = open_source(tmp_path / "cut.ts")
    frames = len(read_frames(source)[0])
    with av.open(str(tmp_path / "cut.ts")) as container:
        lost = sum(packet.size > 0 for packet in container.demux(video=0)) - frames
    assert lost > 0 and len(source.warnings) == 1 and f"{lost} of its frames have errors; the {frames} frames that decode" in source.warnings[0]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_frames_are_numbered_from_the_first_that_decodes(tmp_path, suffix):
    """However far they are sought: a clip cut between key frames, as cutters without re-encoding do."""
    path = encode(tmp_path / f"whole{suffix}", pictures(96, 32, 32), "libx264", "yuv420p", options={"g": "12", "sc_threshold": "1000000000"})
    with av.open(str(path)) as source, av.open(str(tmp_path / f"cut{suffix}"), "w") as cut:
        stream = cut.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][5:]:
            packet.stream = stream
            cut.mux(packet)
    shown, _ = read_frames(tmp_path / f"cut{suffix}")
    assert len(shown) < 91 and torch.equal(read_frames(tmp_path / f"cut{suffix}", start=70)[0], shown[70:])


def test_a_damaged_frame_that_stands_alone_is_the_same_whenever_it_is_read(tmp_path):
    """And shows the one before it where it does not decode, rather than what a decoder's threads left in their memory."""
    whole = save(tmp_path / "whole.mov", moving(90, 128, 192), codec="prores")
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[10:90:8]:
        data[packet.pos + packet.size // 2 : packet.pos + packet.size * 3 // 4] = bytes(packet.size * 3 // 4 - packet.size // 2)
    (tmp_path / "damaged.mov").write_bytes(data)
    truth, damaged = read_frames(whole)[0], read_frames(tmp_path / "damaged.mov")[0]
    assert not torch.equal(damaged, truth) and psnr(damaged, truth) > 30
    for start in (0, 71, 74):
        source = open_source(tmp_path / "damaged.mov", start=start)
        assert torch.equal(read_frames(source)[0], damaged[start:])
        assert "errors" in source.warnings[0]


def test_damage_that_only_checksums_tell_is_told(tmp_path):
    """FFV1's decoder puts the frame before where a slice is damaged, and says nothing."""
    options = {"level": "3", "slices": "4"}
    whole = encode(tmp_path / "whole.mkv", noise(12), "ffv1", "yuv420p", options={**options, "slicecrc": "1"})
    encode(tmp_path / "without.mkv", noise(12), "ffv1", "yuv420p", options={**options, "slicecrc": "0"})
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in (packets[0], packets[5], packets[8]):
        data[data.index(packet) + len(packet) // 2] ^= 64
    (tmp_path / "damaged.mkv").write_bytes(data)
    sources = [open_source(tmp_path / f"{name}.mkv") for name in ("whole", "without", "damaged")]
    assert [len(read_frames(source)[0]) for source in sources] == [12, 12, 12]
    assert [len(source.warnings) for source in sources] == [0, 0, 1]
    assert "3 of its frames have errors; the 12 frames that decode are used" in sources[2].warnings[0]


def test_dropouts_of_a_tape_are_told(tmp_path):
    """What the deck could not read it marks in the blocks of a DV frame, and FFmpeg gives the frame as if it were whole."""
    with av.open(str(tmp_path / "tape.dv"), "w", format="avi") as out:
        stream = out.add_stream("dvvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        for _ in range(4):
            out.mux(stream.encode(av.VideoFrame(720, 576, "yuv420p")))
        out.mux(stream.encode(None))
    with av.open(str(tmp_path / "tape.dv")) as container:
        data = bytearray(b"".join(bytes(packet) for packet in container.demux(video=0) if packet.size))
    whole, damaged = tmp_path / "whole.dv", tmp_path / "damaged.dv"
    whole.write_bytes(data)
    for frame in (1, 3):
        at = next(at for at in range(frame * 144_000, len(data), 80) if data[at] >> 5 == 4)
        data[at + 3] |= 0xF0
    damaged.write_bytes(data)
    sources = [open_source(path) for path in (whole, damaged)]
    assert [len(source.times()) for source in sources] == [4, 4]
    assert [[sentence for sentence in source.warnings if "2 of its frames have errors" in sentence] != [] for source in sources] == [False, True]
    assert not any("damaged" in sentence for sentence in sources[0].warnings)


def test_dropped_frames_in_an_avi_are_no_damage(tmp_path):
    """Their places in the file are empty; a file that is cut short is still told."""
    kept = [index for index in range(30) if index not in (7, 8, 12)]
    path = encode(tmp_path / "dropped.avi", noise(27), "mjpeg", "yuvj420p", stamps=kept)
    source = open_source(path)
    frames, times = read_frames(source)
    assert len(frames) == 27 and times.durations.count(Fraction(1, 25)) == 25
    assert source.warnings == []
    data = path.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 6 // 10])
    cut = open_source(tmp_path / "cut.avi")
    assert 0 < len(read_frames(cut)[0]) < 27
    assert len(cut.warnings) == 1 and "cut short" in cut.warnings[0]


def test_a_picture_that_stays_is_no_damage(tmp_path):
    """Theora writes packets without data where nothing moves: ten pictures, of which the first and the seventh are new."""
    source = open_source(DATA / "still.ogv")
    assert source.times().durations == (Fraction(6, 25), Fraction(4, 25)) and source.warnings == []


DEPTHS = [
    ("yuv420p10le", 1, "10 bits per channel (yuv420p10le)"),
    ("yuv420p10le", 16, "high dynamic range"),
    ("yuv422p10le", 1, "10 bits per channel and finer chroma (yuv422p10le)"),
    ("yuv444p", 1, "has finer chroma (yuv444p)"),
    ("yuv420p", 1, ""),
]


@pytest.mark.parametrize("pixel_format, transfer, said", DEPTHS)
def test_lost_detail_is_said(tmp_path, pixel_format, transfer, said):
    """Once, with what to choose, which then keeps it; nothing when it is kept."""
    like = SourceInfo(None, 64, 48, colour=ColourTags(1, False, 1, transfer))
    source = open_source(save(tmp_path / "in.mkv", moving(2), like=like, pixel_format=pixel_format))
    for choices, sentences in (({}, bool(said)), ({"pixel_format": "yuv444p10le"}, 0), ({"codec": "vp9"}, bool(said))):
        with open_sink(tmp_path / "out.mp4", source.info, overwrite=True, preset="ultrafast", **choices) as sink:
            for chunk in source.chunks():
                sink.write(chunk.frames, chunk.starts, chunk.ends)
        assert len(sink.warnings) == sentences and all(said in sentence and "choose" in sentence for sentence in sink.warnings)
        if sink.warnings and not choices:
            assert f"choose pixel format {pixel_format} " in sink.warnings[0]
    lost = "10" in pixel_format  # images have no chroma
    for name, bits, sentences in (("images", "rgb24", lost), ("images", "rgb48", 0), ("images", None, 0), ("%d.jpg", None, lost)):
        sink = open_sink(tmp_path / name, source.info, pixel_format=bits)
        assert len(sink.warnings) == sentences
        sink.abort()


def test_lost_transparency_is_said(tmp_path):
    clear, opaque = ([np.dstack([picture, np.full(picture.shape[:2], alpha, np.uint8)]) for picture in pictures(2)] for alpha in (90, 255))
    assert "transparency is not kept" in open_source(encode(tmp_path / "clear.mov", clear, "qtrle", "argb")).warnings[0]
    assert open_source(encode(tmp_path / "opaque.mov", opaque, "qtrle", "argb")).warnings == []
    webm = encode(tmp_path / "clear.webm", clear, "libvpx-vp9", "yuva420p", metadata={"alpha_mode": "1"})
    assert "transparency is not kept" in open_source(webm).warnings[0]


# ---------------------------------------------------------------- sound


@pytest.mark.parametrize("suffix, codec", [(".mkv", "h264"), (".mp4", "h264"), (".webm", "vp9")])
def test_sound_tracks_keep_their_names(tmp_path, suffix, codec):
    """Copied (AAC) or encoded anew (to Opus): language, title and what the track is for, as far as the container says."""
    path = tmp_path / "in.mkv"
    named = [("ger", "Deutsch", Disposition.default), ("eng", "Commentary", Disposition.comment)]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width = video.height = 32
        lanes = [out.add_stream("aac", rate=48000, layout="stereo") for _ in named]
        for lane, (language, title, disposition) in zip(lanes, named, strict=True):
            lane.metadata.update(language=language, title=title)
            lane.disposition = disposition.value
        for index, picture in enumerate(pictures(10, 32, 32)):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            for lane in lanes:
                heard = av.AudioFrame.from_ndarray(np.zeros((2, 1920), np.float32), format="fltp", layout="stereo")
                heard.sample_rate, heard.pts = 48000, 1920 * index
                out.mux(lane.encode(heard))
        for stream in (video, *lanes):
            out.mux(stream.encode(None))
    source = open_source(path)
    with av.open(str(copy(source, tmp_path / f"out{suffix}", codec=codec, audio=source))) as container:
        found = [(lane.metadata.get("language"), lane.metadata.get("title"), lane.disposition) for lane in container.streams.audio]
    assert [one[0] for one in found] == ["ger", "eng"] and found[0][2] & Disposition.default and not found[1][2] & Disposition.default
    if suffix != ".mp4":
        assert [one[1] for one in found] == ["Deutsch", "Commentary"]
    if suffix == ".mkv":
        assert found[1][2] & Disposition.comment


# ---------------------------------------------------------------- sizes that small files claim


@pytest.mark.parametrize("name", ["huge.png", "huge.gif", "huge.webp", "huge.apng"])
def test_a_picture_larger_than_the_limit_is_refused_with_how_to_raise_it(tmp_path, monkeypatch, name):
    picture = Image.new("RGB", (300, 200))
    picture.save(tmp_path / name, format="png" if name == "huge.apng" else None, save_all=name != "huge.png", append_images=[picture.rotate(1)])
    monkeypatch.setenv("FVR_MAX_PIXELS", "50000")
    with pytest.raises(VideoError, match=r"300x200.*more than 50,000 pixels.*FVR_MAX_PIXELS=60000"):
        open_source(tmp_path / name)
    monkeypatch.setenv("FVR_MAX_PIXELS", "60000")
    assert open_source(tmp_path / name).info.width == 300
    monkeypatch.setenv("FVR_MAX_PIXELS", "many")
    with pytest.raises(VideoError, match="FVR_MAX_PIXELS is a number"):
        open_source(tmp_path / name)


def test_an_image_past_pillows_own_limit_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(VideoError, match="FVR_MAX_PIXELS"):
        open_source(path)


def test_a_photo_in_tiles_is_refused_and_not_taken_for_its_first_tile():
    """As phones store HEIC: 2 x 2 tiles of 64 x 64, which FFmpeg gives one by one."""
    with pytest.raises(VideoError, match=r"is a photo in tiles .* save it as JPEG or PNG first"):
        open_source(DATA / "tiles.heic")


def test_one_picture_of_a_file_that_does_not_count_becomes_one_image(tmp_path):
    Image.new("RGB", (64, 48), "grey").save(tmp_path / "photo.jp2")
    source = open_source(tmp_path / "photo.jp2")
    assert source.expected is None
    with open_sink(tmp_path / "photo.png", source.info, audio=source) as sink:
        for chunk in source.chunks():
            sink.write(chunk.frames, chunk.starts, chunk.ends)
    assert read_frames(tmp_path / "photo.png")[0].shape == (1, 3, 48, 64)


def test_huge_frames_come_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("fvr.video.reading.source.CHUNK_BYTES", 12 * 32 * 24 * 2)
    save(tmp_path / "in.mkv", moving(5, 24, 32), codec="ffv1")
    assert [len(chunk) for chunk in open_source(tmp_path / "in.mkv").chunks(8)] == [2, 2, 1]


@pytest.mark.parametrize("name, words", [("gif_16000.gif", "FVR_MAX_PIXELS=256000000"), ("no_time_base.apng", None)])
def test_small_files_that_once_took_everything(case, name, words):
    if words:
        with pytest.raises(VideoError, match=words):
            open_source(case(name))
    else:
        assert len(read_frames(case(name))[0]) >= 1


def test_ten_pictures_of_a_tenth(case):
    times = open_source(case("anim.webp")).times()
    assert times.durations == (Fraction(1, 10),) * 10
