"""Detector, parser and identity network from files that are not what their names say: one sentence with the file and what to do."""

from __future__ import annotations

import pytest
import torch

from fvr.faces import load_detector, load_parser
from fvr.metrics.identity import load_arcface

LOADERS = {
    "detection_Resnet50_Final.pth": (lambda path: load_detector("auto", weights=path), "or choose the detector blazeface"),
    "parsing_parsenet.pth": (load_parser, "without a parser"),
    "recognition_arcface_ir_se50.pth": (load_arcface, "identity is left out"),
}


def write(path, kind):
    """A file of the kind."""
    if kind == "page":
        path.write_text("<!DOCTYPE html><html>Not found</html>")
    elif kind == "nothing":
        path.write_bytes(b"")
    else:
        torch.save({"module.conv1.weight": torch.zeros(64, 3, 7, 7), "module.conv1.bias": torch.zeros(64)}, path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(("kind", "what"), [("page", "web page"), ("nothing", "is empty"), ("cut", "cut short"), ("other", "does not hold")])
@pytest.mark.parametrize("file", LOADERS)
def test_a_damaged_file_raises_one_sentence(file, kind, what, tmp_path):
    write(tmp_path / file, kind)
    load, remedy = LOADERS[file]
    with pytest.raises(ValueError, match=what) as caught:
        load(tmp_path / file)
    sentence = str(caught.value)
    assert str(tmp_path / file) in sentence and remedy in sentence
    assert "\n" not in sentence and len(sentence) < 400 and "weights_only" not in sentence
