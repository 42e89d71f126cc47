"""A result that ComfyUI kept is not taken for new when the weights behind it have come, gone or changed."""

from __future__ import annotations

import pytest

from fvr import host
from fvr.nodes.faces import FaceAlign, PasteBack
from fvr.nodes.flair import FlairRestorerNode, FlairSampler
from fvr.nodes.frames import RestoreFrames
from fvr.nodes.measure import MeasureRestoration
from fvr.nodes.restore import RestoreVideo

DETECTOR, PARSER, IDENTITY = "detection_Resnet50_Final.pth", "parsing_parsenet.pth", "recognition_arcface_ir_se50.pth"
WIRED = None
"""What a fingerprint sees of a wired input."""

TAKES = [
    (FaceAlign, {"frames": WIRED, "detector": "auto"}, {DETECTOR}),
    (FaceAlign, {"frames": WIRED, "detector": "blazeface"}, set()),
    (FaceAlign, {"frames": WIRED, "detector": WIRED}, {DETECTOR}),
    (PasteBack, {"frames": WIRED, "faces": WIRED, "feather": 3}, {PARSER}),
    (RestoreVideo, {"restorer": WIRED, "file": "x.mp4", "detector": "retinaface"}, {DETECTOR, PARSER}),
    (RestoreVideo, {"restorer": WIRED, "file": "x.mp4", "aligned": True}, set()),
    (MeasureRestoration, {"restored": WIRED, "detector": "off"}, {IDENTITY}),
    (MeasureRestoration, {"restored": WIRED, "detector": "auto", "lpips": "vgg"}, {IDENTITY, DETECTOR}),
    (FlairSampler, {"prior": WIRED, "enhancer": WIRED}, {PARSER}),
    (FlairSampler, {"prior": WIRED}, {PARSER}),  # FLAIR's own networks carry less outside the face
    (FlairRestorerNode, {"prior": WIRED, "enhancer": WIRED}, {PARSER}),
]


@pytest.mark.parametrize(("node", "inputs", "taken"), TAKES, ids=lambda value: getattr(value, "__name__", None))
def test_the_fingerprint_follows_the_weights_that_would_be_taken(node, inputs, taken, tmp_path, monkeypatch):
    monkeypatch.setenv("FVR_MODELS", str(tmp_path))
    for file in (DETECTOR, PARSER, IDENTITY):
        before = node.fingerprint_inputs(**inputs)
        (tmp_path / file).write_bytes(b"x")
        there = node.fingerprint_inputs(**inputs)
        (tmp_path / file).write_bytes(b"xy")
        changed = node.fingerprint_inputs(**inputs)
        assert len({repr(one) for one in (before, there, changed)}) == (3 if file in taken else 1), file
        assert changed == node.fingerprint_inputs(**inputs)


@pytest.mark.parametrize("node", [FaceAlign, RestoreFrames, RestoreVideo])
def test_the_fingerprint_follows_the_picture_that_says_whom(node, tmp_path):
    with host.workspace(input=tmp_path):
        seen = [node.fingerprint_inputs(faces="like:photo.png")]
        for content in (b"x", b"xy"):
            (tmp_path / "photo.png").write_bytes(content)
            seen.append(node.fingerprint_inputs(faces=" Like: photo.png"))
        assert len({repr(one) for one in seen}) == 3
        others = [node.fingerprint_inputs(faces=words) for words in ("all", WIRED)]
        (tmp_path / "photo.png").write_bytes(b"xyz")
        assert others == [node.fingerprint_inputs(faces=words) for words in ("all", WIRED)]
