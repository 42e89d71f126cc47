"""Sentences for people: no folders of the server, no names of our modules, and the same words otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from fvr.host.user_messages import PACKAGE, user_facing, without_folders
from fvr.video import VideoError

FOLDERS = {
    Path("/srv/comfy"): "ComfyUI",
    Path("/srv/comfy/output"): "output",
    Path("/srv/comfy/models"): "models",
    Path("/mnt/w/faces"): "models/facerestore_models",
    Path("/"): "nothing",
}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/srv/comfy/output/video/a b.mp4 already exists", "output/video/a b.mp4 already exists"),
        ("it leads out of /srv/comfy/output; use a name", "it leads out of the output folder; use a name"),
        ("No such file: '/srv/comfy/output/x'", "No such file: 'output/x'"),
        ("put it into /mnt/w/faces, or run fvr", "put it into models/facerestore_models, or run fvr"),
        ("/srv/comfy/custom_nodes/pack/x.py and /srv/comfy/models/y.pth", "ComfyUI/custom_nodes/pack/x.py and models/y.pth"),
        ("/srv/comfy/outputs/a and /data/srv/comfy/output/b stay", "ComfyUI/outputs/a and /data/srv/comfy/output/b stay"),
        ("clip.mp4 is 1/2 as wide as high", "clip.mp4 is 1/2 as wide as high"),
    ],
)
def test_folders_go_by_their_names(text, told):
    assert without_folders(text, FOLDERS) == told


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (VideoError("/srv/comfy/output/a.mp4 is no video"), ValueError, "output/a.mp4 is no video"),
        (VideoError("no frame"), ValueError, "no frame"),
        (
            FileNotFoundError(2, "No such file or directory", "/srv/comfy/models/y"),
            FileNotFoundError,
            "[Errno 2] No such file or directory: 'models/y'",
        ),
        (KeyError("/srv/comfy/models/y"), LookupError, "'models/y'"),
    ],
)
def test_errors_are_of_a_built_in_kind(error, kind, told):
    """The page prints a class's module unless it is a built-in one; ours begins with the path of the pack."""
    plainly = user_facing(error, FOLDERS)
    assert type(plainly) is kind and str(plainly) == told
    assert type(error).__module__.startswith(PACKAGE) or type(error).__module__ == "builtins"


@pytest.mark.parametrize("error", [ValueError("a clear sentence"), RuntimeError("CUDA out of memory"), ZeroDivisionError("by 1/0")])
def test_what_reads_well_stays_the_same_object(error):
    assert user_facing(error, FOLDERS) is error
