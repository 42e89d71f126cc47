"""Interlaced footage becomes whole frames at the right times; a picture that turns or grows on the way keeps its shape."""

from __future__ import annotations

from fractions import Fraction

import av
import av.filter
import numpy as np
import pytest
import torch
from helpers.video_helpers import copy

from fvr import host
from fvr.nodes.flair import FlairRestorerNode, LoadDiffusionPrior
from fvr.nodes.restore import RestoreVideo
from fvr.nodes.video import LoadVideoFrames
from fvr.video import VideoError, open_source, read_frames

SIDE = 64


def ball(moment: float) -> np.ndarray:
    """(64, 64) grey: a bright disc that moves 6 pixels a frame."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.clip(14 - np.hypot(y - 32, x - 14 - 6 * moment), 0, 1) * 180 + 40


def woven(path, count: int = 6, *, top_first: bool = True, marked: bool = True, gop: int = 12):
    """Frames whose later field shows the disc half a frame on."""
    options = {"x264-params": f"{'tff' if top_first else 'bff'}=1" if marked else "bframes=0", "crf": "4", "g": str(gop)}
    mark = av.filter.Graph()  # x264 takes the field order from the frames, on which only a filter can set it
    mark.link_nodes(
        mark.add_buffer(width=SIDE, height=SIDE, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25)),
        mark.add("setfield", ("tff" if top_first else "bff") if marked else "prog"),
        mark.add("buffersink"),
    ).configure()
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.width = stream.height = SIDE
        for index in range(count):
            picture = ball(index)
            picture[int(top_first) :: 2] = ball(index + 0.5)[int(top_first) :: 2]
            frame = av.VideoFrame.from_ndarray(np.repeat(picture[..., None], 3, 2).astype(np.uint8), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            mark.vpush(frame)
            out.mux(stream.encode(mark.vpull()))
        out.mux(stream.encode(None))
    return path


def combs(frames: torch.Tensor) -> float:
    """How much more neighbouring rows differ than rows two apart."""
    grey = frames.mean(1)
    return float((grey[:, 1:-1] - (grey[:, 2:] + grey[:, :-2]) / 2).abs().mean())


def errors(frames: torch.Tensor, moments) -> list[float]:
    return [float((frame.mean(0) - torch.from_numpy(ball(moment) / 255)).abs().mean()) for frame, moment in zip(frames, moments, strict=True)]


@pytest.mark.parametrize("top_first", [True, False])
def test_marked_frames_become_whole_ones(tmp_path, top_first):
    """One for one at the same times, said before the first is read; the copy is what was read."""
    path = woven(tmp_path / "in.mp4", top_first=top_first)
    source, untouched = open_source(path), open_source(path, deinterlace="off")
    assert len(source.warnings) == 1 and "bwdif" in source.warnings[0]
    frames, times = read_frames(source)
    combed, stated = read_frames(untouched)
    assert (times.starts, times.end) == (stated.starts, stated.end)
    assert combs(frames) < 0.4 * combs(combed) and max(errors(frames, range(6))) < 0.02
    out = open_source(copy(source, tmp_path / "out.mp4"))
    assert out.warnings == [] and not out.info.interlaced and combs(read_frames(out)[0]) < 0.4 * combs(combed)


@pytest.mark.parametrize("top_first", [True, False])
def test_both_fields_become_frames(tmp_path, top_first):
    path = woven(tmp_path / "in.mp4", top_first=top_first)
    source = open_source(path, deinterlace="fields")
    frames, times = read_frames(source)
    assert len(frames) == source.expected == 12 and times.starts == tuple(Fraction(n, 50) for n in range(12)) and times.end == Fraction(12, 50)
    assert max(errors(frames, [n / 2 for n in range(12)])) < 0.02
    again = open_source(copy(source, tmp_path / "out.mp4")).times()
    assert (again.starts, again.end) == (times.starts, times.end)


@pytest.mark.parametrize("top_first", [True, False])
def test_unmarked_footage_is_taken_as_the_caller_says(tmp_path, top_first):
    path = woven(tmp_path / "in.mp4", top_first=top_first, marked=False)
    name = "top" if top_first else "bottom"
    assert open_source(path).warnings == []
    one, both = (read_frames(open_source(path, deinterlace=choice))[0] for choice in (name, f"fields-{name}"))
    assert max(errors(one, range(6))) < 0.02 and max(errors(both, [n / 2 for n in range(12)])) < 0.02


@pytest.mark.parametrize("choice", ["auto", "fields"])
def test_a_part_is_that_part_of_the_whole(tmp_path, choice):
    """Frames made of fields take after their neighbours, also where the file is sought."""
    path = woven(tmp_path / "in.mp4", 100)
    whole, times = read_frames(open_source(path, deinterlace=choice))
    for start in (1, 70, 72, 84):
        part, some = read_frames(open_source(path, start=start, count=3, deinterlace=choice))
        assert torch.equal(part, whole[start : start + 3]) and some.starts == times.starts[start : start + 3]
    window, some = read_frames(open_source(path, window=(times.starts[84], Fraction(1, 25)), deinterlace=choice))
    assert torch.equal(window, whole[84 : 84 + len(window)])


@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_clips(tmp_path, count):
    path = woven(tmp_path / "in.mp4", count)
    assert len(read_frames(path)[0]) == count and len(read_frames(open_source(path, deinterlace="fields"))[0]) == 2 * count


def test_a_wrong_choice_is_one_sentence(tmp_path):
    path = woven(tmp_path / "in.mp4", 1)
    with pytest.raises(VideoError, match="deinterlace is one of auto, off"):
        open_source(path, deinterlace="yes")
    (tmp_path / "images").mkdir()
    with pytest.raises(VideoError, match="holds no image"):
        open_source(tmp_path / "images", deinterlace="top")


def test_footage_that_is_interlaced_later_is_said_then(tmp_path):
    """And whole frames before stay as they are."""
    parts = woven(tmp_path / "a.ts", 6, marked=False), woven(tmp_path / "b.ts", 6)
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    source = open_source(tmp_path / "both.ts")
    frames, _ = read_frames(source)
    assert len(frames) == 12 and any("in places" in sentence for sentence in source.warnings)
    assert combs(frames[6:]) < 0.4 * combs(frames[:6])


def test_a_moving_face_has_no_combs(case):
    source = open_source(case("interlaced.mpg"))
    assert any("interlaced" in sentence for sentence in source.warnings)
    frames, times = read_frames(source)
    combed, stated = read_frames(open_source(case("interlaced.mpg"), deinterlace="off"))
    assert times.starts == stated.starts and times.end == stated.end and combs(frames) < 0.7 * combs(combed)


def test_the_nodes_take_the_same_choices(tmp_path):
    """Load Video Frames and Restore Video."""
    woven(tmp_path / "in.mp4")
    prior = LoadDiffusionPrior.execute(prior="gaussian (no weights)").result[0]
    restorer = FlairRestorerNode.execute(prior=prior).result[0]
    with host.workspace(input=tmp_path, output=tmp_path / "out", temp=tmp_path):
        for choice in ("auto", "off", "fields"):
            expected, times = read_frames(open_source(tmp_path / "in.mp4", deinterlace=choice))
            frames, stated, *_ = LoadVideoFrames.execute(file="in.mp4", deinterlace=choice).result
            assert torch.equal(frames.movedim(-1, 1), expected) and stated.starts == times.starts
            done = RestoreVideo.execute(restorer=restorer, file="in.mp4", detector="mtcnn", codec="ffv1", deinterlace=choice)
            copied, again = read_frames(open_source(done.result[0].get_stream_source()))
            assert len(copied) == len(expected) and again.starts == times.starts and (copied - expected).abs().max() < 0.02
            assert done.ui["report"][0]["settings"]["frames"]["deinterlace"] == choice


# ---------------------------------------------------------------- pictures that turn


def test_a_picture_that_turns_keeps_its_shape(case):
    """Landscape, then portrait, which stands between black bars."""
    source = open_source(case("orientchange.ts"))
    frames, _ = read_frames(source)
    assert frames.shape == (20, 3, 120, 160) and len([sentence for sentence in source.warnings if "changes its size" in sentence]) == 1
    lit = frames[-1].amax(0) > 0.1
    assert lit[:, 40:120].float().mean() > 0.5 and not lit[:, :30].any() and not lit[:, 130:].any()
    assert (frames[0].amax(0) > 0.1)[:, :30].any()


def test_a_disc_stays_round(tmp_path):
    """Of a picture that is taller from its middle on, and of one that is only smaller."""
    for name, height, width in (("wide", 48, 96), ("tall", 96, 48), ("small", 24, 48)):
        rows, columns = np.mgrid[:height, :width]
        picture = np.hypot(rows - height / 2, columns - width / 2) < min(height, width) / 3
        with av.open(str(tmp_path / f"{name}.ts"), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"crf": "4"})
            stream.height, stream.width = height, width
            for _ in range(3):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(np.repeat(picture[..., None] * 255, 3, 2).astype(np.uint8), format="rgb24")))
            out.mux(stream.encode(None))
    for name in ("tall", "small"):
        (tmp_path / "both.ts").write_bytes((tmp_path / "wide.ts").read_bytes() + (tmp_path / f"{name}.ts").read_bytes())
        frames, _ = read_frames(tmp_path / "both.ts")
        disc = frames[-1].mean(0) > 0.5
        rows, columns = disc.any(1).sum(), disc.any(0).sum()
        assert len(frames) == 6 and abs(int(rows) - int(columns)) <= 2 and abs(int(rows) - (32 if name == "small" else 16)) <= 3
