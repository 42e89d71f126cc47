"""Comparison pictures by their pixels, and how clips are read in step."""

from __future__ import annotations

import gc
import math

import pytest
import torch
from helpers.video_helpers import moving, save
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.video import FrameTimes, VideoError, open_source, probe
from fvr.video.comparison.compare import (
    MODES,
    CompareOptions,
    compare_frames,
    compare_picture,
    compared_size,
    divider_position,
    divider_width,
    heat,
    legend_height,
    resize_warnings,
)
from fvr.video.comparison.sync import check_sync, comparison_info, sound_source, synced_frames, timing_source
from fvr.video.comparison.text_overlay import drawable, letter_height, rendered_text

H, W = 90, 120
A, B = moving(1, H, W)[0], moving(1, H, W, seed=1)[0]
CORNER = slice(0, 30)
"""Rows that a label may touch at this size."""


def test_side_by_side_is_the_clips_outside_their_labels():
    bare = compare_picture([A, B], 0.0, CompareOptions())
    assert torch.equal(bare[..., :W], A) and torch.equal(bare[..., W:], B)
    labelled = compare_picture([A, B], 0.0, CompareOptions(labels=("before", "after")))
    assert torch.equal(labelled[:, 30:], bare[:, 30:])
    for part, clip in ((slice(0, W), A), (slice(W, 2 * W), B)):
        assert (labelled[:, CORNER, part] - clip[:, CORNER]).abs().max() > 0.3
    one = compare_picture([A, B], 0.0, CompareOptions(labels=("", "after")))
    assert torch.equal(one[..., :W], A) and not torch.equal(one[..., W:], B)


def test_more_than_three_clips_go_into_rows_and_the_rest_is_black():
    clips = moving(5, H, W)
    picture = compare_picture(list(clips), 0.0, CompareOptions())
    assert picture.shape == (3, 2 * H, 3 * W)
    for number, clip in enumerate(clips):
        row, column = divmod(number, 3)
        assert torch.equal(picture[:, row * H : (row + 1) * H, column * W : (column + 1) * W], clip)
    assert not picture[:, H:, 2 * W :].any()


@pytest.mark.parametrize(("seconds", "place"), [(0, W // 2), (1, W), (2, W // 2), (3, 0), (4, W // 2), (1 / 3, 3 * W // 4), (7, 0)])
def test_the_line_is_where_the_clock_says(seconds, place):
    """Period 4: in the middle at 0 s, at the right edge at 1 s, at the left edge at 3 s; sin(pi / 6) = 1/2 at 1/3 s."""
    assert divider_position(seconds, 4.0, W) == place
    picture = compare_picture([A, B], seconds, CompareOptions("split", period=4.0))
    assert torch.equal(picture[..., : max(0, place - 2)], A[..., : max(0, place - 2)])
    assert torch.equal(picture[..., place + 2 :], B[..., place + 2 :])
    if 0 < place < W:
        assert (picture[..., place] == 1).all() and not picture[..., place - 1].any() and not picture[..., place + 1].any()


def test_labels_of_a_split_belong_to_their_side():
    """Where the line has passed, nothing of the other clip's label is left."""
    options = CompareOptions("split", ("one", "two"))
    bare = CompareOptions("split")
    for seconds, hidden in ((1.0, slice(W // 2, W - 3)), (3.0, slice(3, W // 2))):
        assert torch.equal(compare_picture([A, B], seconds, options)[..., hidden], compare_picture([A, B], seconds, bare)[..., hidden])
    middle = compare_picture([A, B], 0.0, options)
    assert not torch.equal(middle[:, CORNER, : W // 4], A[:, CORNER, : W // 4])
    assert not torch.equal(middle[:, CORNER, -W // 4 :], B[:, CORNER, -W // 4 :])


def test_equal_frames_have_a_black_difference():
    assert not compare_picture([A, A.clone()], 0.0, CompareOptions("difference", gain=255))[:, :H].any()


def test_the_difference_is_the_mean_over_the_channels_times_the_gain():
    one, other = torch.full((3, H, W), 0.5), torch.full((3, H, W), 0.5)
    other[0] += 0.3
    picture = compare_picture([one, other], 0.0, CompareOptions("difference", gain=5))
    torch.testing.assert_close(picture[:, :H], heat(torch.full((H, W), 0.5)))
    full = compare_picture([torch.zeros(3, H, W), torch.ones(3, H, W)], 0.0, CompareOptions("difference", gain=1))
    torch.testing.assert_close(full[:, :H], heat(torch.full((H, W), 9.0)))


def test_more_difference_is_brighter():
    """The luminance of the colours rises all the way, so that they can be read in grey too."""
    luminance = (heat(torch.linspace(0, 1, 200)[None]) * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(0)[0]
    assert (luminance.diff() > 0).all() and luminance[0] == 0 and luminance[-1] > 0.9


@pytest.mark.parametrize(("height", "width"), [(48, 64), (90, 120), (1080, 1920), (64, 640)])
def test_the_legend_shows_the_scale_below_the_map(height, width):
    """The bar's columns are the colours from 0 to 1, whatever the size, and text stands below it."""
    one, other = moving(1, height, width)[0], moving(1, height, width, seed=1)[0]
    picture = compare_picture([one, other], 0.0, CompareOptions("difference", ("a", "b")))
    legend = picture[:, height:]
    assert legend.shape[1] == legend_height(height, width) and legend.shape[1] % 2 == 0
    colours = heat(torch.linspace(0, 1, width)[None])[:, 0]
    rows = [row for row in range(legend.shape[1]) if torch.allclose(legend[:, row], colours)]
    assert rows and rows == list(range(rows[0], rows[-1] + 1))
    assert legend[:, rows[-1] + 1 :].amax() > 0.9
    corners = legend[:, rows[-1] + 1 :, : width // 4].amax(), legend[:, rows[-1] + 1 :, -width // 4 :].amax()
    assert min(corners) > 0.5, "both ends of the scale have their number"


@pytest.mark.parametrize("height", [96, 240, 480, 1080, 2160])
def test_letters_are_large_enough_at_any_size(height):
    """About 1/26 of the picture's height, 9 pixels at least, with strokes that stay apart."""
    size = letter_height(height, 2 * height)
    drawn = rendered_text("H", size)
    inked = (drawn > 0.5).any(1).sum().item()
    assert inked == pytest.approx(max(9, height / 26), abs=1.5, rel=0.05)
    assert (rendered_text("H", size)[:, drawn.shape[1] // 2] < 0.5).any(), "the two strokes of an H do not run together"


def test_a_label_that_is_too_long_ends_in_dots_inside_its_clip():
    wide = compare_picture([A, B], 0.0, CompareOptions(labels=("x" * 200, "")))
    assert torch.equal(wide[..., W:], B)
    assert torch.equal(wide[:, 30:, :W], A[:, 30:])
    assert not torch.equal(wide[..., :W], A)


def test_a_label_never_hides_a_thumbnail():
    small = moving(2, 16, 16)
    assert torch.equal(compare_picture(list(small), 0.0, CompareOptions(labels=("a", "b"))), torch.cat(list(small), -1))


def test_accents_are_dropped_and_other_scripts_refused():
    assert drawable("Très âgé") == "Tres age"
    for label in ("修复", "старое", "two\nlines"):
        with pytest.raises(VideoError, match="cannot be drawn"):
            CompareOptions(labels=(label,))


@given(
    mode=st.sampled_from(MODES),
    size=st.tuples(st.integers(1, 70), st.integers(1, 90)),
    other=st.tuples(st.integers(1, 70), st.integers(1, 90)),
    label=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    seconds=st.floats(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_any_sizes_and_labels_give_the_stated_size_in_range_and_change_nothing(mode, size, other, label, seconds):
    one, two = moving(1, *size)[0], moving(1, *other, seed=2)[0]
    before = one.clone(), two.clone()
    options = CompareOptions(mode, (label, label))
    picture = compare_picture([one, two], seconds, options)
    assert tuple(picture.shape[-2:]) == compared_size(*size, 2, options)
    assert picture.min() >= 0 and picture.max() <= 1
    assert torch.equal(one, before[0]) and torch.equal(two, before[1])


def test_another_size_is_resized_to_the_first():
    large = moving(1, 2 * H, 2 * W)[0]
    picture = compare_picture([A, large], 0.0, CompareOptions())
    assert (picture[..., W:] - moving(1, H, W)[0]).abs().max() < 0.02
    assert resize_warnings([("a", (H, W)), ("b", (2 * H, 2 * W)), ("c", (H, W))]) == ["b is 240 x 180 and was resized to 120 x 90, the size of a"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(mode="wipe"), "side_by_side, split, difference, got 'wipe'"),
        (dict(period=0), "period must be 0.1 to 3600"),
        (dict(period=math.nan), "period must be 0.1 to 3600"),
        (dict(gain=0.5), "gain of a difference must be 1 to 255, got 0.5"),
    ],
)
def test_options_out_of_range_are_one_sentence(options, words):
    with pytest.raises(VideoError, match=words):
        CompareOptions(**options)


@pytest.mark.parametrize(
    ("options", "clips", "words"),
    [
        (dict(), 1, "at least two"),
        (dict(mode="split"), 3, "split compares two clips, got 3"),
        (dict(labels=("a", "b", "c")), 2, "3 labels for 2 clips"),
    ],
)
def test_a_wrong_number_of_clips_is_one_sentence(options, clips, words):
    with pytest.raises(VideoError, match=words):
        compare_picture([A] * clips, 0.0, CompareOptions(**options))


def test_line_and_rim_grow_with_the_picture():
    assert [divider_width(width) for width in (64, 480, 1920, 3840)] == [1, 1, 4, 8]


# ---------------------------------------------------------------- clips in step


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    frames = moving(40)
    return {
        "long": save(folder / "long.mp4", frames),
        "again": save(folder / "again.mp4", moving(40, 24, 32, seed=1)),
        "short": save(folder / "short.mp4", frames[:30]),
        "slow": save(folder / "slow.mp4", frames, FrameTimes.constant(40, 12.5)),
        "images": save(folder / "images", frames),
    }


def sources(clips, *names):
    opened = [open_source(clips[name]) for name in names]
    return opened, [source.times() for source in opened]


def test_frames_come_in_pairs(clips):
    opened, times = sources(clips, "long", "again")
    check_sync(opened, times)
    pairs = list(synced_frames(opened))
    whole = [torch.cat([chunk.frames for chunk in source.chunks()]) for source in opened]
    assert len(pairs) == 40
    assert all(torch.equal(one, whole[0][n]) and torch.equal(two, whole[1][n]) for n, (one, two) in enumerate(pairs))


def test_one_moment_is_held_at_a_time(clips):
    """While two clips of 40 frames are compared, at most a few pictures (and views of them) are alive, whatever came before."""
    opened, _ = sources(clips, "long", "again")
    held = []
    for number, picture in enumerate(compare_frames(synced_frames(opened), (0.0 for _ in range(40)), CompareOptions())):
        del picture
        if number in (1, 20, 39):
            gc.collect()
            held.append(sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor and thing.shape[-2:] in ((48, 64), (24, 32), (48, 128))))
    assert len(held) == 3 and max(held) <= 10 and held[2] <= max(held[:2])


@pytest.mark.parametrize(
    ("other", "words"),
    [("short", r"short.mp4 has 30 frames and .*long.mp4 has 40.* first 30 frames"), ("slow", r"slow.mp4 lasts 3.20 s")],
)
def test_clips_out_of_step_are_one_sentence(clips, other, words):
    with pytest.raises(VideoError, match=words):
        check_sync(*sources(clips, "long", other))


def test_images_have_no_times_to_disagree_with(clips):
    opened, times = sources(clips, "slow", "images")
    check_sync(opened, times)
    check_sync(opened[::-1], times[::-1])
    assert timing_source(opened[::-1], None) == 1 and timing_source(opened, None) == 0


def test_a_file_that_changes_meanwhile_is_one_sentence(clips):
    opened, _ = sources(clips, "long", "short")
    with pytest.raises(VideoError, match="do not end together"):
        list(synced_frames(opened))


def test_the_sound_is_the_first_there_is_or_the_one_asked_for(clips, tmp_path):
    from helpers.video_helpers import beeps

    from fvr.video import AudioTrack

    loud = save(tmp_path / "loud.mp4", moving(40), audio=AudioTrack(beeps(1.6), 48000))
    opened = [open_source(clips["long"]), open_source(loud)]
    assert sound_source(opened) == sound_source(opened, 1) == 1
    assert sound_source(opened[:1]) is None
    with pytest.raises(VideoError, match=r"long.mp4 has no sound to keep"):
        sound_source(opened, 0)
    with pytest.raises(VideoError, match=r"no clip 3 .* there are 2"):
        sound_source(opened, 2)


def test_a_comparison_is_upright_with_one_clips_pixels_and_anothers_clock(clips):
    from dataclasses import replace

    picture, clock = replace(probe(clips["long"]), rotation=90), probe(clips["slow"])
    like = comparison_info(picture, clock)
    assert (like.rotation, like.width, like.colour) == (0, picture.width, picture.colour)
    assert (like.path, like.time_base, like.duration, like.rate) == (clock.path, clock.time_base, clock.duration, clock.rate)
