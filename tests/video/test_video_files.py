"""Nothing half-written, nothing overwritten unasked, and damaged files give what they have."""

from __future__ import annotations

import os
from fractions import Fraction

import pytest
import torch
from helpers.video_helpers import moving, save

from fvr.video import FrameTimes, VideoError, open_sink, open_source, read_frames

ERRORS = [KeyboardInterrupt, RuntimeError, GeneratorExit]


def write_some(sink, count=5):
    times = FrameTimes.constant(count, 25)
    sink.write(moving(count), times.starts, times.ends)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "frames", "frames_%03d.tif"])
def test_an_exception_leaves_nothing(tmp_path, name, error):
    """Neither under the final name nor beside it, whether before, between or after frames."""
    target = tmp_path / "out" / name
    target.parent.mkdir()
    if "%" in name:
        target = target.parent / "shots" / name
    for count in (0, 5):
        with pytest.raises(error), open_sink(target) as sink:
            if count:
                write_some(sink, count)
            raise error
        assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["clip.mp4", "frames"])
def test_the_final_name_appears_only_at_the_end(tmp_path, name):
    with open_sink(tmp_path / name) as sink:
        write_some(sink)
        assert not (tmp_path / name).exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["clip.mp4", "frames"])
def test_a_taken_name_is_kept_unless_asked(tmp_path, name):
    """Without `overwrite` the old clip stays; a failed overwrite leaves it too; a good one replaces it."""
    save(tmp_path / name, moving(2))
    with pytest.raises(VideoError, match="already"):
        open_sink(tmp_path / name)
    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / name, overwrite=True) as sink:
        write_some(sink)
        raise KeyboardInterrupt
    assert len(read_frames(tmp_path / name)[1]) == 2
    save(tmp_path / name, moving(3), overwrite=True)
    assert len(read_frames(tmp_path / name)[1]) == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
def test_a_link_to_nothing_is_a_taken_name(tmp_path):
    """Told before the work rather than after it."""
    (tmp_path / "clip.mp4").symlink_to("nowhere.mp4")
    with pytest.raises(VideoError, match="already exists"):
        open_sink(tmp_path / "clip.mp4")
    save(tmp_path / "clip.mp4", moving(3), overwrite=True)
    assert len(read_frames(tmp_path / "clip.mp4")[1]) == 3 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
@pytest.mark.parametrize("name", ["clip.mp4", "clip.png"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(VideoError, match="is a pipe or a device, and a clip is read several times"):
        open_source(tmp_path / name)


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "thesis.txt").write_text("mine")
    with pytest.raises(VideoError, match=r"thesis\.txt"):
        open_sink(tmp_path / "frames", overwrite=True)
    assert (tmp_path / "frames" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["clip.mp4", "frames"])
def test_no_frames_is_an_error_not_an_empty_file(tmp_path, name):
    with pytest.raises(VideoError, match="got no frame"), open_sink(tmp_path / name):
        pass
    assert not list(tmp_path.iterdir())


def test_frames_of_another_size_are_refused(tmp_path):
    with pytest.raises(VideoError, match=r"takes frames \(n, 3, 48, 64\)"), open_sink(tmp_path / "clip.mp4") as sink:
        write_some(sink)
        sink.write(moving(1, 32, 64), (Fraction(9),), (Fraction(10),))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save(tmp_path_factory.mktemp("clip") / "clip.mp4", torch.rand(40, 3, 48, 64), crf=30)


@pytest.mark.parametrize("part", [0.4, 0.7, 0.95])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cut_off_file_gives_the_frames_it_has_and_one_warning(clip, tmp_path, part, suffix):
    whole = save(tmp_path / f"whole{suffix}", torch.rand(60, 3, 48, 64), crf=30)
    data = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(data[: int(len(data) * part)])
    source = open_source(cut)
    frames, times = read_frames(source)
    assert 0 < len(frames) < 60
    assert len(source.warnings) == 1 and "cut short" in source.warnings[0]
    assert times.end - times.starts[-1] < Fraction(1, 10)
    intact = read_frames(whole)[0]
    assert torch.equal(frames[: len(frames) // 2], intact[: len(frames) // 2])
    list(source.chunks())
    assert len(source.warnings) == 1


@pytest.mark.parametrize("suffix, codec", [(".mp4", "h264"), (".mkv", "ffv1"), (".mov", "prores")])
def test_a_cut_is_told_before_anything_is_decoded(tmp_path, suffix, codec):
    """Where the file's own sizes tell; said once, more exactly when it is read."""
    path = save(tmp_path / f"whole{suffix}", torch.rand(20, 3, 48, 64), codec=codec)
    assert open_source(path).warnings == []
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(path.read_bytes()[:-500])
    source = open_source(cut)
    assert len(source.warnings) == 1 and "lacks 500 bytes" in source.warnings[0]
    assert 0 < len(read_frames(source)[0]) <= 20 and len(source.warnings) == 1
    with cut.open("rb") as file:
        assert "lacks 500 bytes" in open_source(file).warnings[0]


def test_a_fragmented_file_that_was_cut_says_so(case):
    source = open_source(case("frag_cut.mp4"))
    assert len(source.warnings) == 1 and "cut short" in source.warnings[0]
    read_frames(source)
    assert len(source.warnings) == 1 and "cut short" in source.warnings[0]


def test_a_damaged_middle_gives_a_warning(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = b"\xff" * 3000
    (tmp_path / "bad.mp4").write_bytes(data)
    source = open_source(tmp_path / "bad.mp4")
    frames, _ = read_frames(source)
    assert len(frames) >= 20
    assert len(source.warnings) == 1


def test_an_intact_file_gives_no_warning(clip):
    source = open_source(clip)
    read_frames(source)
    assert source.warnings == []


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50, None])
def test_a_file_that_is_no_video_is_one_error(tmp_path, content, clip):
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip.read_bytes()[:900] if content is None else content)
    with pytest.raises(VideoError, match=r"cannot be read as a video|holds no"):
        open_source(path)


def test_pictures_all_overwritten_is_one_error(clip, tmp_path):
    """A good header over rubbish: the sentence says that no frame decodes."""
    data = bytearray(clip.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(VideoError, match="no frame that decodes"):
        open_source(tmp_path / "bad.mp4")


def test_a_picture_in_an_unknown_codec_is_one_error(clip, tmp_path):
    (tmp_path / "odd.mp4").write_bytes(clip.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match="codec that is not known here"):
        open_source(tmp_path / "odd.mp4")


def test_a_missing_file_and_a_sound_file_are_named(tmp_path):
    with pytest.raises(VideoError, match="does not exist"):
        open_source(tmp_path / "nothing.mp4")
    import av
    import numpy as np

    with av.open(str(tmp_path / "sound.wav"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="no video stream, only audio"):
        open_source(tmp_path / "sound.wav")


def test_reading_holds_one_chunk_at_a_time(clip):
    """While a pass runs, at most the chunk in hand and the one being filled are alive."""
    import gc

    alive = 0
    for chunk in open_source(clip).chunks(4):
        del chunk
        gc.collect()
        held = sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.shape[-3:] == (3, 48, 64))
        alive = max(alive, held)
    assert alive <= 9


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_disk_that_takes_no_file_so_large_is_named(tmp_path, name):
    """As FAT32 takes none of 4 GiB; here by a limit of this process."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(VideoError, match="as its disk takes no file so large"), open_sink(tmp_path / name, crf=1) as sink:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
            for _ in range(4):
                times = FrameTimes.constant(20, 25).shifted(Fraction(sink.count, 25))
                sink.write(torch.rand(20, 3, 96, 128), times.starts, times.ends)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_file_that_changes_between_two_passes_is_refused(tmp_path):
    """Its faces were found in other frames, and its size and times are another clip's."""
    path = save(tmp_path / "in.mkv", moving(12), codec="ffv1")
    source = open_source(path)
    pieces = source.chunks(2)
    next(pieces)
    save(path, moving(4, seed=2), codec="ffv1", overwrite=True)
    list(pieces)
    assert len(source.warnings) == 1 and "was changed while it was read" in source.warnings[0]
    with pytest.raises(VideoError, match=r"in\.mkv was changed since it was opened; give the same command again"):
        read_frames(source)
    assert len(read_frames(path)[0]) == 4
