"""What every node must have: a stable id, words for a reader, and widgets that agree with the engine's own defaults."""

from __future__ import annotations

import inspect

import pytest

from fvr.nodes import NODES
from fvr.physics import KINDS

LANDED = {
    "FVRLoadVideoFrames": ["frames", "times", "audio", "frame_rate", "frame_count"],
    "FVRSaveVideoFrames": ["video", "path"],
    "FVRFaceAlign": ["faces", "crops", "contact_sheet", "report"],
    "FVRPasteBack": ["frames", "mask"],
    "FVRDegrade": ["frames", "degradation"],
    "FVRDescribeDegradation": ["degradation", "text"],
    "FVRLoadDiffusionPrior": ["prior"],
    "FVRFlairSampler": ["faces", "frames"],
    "FVRFlairRestorer": ["restorer"],
    "FVRRestoreVideo": ["video", "report"],
    "FVRRestoreFrames": ["frames", "report"],
    "FVRRestoreSegment": ["text"],
    "FVRSeedMapOptimize": ["frames", "plot", "report"],
    "FVRFitDegradation": ["frames", "degradation", "text"],
    "FVRRetimeFrames": ["times", "multiple"],
    "FVRLoadFaceRestorer": ["restorer", "about"],
    "FVRRestorerSettings": ["restorer"],
    "FVRWanFaceRestorer": ["restorer"],
    "FVRRestoreFaces": ["faces", "frames"],
    "FVRKeepPropagate": ["faces", "frames"],
    "FVRDicFaceRestore": ["faces", "frames", "uncertainty"],
    "FVRPseudoTargetGenerate": ["targets", "inputs", "initial", "report"],
    "FVRCompareVideos": ["frames"],
    "FVRMeasureRestoration": ["table", "json", "plot", "slices"],
    "FVRCropsToFaces": ["faces", "crops"],
}
"""Ids and outputs that shared workflows rely on: entries are added, never changed."""


def inputs_of(schema):
    """All inputs, those inside dynamic combos too."""
    for declared in schema.inputs:
        yield declared
        for option in getattr(declared, "options", None) or []:
            yield from getattr(option, "inputs", [])


def test_ids_and_outputs_never_change():
    here = {schema.node_id: [output.id for output in schema.outputs] for schema in (node.define_schema() for node in NODES)}
    assert {node_id: here.get(node_id) for node_id in LANDED} == LANDED


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_everything_is_explained(node):
    schema = node.define_schema()
    assert schema.node_id.startswith("FVR")
    assert schema.description.endswith(".")
    assert schema.search_aliases
    for socket in [*inputs_of(schema), *schema.outputs]:
        assert socket.tooltip and socket.tooltip.rstrip(")").endswith("."), f"{schema.node_id}.{socket.id} has no tooltip, or not a sentence"


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_no_two_inputs_shown_together_have_the_same_name(node):
    inputs = node.define_schema().inputs
    own = [declared.display_name or declared.id for declared in inputs]
    choices = [option for declared in inputs for option in getattr(declared, "options", None) or [] if hasattr(option, "inputs")]
    for revealed in [[], *([inner.display_name or inner.id for inner in option.inputs] for option in choices)]:
        assert len({*own, *revealed}) == len([*own, *revealed]), revealed


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_optional_inputs_are_optional_and_all_inputs_are_taken(node):
    schema = node.define_schema()
    parameters = inspect.signature(node.execute).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for declared in schema.inputs:
        assert takes_any or declared.id in parameters, f"{schema.node_id}.execute does not take {declared.id}"
        if declared.optional and not takes_any:
            assert parameters[declared.id].default in (None, getattr(declared, "default", None)), f"{declared.id} starts unlike its widget"


def test_every_kind_of_degradation_can_be_chosen():
    options = {
        option.key
        for declared in next(node for node in NODES if node.define_schema().node_id == "FVRDegrade").define_schema().inputs
        if declared.id == "kind"
        for option in declared.options
    }
    assert options == set(KINDS)


def test_every_option_of_flair_is_a_widget_that_starts_at_the_presets_value():
    from dataclasses import fields

    from fvr.methods.flair.options import PRESETS, FlairOptions
    from fvr.nodes.flair import WIDGETS
    from fvr.nodes.widgets import from_widgets, widgets

    names = {field.name for field in fields(FlairOptions)} - {"data_consistency", "enhance"}
    for preset in PRESETS.values():
        values = {declared.id: declared.default for declared in widgets(preset, *WIDGETS)}
        assert set(values) == names
        assert from_widgets(FlairOptions, values) == {name: getattr(preset, name) for name in names}


MOST = 9
"""Widgets that a node shows before it is asked for more."""


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_a_node_shows_few_knobs(node):
    """What experts set is put away as `advanced`; presets carry it."""

    def widgets(inputs):
        return [one for one in inputs if one.io_type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") and not one.advanced]

    declared = node.define_schema().inputs
    choices = [one for one in declared if any(hasattr(option, "inputs") for option in getattr(one, "options", None) or [])]
    shown = len(widgets(declared)) + sum(1 + max(len(widgets(option.inputs)) for option in choice.options) for choice in choices)
    assert shown <= MOST
