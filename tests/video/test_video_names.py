"""Which names mean a pattern, which a file; no input is ever replaced; a finished clip is never thrown away."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.video_helpers import moving, save
from PIL import Image

from fvr.cli.batch import named_outputs
from fvr.video import FrameTimes, VideoError, check_apart, open_sink, open_source, read_frames, videos_in_folder


def levels(place) -> list[int]:
    return read_frames(place)[0][:, 0, 0, 0].mul(255).round().int().tolist()


def write(sink, count: int) -> None:
    times = FrameTimes.constant(count, 25)
    sink.write(moving(count), times.starts, times.ends)


def shots(folder: Path, values=(10, 20, 30)) -> Path:
    """A folder of grey images 0000.png, 0001.png, ..."""
    save(folder / "%04d.png", torch.stack([torch.full((3, 8, 8), value / 255) for value in values]), preset=None, overwrite=True)
    return folder


@pytest.mark.parametrize(
    "clip, output",
    [("fr/%04d.png", "fr"), ("fr", "fr/%04d.png"), ("fr/0002.png", "fr/%04d.png"), ("fr/0002.png", "fr/0002.png"), ("fr", "fr"), ("linked", "fr")],
)
def test_an_output_folder_with_an_input_in_it_is_refused(tmp_path, monkeypatch, clip, output):
    """However the two are named; `linked` holds links to the images."""
    monkeypatch.chdir(tmp_path)
    shots(Path("fr"))
    Path("linked").mkdir()
    for file in Path("fr").iterdir():
        (Path("linked") / file.name).symlink_to(file.absolute())
    with pytest.raises(VideoError, match="which would be lost"):
        check_apart(output, [clip])
    for free in ("other", "other/%04d.png", "clip.mp4", "restored.png"):
        check_apart(free, [clip])


@pytest.mark.parametrize("output", ["fr/out_%04d.png", "fr/0002_restored.png", "fr/0002_%d.jpg"])
def test_an_image_may_have_its_copy_beside_it(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    shots(Path("fr"))
    check_apart(output, ["fr/0002.png"])
    save(Path(output), torch.full((1, 3, 8, 8), 0.2), preset=None, like=open_source("fr/0002.png").info)
    assert levels(Path("fr/%04d.png")) == [10, 20, 30] and levels(output) == [51]


STRANGERS = (
    "holiday.jpg",
    "restored_.png",
    "restored_1.png",
    "restored_00007.png",
    "restored_0009.png",
    "000123.png",
    "x0000.png",
    "restored_0001.PNG",
)


@pytest.mark.parametrize("output, own", [("restored_%04d.png", "restored_0000.png"), (".", "000000.png")])
def test_only_an_earlier_clips_images_give_way(tmp_path, output, own):
    """Other pictures stay byte for byte, whatever their names; what an earlier, longer clip left goes."""
    for name in STRANGERS:
        (tmp_path / name).write_bytes(name.encode())
    frames = torch.full((3, 3, 8, 8), 0.2)
    save(tmp_path / output, frames, preset=None, overwrite=True)
    with pytest.raises(VideoError, match="already holds"):
        open_sink(tmp_path / output)
    with open_sink(tmp_path / output, overwrite=True) as sink:
        sink.write(frames[:1])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((*STRANGERS, own))
    assert all((tmp_path / name).read_bytes() == name.encode() for name in STRANGERS)
    assert len(sink.warnings) == 1 and "which stay" in sink.warnings[0]


def test_a_pattern_may_go_beside_other_things(tmp_path):
    """Without being allowed to overwrite anything, as it has names of its own."""
    (tmp_path / "thesis.txt").write_text("mine")
    save(tmp_path / "clip.mp4", moving(2))
    save(tmp_path / "shot_%03d.png", moving(2), preset=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "shot_000.png", "shot_001.png", "thesis.txt"]
    with pytest.raises(VideoError, match=r"already holds shot_000\.png"):
        open_sink(tmp_path / "shot_%03d.png")


def test_one_image_is_written_as_one_image(tmp_path):
    """A clip of more frames is refused before the work, a taken name kept unless asked."""
    like = open_source(shots(tmp_path / "fr") / "0001.png").info
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        save(tmp_path / f"one{suffix}", torch.full((1, 3, 8, 8), 0.2), preset=None, like=like)
        assert levels(tmp_path / f"one{suffix}") == [51]
    with pytest.raises(VideoError, match="already exists"):
        open_sink(tmp_path / "one.png", like)
    save(tmp_path / "one.png", torch.full((1, 3, 8, 8), 0.4), preset=None, like=like, overwrite=True)
    assert levels(tmp_path / "one.png") == [102]
    with pytest.raises(VideoError, match="names one image and the clip has 3 frames"):
        open_sink(tmp_path / "two.png", open_source(tmp_path / "fr").info)
    one = save(tmp_path / "clip.mp4", moving(4))
    for count in (1, 2):
        clip = open_source(one, count=count)
        if count == 1:
            open_sink(tmp_path / "still.png", clip.info, audio=clip).abort()
        else:
            with pytest.raises(VideoError, match="the clip has 2 frames"):
                open_sink(tmp_path / "still.png", clip.info, audio=clip)
    one.unlink()
    with pytest.raises(VideoError, match="2 frames"), open_sink(tmp_path / "two.png", like) as sink:
        write(sink, 2)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("name", ["\N{GRINNING FACE}" * 61 + ".mp4", "\N{GRINNING FACE}" * 60 + "_%04d.png", "\N{GRINNING FACE}" * 61])
def test_names_may_be_as_long_as_the_disk_allows(tmp_path, name):
    """Limits are in bytes, and the temporary name beside has its own."""
    save(tmp_path / name, moving(2))
    if "%" in name:
        assert len(list(tmp_path.iterdir())) == 2
    else:
        assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["My%20dad.mp4", "50%done.mp4", "rec-12:30:05.mp4"])
def test_odd_file_names_are_written_and_read(tmp_path, monkeypatch, name):
    """Relative, as on a command line; a colon is no protocol and a percent sign no pattern."""
    monkeypatch.chdir(tmp_path)
    save(name, moving(2))
    assert len(read_frames(name)[1]) == 2 and [path.name for path in tmp_path.iterdir()] == [name]


FIRST = {"o%20d": "o%20d/000001.png", "pct%_%04d.png": "pct%_0001.png", "a%3d.png": "a001.png", "%d.png": "1.png"}


@pytest.mark.parametrize("name, first", FIRST.items())
def test_only_the_field_of_a_pattern_is_replaced(tmp_path, name, first):
    target = tmp_path / "shots" / name
    (tmp_path / "shots" if name == "o%20d" else tmp_path).mkdir(exist_ok=True)
    save(target, moving(2), preset=None)
    assert (tmp_path / "shots" / first).is_file() and len(read_frames(target)[1]) == 2


def test_two_fields_are_refused(tmp_path):
    for opened in (open_sink, open_source):
        with pytest.raises(VideoError, match="2 places for a number"):
            opened(tmp_path / "%d_%d.png")
    assert not list(tmp_path.iterdir())


def test_an_image_whose_name_looks_like_a_pattern_is_itself(tmp_path):
    (shots(tmp_path / "fr") / "0001.png").rename(tmp_path / "50%done.png")
    assert levels(tmp_path / "50%done.png") == [20]


def test_a_superscript_in_a_name_is_no_number(tmp_path):
    """And digits of other scripts sort as letters."""
    folder = shots(tmp_path / "fr")
    (folder / "0001.png").rename(folder / "²1.png")
    (folder / "0002.png").rename(folder / "٣.png")
    assert sorted(levels(folder)) == [10, 20, 30]


@pytest.mark.parametrize("output", ["link", "empty", "."])
def test_images_go_into_a_folder_that_is_there(tmp_path, monkeypatch, output):
    """A link to a folder (or a mount) cannot be replaced by another folder, nor can the one we are in."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "big").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "big")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here" if output == "." else tmp_path)
    for values in ([1, 2, 3], [4, 5]):
        frames = torch.stack([torch.full((3, 8, 8), value / 255) for value in values])
        save(Path(output), frames, preset=None, overwrite=True)
        assert levels(Path(output)) == values
        assert sorted(path.name for path in Path(output).iterdir()) == [f"{n:06d}.png" for n in range(len(values))]
    assert (tmp_path / "link").is_symlink() and len(list(tmp_path.iterdir())) == 4


def kept(error: pytest.ExceptionInfo, beside: Path) -> Path:
    """The hidden file or folder that the sentence names."""
    part = next(path for path in beside.rglob(".*.kept"))
    assert str(part) in str(error.value)
    return part


@pytest.mark.parametrize("fails", ["old", "new"])
def test_images_that_cannot_be_put_in_place_are_kept_and_so_are_the_old(tmp_path, monkeypatch, fails):
    """As on Windows where another program has one of them open."""
    folder = shots(tmp_path / "fr")
    replace = Path.replace

    def refuse(self, target):
        if self.name == "0001.png" and (self.parent == folder if fails == "old" else self.parent.suffix == ".part"):
            raise PermissionError(13, "in use")
        return replace(self, target)

    with pytest.raises(VideoError, match="complete but could not be put into") as error, open_sink(folder / "%04d.png", overwrite=True) as sink:
        sink.write(torch.full((3, 3, 8, 8), 0.2))
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", refuse)
            sink.close()
    assert levels(folder) == [10, 20, 30]
    assert levels(kept(error, folder)) == [51, 51, 51]


def test_a_finished_clip_whose_name_was_taken_is_kept(tmp_path):
    """The other job's file stays, and ours is whole beside it."""
    sink = open_sink(tmp_path / "clip.mp4")
    write(sink, 3)
    (tmp_path / "clip.mp4").write_bytes(b"theirs")
    with pytest.raises(VideoError, match="appeared while it was being written") as error:
        sink.close()
    assert (tmp_path / "clip.mp4").read_bytes() == b"theirs"
    assert len(read_frames(kept(error, tmp_path))[1]) == 3


def test_a_finished_clip_that_cannot_be_moved_is_kept(tmp_path):
    """A folder has come in the way."""
    sink = open_sink(tmp_path / "clip.mp4", overwrite=True)
    write(sink, 3)
    (tmp_path / "clip.mp4").mkdir()
    with pytest.raises(VideoError, match="could not be given its name") as error:
        sink.close()
    assert len(read_frames(kept(error, tmp_path))[1]) == 3


@pytest.mark.parametrize("name", ["clip.mp4", "frames"])
def test_a_disk_without_permissions_is_no_obstacle(tmp_path, monkeypatch, name):
    """exFAT and some network shares refuse chmod."""

    def refuse(self, mode):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    save(tmp_path / name, moving(2))
    assert [path.name for path in tmp_path.iterdir()] == [name] and len(read_frames(tmp_path / name)[1]) == 2


def test_two_jobs_in_one_folder_both_keep_their_clips(tmp_path):
    """They are given the same number, and the second to finish takes the next."""
    from fvr import host
    from fvr.nodes.video import sink_for

    with host.workspace(output=tmp_path):
        choices = dict(size=(48, 64), codec="h264", crf=40, pixel_format="auto", audio=None, metadata={})
        made = [sink_for("video/shot", None, **choices) for _ in range(3)]
        for count, (sink, _) in enumerate(made, 1):
            write(sink, count)
        for sink, _ in made:
            sink.close()
        paths = [sink.path for sink, _ in made]
    assert [len(read_frames(path)[1]) for path in paths] == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "video").iterdir()) == [f"shot_{n:05}_.mp4" for n in (1, 2, 3)]


def test_images_beside_videos_say_what_is_left_out(tmp_path):
    """A folder of videos alone is restored one by one; to read it as one clip is refused with what to do."""
    save(tmp_path / "one.mp4", moving(1))
    with pytest.raises(VideoError, match=r"holds 1 video and no image; name one of them, such as one\.mp4"):
        open_source(tmp_path)
    assert [file.name for file in videos_in_folder(tmp_path)] == ["one.mp4"]
    for name in ("camcorder.MOD", "recorder.h265", "tape.m2t", "notes.txt"):
        (tmp_path / name).write_bytes((tmp_path / "one.mp4").read_bytes())
    assert [file.name for file in videos_in_folder(tmp_path)] == ["camcorder.MOD", "one.mp4", "recorder.h265", "tape.m2t"]
    for name in ("camcorder.MOD", "recorder.h265", "tape.m2t"):
        (tmp_path / name).unlink()
    save(tmp_path / "%03d.png", moving(1), preset=None)
    assert videos_in_folder(tmp_path) == [] and "its 1 video is left out (one.mp4)" in open_source(tmp_path).warnings[0]


def test_animations_are_videos_of_their_folder(tmp_path):
    """Also under the suffix of a still image, as stickers and captures have it; a still image beside them makes it a folder of images."""
    save(tmp_path / "one.mp4", moving(1))
    first, second = (Image.new("RGB", (64, 48), colour) for colour in ("red", "blue"))
    for name in ("a.gif", "b.webp", "c.png"):
        first.save(tmp_path / name, save_all=True, append_images=[second], duration=100)
    clips = videos_in_folder(tmp_path)
    assert [clip.name for clip in clips] == ["a.gif", "b.webp", "c.png", "one.mp4"] and [len(read_frames(clip)[1]) for clip in clips] == [2, 2, 2, 1]
    assert [path.name for path in named_outputs(clips, tmp_path / "out", None, False)] == ["a.mp4", "b.mp4", "c.mp4", "one.mp4"]
    with pytest.raises(VideoError, match="holds 4 videos and no image"):
        open_source(tmp_path)
    first.save(tmp_path / "d.png")
    assert videos_in_folder(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody may write into")
@pytest.mark.parametrize("name", ["/proc/clip.mp4", "/proc/frames", "/proc/%04d.png"])
def test_a_folder_that_takes_no_file_is_named_before_the_work(name):
    """And not the hidden name that was tried in it."""
    with pytest.raises(VideoError, match=r"nothing can be written into /proc \(.+\); choose another place"):
        open_sink(name)


def test_copies_of_a_folders_videos_are_named_after_them(tmp_path):
    """A suffix that the codec does not go into changes; no two copies have one name."""
    clips = [tmp_path / "in" / name for name in ("a.avi", "a.mp4", "b.mkv", "c.webm")]
    kept = ["a.mp4", "a.mp4.mp4", "b.mkv", "c.webm"]
    for codec, names in ((None, kept), ("h264", [*kept[:3], "c.mp4"]), ("ffv1", ["a.mkv", "a.mp4.mkv", "b.mkv", "c.mkv"])):
        assert [path.name for path in named_outputs(clips, tmp_path / "out", codec, False)] == names
