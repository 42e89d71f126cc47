from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from helpers.video_helpers import enormous
from hypothesis import given
from hypothesis import strategies as st

from fvr.faces import Thumbnails, aligned_track, clock, contact_sheet, report, select_tracks, table


def person(number, start, count, side, x=0.0):
    boxes = torch.tensor([x, 0.0, x + side, side]).repeat(count, 1)
    return replace(aligned_track(count), person=number, start=start, boxes=boxes, shot=(0, 100))


CAST = [person(0, 0, 60, 100.0), person(1, 20, 60, 60.0, 200.0), person(2, 85, 5, 30.0)]


def who(tracks):
    return [t.person for t in tracks]


def test_an_oversized_reference_raises_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"the picture .*a\.bmp of whom to restore cannot be decoded; give a JPEG or PNG"):
        select_tracks(CAST, f"like:{enormous(tmp_path / 'a.bmp')}")


def test_selection_by_word_and_by_id():
    assert who(select_tracks(CAST, "all")) == [0, 1, 2]
    assert who(select_tracks(CAST, " Largest ")) == [0, 2]
    assert who(select_tracks(CAST, "2, 0")) == [0, 2]
    assert who(select_tracks(CAST, "all", min_size=50)) == [0, 1]
    assert who(select_tracks(CAST, "1,2", min_size=50)) == [1]
    assert select_tracks([], "all") == select_tracks([], "largest") == []


def test_largest_selects_one_person_at_a_time():
    chosen = select_tracks(CAST, "largest")
    assert all(a.stop <= b.start or b.stop <= a.start for a in chosen for b in chosen if a is not b)


def test_an_unknown_person_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"no person 7 in this clip, which shows persons 0, 1, 2"):
        select_tracks(CAST, "0,7")
    with pytest.raises(ValueError, match="shows nobody"):
        select_tracks([], "0")


@given(st.text(max_size=8))
def test_any_other_text_raises_one_sentence(words):
    try:
        select_tracks(CAST, words)
    except ValueError as error:
        assert "all" in str(error) and "largest" in str(error)


@given(st.sets(st.integers(0, 2)), st.floats(0, 120), st.integers(90, 130))
def test_every_frame_is_counted_once(chosen, min_size, frames):
    selected = [t for t in select_tracks(CAST, "all", min_size) if t.person in chosen]
    counts = report(CAST, selected, frames, min_size)
    assert counts.restored + counts.no_face + counts.too_small + counts.not_selected == frames
    assert counts.no_face == frames - 85
    text = counts.to_text()
    assert f"{frames} frames, 3 people" in text and f"{counts.passed_through} frames passed through" in text


def test_the_report_line_states_reasons():
    counts = report(CAST, select_tracks(CAST, "1,2", 50), 1240, 50)
    assert counts.to_text() == "1,240 frames, 3 people, 1,180 frames passed through (no face: 1,155, too small: 5, not selected: 20)"
    data = counts.to_dict()
    assert data["passed_through"] == {"total": 1180, "no_face": 1155, "too_small": 5, "not_selected": 20, "left_alone": 0}
    assert [p["selected"] for p in data["people"]] == [False, True, False]
    assert report([], [], 1).to_text() == "1 frame, 0 people, 1 frame passed through (no face: 1)"


def test_unchanged_faces_are_not_counted_as_restored():
    """Frames count as restored only where something of a restored face shows in them."""
    whole = report(CAST, CAST, 130, level=lambda track: torch.zeros(len(track)))
    assert whole.restored == 0 and whole.left_alone == 85 and whole.to_text().endswith("130 frames passed through (no face: 45, left as it was: 85)")
    first = CAST[0]
    part = report([first], [first], first.stop, level=lambda track: (torch.arange(len(track)) > 2).float())
    assert part.restored == len(first) - 3 and part.left_alone == 3 and part.to_dict()["passed_through"]["left_alone"] == 3


def test_the_sheet_has_one_row_per_person_with_its_own_crops():
    frames = torch.zeros(12, 3, 512, 512)
    frames[:, 0] = torch.linspace(0.1, 0.9, 12)[:, None, None]
    cast = [replace(aligned_track(12), person=0), replace(aligned_track(4), person=1, start=5)]
    whole, parts = Thumbnails(cast, samples=4), Thumbnails(cast, samples=4)
    whole.push(0, frames)
    for k in range(0, 12, 5):
        parts.push(k, frames[k : k + 5])
    sheet = contact_sheet(cast, whole)
    assert torch.equal(sheet, contact_sheet(cast, parts))
    assert [len(whole.crops[p]) for p in (0, 1)] == [4, 4]
    for thumbnails, index in ((whole.crops[0], [0, 4, 7, 11]), (whole.crops[1], [5, 6, 7, 8])):
        assert [float(t[0].mean()) for t in thumbnails] == pytest.approx([float(frames[k, 0, 0, 0]) for k in index], abs=1e-4)
    assert sheet.shape[0] == 3 and float(sheet.min()) >= 0 and float(sheet.max()) <= 1
    rows = (sheet[0, :, -16] > 0.15).int().diff().clamp(min=0).sum()
    assert rows == 2
    assert contact_sheet([], Thumbnails([])).ndim == 3


def test_times_are_minutes_and_tenths_and_no_second_has_sixty():
    time_of = clock([Fraction(0), Fraction(8, 25), Fraction(5997, 100), Fraction(3725)])
    assert [time_of(k) for k in range(4)] == ["0:00.0", "0:00.3", "1:00.0", "62:05.0"]


def test_people_are_marked_as_rotated_tiny_covered_and_unsure():
    track = aligned_track(10)
    lying = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 511.0]]).expand(10, 2, 3)
    odd = {
        "rotated": replace(track, matrices=lying),
        "tiny": replace(track, boxes=torch.tensor([0.0, 0.0, 20.0, 20.0]).repeat(10, 1)),
        "covered": replace(track, covered=torch.tensor([0.5] * 2 + [0.1] * 8)),
        "unsure": replace(track, unsure=True),
    }
    for mark, one in odd.items():
        (person,) = report([one], [one], 10).people
        assert person.marks == (mark,) and mark in table([one], str)
    assert report([track], [track], 10).people[0].marks == ()
    plain, marked = (contact_sheet([one], Thumbnails([one])) for one in (track, odd["covered"]))
    assert not torch.equal(plain, marked)
