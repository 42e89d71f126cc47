from __future__ import annotations

import os
from pathlib import Path

import pytest

from fvr.models.checkpoints.catalogue import CATALOGUE, OURS, find, licence_line, missing_message, named, published_as


@pytest.mark.parametrize("checkpoint", CATALOGUE, ids=lambda c: c.name)
def test_every_entry_says_what_a_user_must_know(checkpoint):
    assert named(checkpoint.name) is checkpoint
    assert checkpoint.folders[0] == OURS
    assert checkpoint.url.startswith("https://") and checkpoint.licence and checkpoint.purpose
    assert not checkpoint.direct or checkpoint.url.endswith(checkpoint.file)
    assert all(c in "0123456789abcdef" for c in checkpoint.sha256) and len(checkpoint.sha256) <= 64
    assert "S-Lab" not in checkpoint.licence or checkpoint.commercial_use is False
    assert ("unclear" not in checkpoint.licence and "not stated" not in checkpoint.licence) or checkpoint.commercial_use is None
    assert len(checkpoint.sha256) in (0, 8, 64) and (checkpoint.size is None or checkpoint.size > 1 << 20)


def test_names_and_files_are_unique():
    assert len({c.name for c in CATALOGUE}) == len({c.file for c in CATALOGUE}) == len(CATALOGUE)
    with pytest.raises(ValueError, match="no checkpoint is called 'nonesuch'; there are retinaface"):
        named("nonesuch")


@pytest.mark.parametrize("checkpoint", CATALOGUE, ids=lambda c: c.name)
def test_a_file_is_found_in_any_of_its_folders_ours_first(checkpoint, tmp_path):
    folders = {folder: [tmp_path / folder] for folder in checkpoint.folders}
    assert find(checkpoint, folders) is None and find(checkpoint, {}) is None
    for folder in reversed(checkpoint.folders):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / checkpoint.file.upper()
        path.touch()
        assert find(checkpoint, folders) == path
    safe = (tmp_path / OURS / checkpoint.file).with_suffix(".safetensors")
    safe.touch()
    assert find(checkpoint, folders) == safe


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of POSIX")
def test_a_folder_that_cannot_be_read_is_skipped(tmp_path, monkeypatch):
    """One of another user, one inside it, and one whose name no disk takes."""
    monkeypatch.chdir(tmp_path)
    locked, there = Path("locked"), Path("there")
    (locked / "inside").mkdir(parents=True)
    there.mkdir()
    (there / "codeformer.pth").touch()
    tmp_path.chmod(0o755)
    locked.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything
    try:
        assert find(named("codeformer"), {OURS: [locked, locked / "inside", Path("x" * 300), there]}) == there / "codeformer.pth"
    finally:
        if root:
            os.seteuid(0)
        locked.chmod(0o700)


def test_a_foreign_folder_is_not_searched(tmp_path):
    (tmp_path / "detection_Resnet50_Final.pth").touch()
    assert find(named("retinaface"), {"loras": [tmp_path]}) is None


@pytest.mark.parametrize("checkpoint", CATALOGUE, ids=lambda c: c.name)
def test_what_is_missing_is_said_in_one_sentence(checkpoint, tmp_path):
    message = missing_message(checkpoint, {OURS: [tmp_path]})
    assert all(part in message for part in (checkpoint.file, checkpoint.url, str(tmp_path), checkpoint.licence))
    assert "\n" not in message and message.endswith(".")
    assert f"models/{OURS}" in missing_message(checkpoint, {})


@pytest.mark.parametrize("checkpoint", CATALOGUE, ids=lambda c: c.name)
def test_a_file_name_leads_to_its_entry(checkpoint):
    for name in (checkpoint.file, checkpoint.file.upper(), checkpoint.file.rpartition(".")[0] + ".safetensors", *checkpoint.aliases):
        assert published_as(f"/models/anywhere/{name}") is checkpoint


def test_an_unknown_file_name_leads_nowhere():
    assert published_as("my_codeformer.pth") is None


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("retinaface", "MIT: commercial use allowed"),
        ("keep", "S-Lab License 1.0: not for commercial use"),
        ("arcface", "licence not stated: unclear whether commercial use is allowed"),
    ],
)
def test_the_licence_fits_on_a_line(name, line):
    assert licence_line(named(name)) == line
