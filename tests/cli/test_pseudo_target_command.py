"""`fvr pseudo-target`: from footage to pairs, twice the same, and a second run makes nothing anew."""

from __future__ import annotations

import pytest
import skimage.data
from PIL import Image

from fvr.cli import main
from fvr.models.embedded import CODEBOOK, FOLDER, PRIOR

pytestmark = pytest.mark.skipif(not ((FOLDER / PRIOR).is_file() and (FOLDER / CODEBOOK).is_file()), reason="needs the embedded weights")


@pytest.fixture
def portraits(tmp_path):
    """Two aligned pictures, the second one turned over so that it is no near-duplicate."""
    folder = tmp_path / "portraits"
    folder.mkdir()
    face = Image.fromarray(skimage.data.astronaut()[0:256, 96:352])
    face.save(folder / "0.png")
    face.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "1.png")
    return folder


def test_a_folder_of_faces_becomes_pairs(portraits, tmp_path, capsys):
    words = ["pseudo-target", str(portraits), str(tmp_path / "pairs"), "--aligned", "--every", "1", "--set", "steps=20", "--set", "batch=2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith("2 of 2 faces chosen") and f"2 pairs in {tmp_path / 'pairs'}" in said
    made = sorted((tmp_path / "pairs" / "targets").glob("*.png"))
    before = [path.read_bytes() for path in made]
    assert len(made) == 2 and Image.open(made[0]).size == (512, 512)
    assert main(words) == 0
    assert "2 were in the folder already" in capsys.readouterr().out and [path.read_bytes() for path in made] == before


def test_footage_without_a_face_leaves_no_folder(tmp_path, capsys):
    Image.new("RGB", (96, 64), (90, 120, 30)).save(tmp_path / "grass.png")
    assert main(["pseudo-target", str(tmp_path / "grass.png"), str(tmp_path / "new" / "pairs")]) == 1
    assert "none of them can be used; give footage that shows one" in capsys.readouterr().err
    assert main(["pseudo-target", str(tmp_path / "absent.png"), str(tmp_path / "pairs")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["grass.png"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--preset", "paper"], "no preset for pseudo-targets is called 'paper'"),
        (["--set", "N=0"], "N "),
        (["--restorer", "none"], "--restorer names what restores first"),
    ],
    ids=["preset", "set", "restorer"],
)
def test_errors_are_reported_before_any_work(portraits, tmp_path, capsys, words, sentence):
    assert main(["pseudo-target", str(portraits), str(tmp_path / "pairs"), "--aligned", *words]) == 1
    assert sentence in capsys.readouterr().err and not (tmp_path / "pairs").exists()
