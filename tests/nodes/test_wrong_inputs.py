"""What a prompt may hold by mistake, where ComfyUI looks at none of it: each node says which of its inputs is wrong."""

from __future__ import annotations

import pytest
import torch

from fvr import host
from fvr.nodes import registry
from fvr.nodes.dicface import DicFaceRestore
from fvr.nodes.faces import FaceAlign, PasteBack
from fvr.nodes.flair import FlairSampler
from fvr.nodes.keep import KeepPropagate
from fvr.nodes.pseudo_target import PseudoTargetGenerate
from fvr.nodes.restore import RestoreVideo
from fvr.nodes.restorers import RestoreFaces
from fvr.nodes.seed_map import SeedMapOptimize
from fvr.nodes.segment import RestoreSegment
from fvr.nodes.sockets import KINDS, OBJECTS, declared_inputs
from fvr.nodes.video import LoadVideoFrames, SaveVideoFrames

OURS = {name: node for name, node in registry().items() if name.startswith("FVR")}
SOCKETS = [(node, name) for node in OURS.values() for name, (kind, _) in declared_inputs(node)[1].items() if kind in KINDS or kind in OBJECTS]


@pytest.mark.parametrize(("node", "name"), SOCKETS, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_a_value_of_another_kind_is_named(node, name):
    title, declared = declared_inputs(node)
    kind, may_be_none = declared[name]
    for value in ("abc", -1.5, True, {"a": 1} if kind != "AUDIO" else "", *([] if may_be_none else [None])):
        with pytest.raises(ValueError, match=f"^{title} takes {kind} in {name}, got ") as error:
            node.execute(**{name: value})
        assert ("{" in str(error.value)) <= isinstance(value, str), "a LATENT would be a page of numbers"


@pytest.mark.parametrize("node", OURS.values())
def test_an_input_that_a_node_has_not_got_is_named_with_those_it_has(node):
    title, declared = declared_inputs(node)
    with pytest.raises(ValueError, match=f"^{title} has no input picture; its inputs are .*{list(declared)[-1]}"):
        node.execute(picture=torch.zeros(1, 8, 8, 3))


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        (LoadVideoFrames, {"file": 3.5}),
        (RestoreVideo, {"file": {"a": 1}}),
        (SaveVideoFrames, {"filename_prefix": [1, 2, 3]}),
        (SaveVideoFrames, {"codec": {}}),
        (SaveVideoFrames, {"pixel_format": 8}),
        (RestoreVideo, {"file": None, "job": [1, 2, 3]}),
        (FaceAlign, {"faces": [0, 1, 2]}),
        (PasteBack, {"gates": []}),
        (RestoreSegment, {"clip": []}),
    ],
)
def test_what_is_no_text_is_refused_before_anything_runs(node, inputs, tmp_path):
    (wrong,) = (name for name, value in inputs.items() if value is not None)
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path):
        assert node.validate_inputs(**inputs) == f"{wrong} is text, got {inputs[wrong]!r}"


RESTORING = [
    (RestoreFaces, {}),
    (KeepPropagate, {}),
    (DicFaceRestore, {"mode": {"mode": "restore"}}),
    (FlairSampler, {"preset": {"preset": "default"}}),
]
RESTORING += [(PseudoTargetGenerate, {"preset": {"preset": "flair"}, "selection": {"selection": "every"}})]
WIRED = None
"""What a check sees of a wired input."""


@pytest.mark.parametrize(("node", "others"), RESTORING)
def test_a_wire_that_is_missing_or_too_much_is_said_before_anything_runs(node, others):
    title, _ = declared_inputs(node)
    assert node.validate_inputs(**others, faces=WIRED) is True and node.validate_inputs(**others, frames=WIRED) is True
    for wires, got in (({}, "neither"), ({"faces": WIRED, "frames": WIRED}, "both")):
        assert node.validate_inputs(**others, **wires).startswith(f"{title} restores faces or frames, and got {got}; wire ")


def test_seed_map_says_before_anything_runs_what_is_not_wired():
    for wires in ({"degradation": WIRED, "prior": WIRED}, {"mask": WIRED, "model": WIRED, "vae": WIRED}):
        assert SeedMapOptimize.validate_inputs(**wires) is True
    for wires, said in (({"prior": WIRED}, "wire a degradation"), ({"mask": WIRED, "model": WIRED}, "and got model; wire")):
        assert said in SeedMapOptimize.validate_inputs(**wires)
