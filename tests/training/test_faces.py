"""Faces from a folder: who trains, who validates, and how they are moved."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.video_helpers import enormous

from fvr.training.data.faces import MIRROR_ONLY, Faces, Jitter, held_out, identity, read_face


def write(path: Path, side: int = 32, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    for person in range(40):
        for shot in range(2):
            write(tmp_path / f"person-{chr(97 + person % 26)}{person // 26}x_{shot}.png", seed=person)
    return tmp_path


def test_no_identity_is_in_both_splits(people: Path) -> None:
    train, val = ({identity(path) for path in Faces(people, split, 16).paths} for split in ("train", "val"))
    assert train and val and not train & val
    assert len(train | val) == 40


def test_a_manifest_gives_identities(people: Path) -> None:
    files = sorted(path.name for path in people.iterdir())
    key = next(name for name in map(str, range(100)) if held_out(name))
    (people / "manifest.csv").write_text("file,identity_key\n" + "".join(f"{name},{key}\n" for name in files[:10]))
    assert {path.name for path in Faces(people, "val", 16).paths} >= set(files[:10])


def test_train_and_val_folders_and_prefixes_select_faces(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a_1.png")
    write(tmp_path / "train" / "b_1.png")
    write(tmp_path / "val" / "a_2.png")
    assert [path.name for path in Faces(tmp_path, "train", 16, ["b_"]).paths] == ["b_1.png"]
    assert [path.name for path in Faces(tmp_path, "val", 16).paths] == ["a_2.png"]
    with pytest.raises(ValueError, match="no val pictures whose names begin with b_"):
        Faces(tmp_path, "val", 16, ["b_"])


def test_an_ordinary_folder_of_one_name_is_split_by_file(tmp_path: Path) -> None:
    for index in range(23):
        write(tmp_path / f"face_{index:04}.png", seed=index)
    train, val = ({path.name for path in Faces(tmp_path, split, 16).paths} for split in ("train", "val"))
    assert len(val) == 2 and not train & val and len(train | val) == 23
    assert {path.name for path in Faces(tmp_path, "val", 16).paths} == val
    one, other = (Faces(tmp_path, split, 16, ["face_0001", "face_0002."]).paths for split in ("train", "val"))
    assert {path.name for path in (*one, *other)} == {"face_0001.png", "face_0002.png"} and len(one) == 1
    assert Faces(tmp_path, "train", 16, ["face_0001"]).paths == [tmp_path / "face_0001.png"]
    with pytest.raises(ValueError, match="holds one picture to use"):
        Faces(tmp_path, "val", 16, ["face_0001"])


def test_a_few_people_are_split_by_person(tmp_path: Path) -> None:
    """None of these names is held out by its number: the person with the fewest pictures is."""
    for person, shots in (("anna", 3), ("bert", 2), ("carl", 4)):
        assert not held_out(person)
        for shot in range(shots):
            write(tmp_path / f"{person}_{shot}.png", seed=shot)
    train, val = ({identity(path) for path in Faces(tmp_path, split, 16).paths} for split in ("train", "val"))
    assert (train, val) == ({"anna", "carl"}, {"bert"})


def test_faces_read_from_disk_equal_those_in_memory(people: Path) -> None:
    kept, read = Faces(people, "train", 16), Faces(people, "train", 16, in_memory=0)
    assert torch.equal(kept.face(3), read.face(3))


def test_jitter_is_repeatable_and_bounded(people: Path) -> None:
    faces = Faces(people, "train", 16)
    first, again, other = (faces.jittered(0, Jitter(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(faces.jittered(0, Jitter(0, 0, 0, False, 0), torch.Generator()), faces.face(0))
    flipped = {torch.allclose(faces.jittered(0, MIRROR_ONLY, torch.Generator().manual_seed(seed)), faces.face(0).flip(-1)) for seed in range(8)}
    assert flipped == {True, False}


def test_a_shift_has_the_right_direction() -> None:
    from fvr.training.data.faces import moved

    image = torch.zeros(3, 16, 16)
    image[:, 8, 8] = 1
    right = moved(image, 0.0, 1.0, 2 / 16 * 3, 0.0)  # samples three pixels further right: what is there comes to the left
    assert right[0, 8].argmax() == 5


def test_unreadable_and_non_square_faces_are_named(tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    cv2.imwrite(str(wide), np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"wide.png is 16 x 8; aligned faces are square"):
        read_face(wide, 8)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").touch()
    for broken in (tmp_path / "broken.png", tmp_path / "empty.png", enormous(tmp_path / "enormous.bmp")):
        with pytest.raises(ValueError, match=rf"{broken.name} is not a picture"):
            read_face(broken, 8)
    with pytest.raises(ValueError, match="not a folder"):
        Faces(tmp_path / "none", "train", 8)
