"""`fvr faces`: a table, a sheet, and nothing restored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fvr.cli import main

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")


def test_the_table_and_the_sheet_say_who_is_there(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    assert main(["faces", str(CASES / "people_abab.mp4"), "--json", "who.json", "--faces", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["person", "frames", "tracks", "first", "seen", "face"]
    assert [line.split()[:3] for line in said[1:3]] == [["0", "16", "2"], ["1", "16", "2"]]
    assert {line.split()[3] for line in said[1:3]} == {"0:00.0", "0:00.3"}
    assert said[-2:] == ["32 frames, 2 people, a face in every frame", "people_abab-faces.png"]
    with Image.open("people_abab-faces.png") as sheet:
        assert sheet.height < 2 * 150
    info = json.loads(Path("who.json").read_text())
    assert [(p["person"], p["selected"], p["tracks"]) for p in info["people"]] == [(0, False, 2), (1, True, 2)] and info["restored"] == 16
    assert main(["faces", str(CASES / "people_abab.mp4")]) == 1
    assert "exists already" in capsys.readouterr().err


def test_invalid_arguments_are_reported_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["faces", str(CASES / "people_abab.mp4"), "--faces", "like:"]) == 1
    assert "must name a picture" in capsys.readouterr().err
    assert main(["faces", str(CASES / "people_abab.mp4"), "--sheet", "sheet.txt"]) == 1
    assert "is a .png or .jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photo.png", "--sheet", "photo.png", "--overwrite"], "--sheet photo.png is the clip itself"),
        (["photo.png", "--json", "photo.png", "--overwrite"], "--json photo.png is the clip itself"),
        (["photo.png", "--sheet", "who.png", "--json", "who.png"], "--json who.png is the clip itself"),
        (["photo.png", "--json", "nowhere/who.json"], "lies in nowhere, which is not a folder"),
        (["photo.png", "--sheet", "nowhere/who.png"], "lies in nowhere, which is not a folder"),
        (["."], "would be one of the images of ."),
    ],
)
def test_what_could_not_be_written_after_the_work_or_would_be_lost_is_said_before(arguments, words, tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "grey").save("photo.png")
    before = Path("photo.png").read_bytes()
    assert main(["faces", *arguments]) == 1
    assert words in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["photo.png"] and Path("photo.png").read_bytes() == before


def test_a_folder_of_videos_is_not_mistaken_for_one_of_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes(b"a clip")
    assert main(["faces", "."]) == 1
    assert "holds 1 video and no image; name one of them, such as clip.mp4" in capsys.readouterr().err


def test_the_networks_that_find_faces_are_listed_with_source_and_licence(capsys):
    assert main(["models"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name, licence in (("blazeface", "Apache-2.0"), ("facemesh", "Apache-2.0"), ("face embedding", "CC0-1.0")):
        place = said.index(f"{name} here")
        assert licence in said[place : place + 200] and "SHA-256" in said[place : place + 300]
