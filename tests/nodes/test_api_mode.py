"""API mode: what is wrong with a prompt is said by input and rule before anything runs, and history has every file and report.

Without ComfyUI by the headless runner; wherever COMFYUI_PATH names a tree also by ComfyUI's own validation and executor.
"""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from helpers.comfyui_process import in_comfyui, needs_comfyui
from helpers.sample_nodes import clip_name

from fvr import headless, host
from fvr.demo import moving_portrait, save
from fvr.headless.io import io
from fvr.headless.schema import describe
from fvr.nodes import NODES, registry
from fvr.video import FrameTimes

PROGRAM = (Path(__file__).parent / "api_mode_program.py").read_text(encoding="utf-8")
SAVING = {"codec": "h264", "crf": 30, "pixel_format": "auto"}
PROMPT: dict[str, dict[str, Any]] = {
    "1": {"class_type": "FVRLoadVideoFrames", "inputs": {"file": "clip.mp4", "start_frame": 0, "max_frames": 2, "every_nth": 1}},
    "2": {"class_type": "FVRDegrade", "inputs": {"frames": ["1", 0], "kind": "noise", "kind.sigma": 0.05, "seed": 3}},
    "3": {
        "class_type": "FVRCompareVideos",
        "inputs": {"a": ["1", 0], "b": ["2", 0], "mode": "split", "mode.period": 2.0, "labels": "clean, noisy", "frame_rate": 25.0},
    },
    "4": {
        "class_type": "FVRSaveVideoFrames",
        "inputs": {"frames": ["3", 0], "filename_prefix": "video/compared", "frame_rate": 25.0, **SAVING, "times": ["1", 1]},
    },
    "5": {"class_type": "FVRLoadDiffusionPrior", "inputs": {"prior": "gaussian (no weights)"}},
    "6": {
        "class_type": "FVRFlairRestorer",
        "inputs": {"prior": ["5", 0], "data_consistency": True, "enhance": True, "preset": "default", "preset.steps": 2},
    },
    "7": {
        "class_type": "FVRRestoreVideo",
        "inputs": {
            "file": "clip.mp4",
            "restorer": ["6", 0],
            "seed": 0,
            "aligned": False,
            "detector": "blazeface",
            "faces": "all",
            "min_size": 0,
            "feather": 24,
            "strength": 1.0,
            "colour_match": False,
            "fade": True,
            "start_frame": 0,
            "max_frames": 2,
            "every_nth": 1,
            "filename_prefix": "video/restored",
            **SAVING,
        },
    },
    "8": {
        "class_type": "FVRFaceAlign",
        "inputs": {"frames": ["1", 0], "detector": "blazeface", "faces": "all", "min_size": 0, "smoothing": 2.0, "max_gap": 10},
    },
    "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 2]}},
}
"""Every kind of output: two that write a clip, one with a picture and a report in the middle of the graph, one with a text there."""


def changed(node: str, name: str, value: Any = ...) -> dict[str, Any]:
    """The prompt with one input of one node replaced, or dropped."""
    prompt = copy.deepcopy(PROMPT)
    prompt[node]["inputs"].pop(name, None)
    if value is not ...:
        prompt[node]["inputs"][name] = value
    return prompt


def slips() -> dict[str, tuple[str, str, str, dict[str, Any]]]:
    """{what was done: (node, input, the rule that it breaks, prompt)}: every slip that each input of the prompt allows."""
    found = {}
    for node, entry in PROMPT.items():
        for slot in describe(registry()[entry["class_type"]]).slots(entry["inputs"]).values():
            if slot.name not in entry["inputs"] or entry["class_type"] == "PreviewImage":
                continue
            wrong: dict[str, Any] = {"required_input_missing": ...} if slot.required else {}
            if isinstance(entry["inputs"][slot.name], list):
                wrong["return_type_mismatch"] = ["1", 2]
            elif slot.type in ("INT", "FLOAT"):
                wrong["invalid_input_type"] = "many"
                if slot.name != "crf":
                    wrong["value_smaller_than_min"] = slot.options["min"] - 1
                wrong["custom_validation_failed" if slot.name == "crf" else "value_bigger_than_max"] = slot.options["max"] * 2
            elif slot.name == "file":
                wrong["custom_validation_failed"] = "gone.mp4"
            elif slot.name in ("codec", "pixel_format"):
                wrong["custom_validation_failed"] = "nonesuch"
            elif slot.name == "filename_prefix":
                wrong["custom_validation_failed"] = "../outside"
            elif slot.type == "COMBO":
                wrong["value_not_in_list"] = "nonesuch"
            for rule, value in wrong.items():
                found[f"{entry['class_type']} {slot.name} {rule}"] = (node, slot.name, rule, changed(node, slot.name, value))
    return found


SLIPS = slips()
OF_OURS = {"file": "gone.mp4", "codec": "codec must be", "crf": "crf must be", "pixel_format": "'nonesuch'", "filename_prefix": "leads out of"}
"""What our own checks say of an input."""
CHOICES = {("FVRDegrade", "kind"), ("FVRCompareVideos", "mode"), ("FVRFlairRestorer", "preset")}
FAILING = {
    "an encoder that refuses": (
        {
            "1": {"class_type": "FVRLoadVideoFrames", "inputs": {"file": "nobody.mp4"}},
            "2": {"class_type": "FVRDegrade", "inputs": {"frames": ["1", 0], "kind": "bicubic", "kind.factor": 2, "seed": 0}},
            "3": {
                "class_type": "FVRSaveVideoFrames",
                "inputs": {"frames": ["2", 0], **SAVING, "codec": "h265", "frame_rate": 25.0, "filename_prefix": "x"},
            },
        },
        "h265 needs at least 64x64 pixels, got 32x32",
    ),
    "fields of a VIDEO without any": (
        {
            "1": {"class_type": "FVRLoadVideoFrames", "inputs": {"file": "nobody.mp4"}},
            "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 25.0}},
            "3": {"class_type": "FVRLoadVideoFrames", "inputs": {"video": ["2", 0], "deinterlace": "fields"}},
            "4": {"class_type": "FVRSaveVideoFrames", "inputs": {"frames": ["3", 0], **SAVING, "frame_rate": 25.0, "filename_prefix": "x"}},
        },
        "deinterlace fields needs a clip's file",
    ),
    "ids of nobody": (changed("8", "faces", "9"), "9"),
    "a value in the place of a wire": (changed("8", "frames", "abc"), "Face Align takes IMAGE in frames, got str 'abc'"),
    "a wire into no input": (changed("8", "picture", ["1", 0]), "Face Align has no input picture; its inputs are frames, "),
    "too many labels": (changed("3", "labels", "a, b, c"), "3 labels for 2 clips"),
    "an unknown kind with nothing wired": (
        {
            "1": {"class_type": "FVRDescribeDegradation", "inputs": {"kind": "nonesuch"}},
            "5": PROMPT["5"],
            "6": {**PROMPT["6"], "inputs": {**PROMPT["6"]["inputs"], "degradation": ["1", 0]}},
            "7": PROMPT["7"],
        },
        "kind is missing or unknown; choose one of",
    ),
}

NOBODY = {
    "1": {"class_type": "FVRLoadVideoFrames", "inputs": {"file": "nobody.mp4", "start_frame": 0, "max_frames": 0, "every_nth": 1}},
    "2": {"class_type": "FVRFaceAlign", "inputs": {**PROMPT["8"]["inputs"], "frames": ["1", 0]}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 1]}},
    "4": PROMPT["5"],
    "5": {
        "class_type": "FVRFlairSampler",
        "inputs": {
            "prior": ["4", 0],
            "seed": 0,
            "data_consistency": True,
            "enhance": True,
            "preset": "default",
            "preset.steps": 2,
            "faces": ["2", 0],
        },
    },
    "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 1]}},
    "7": {
        "class_type": "FVRPasteBack",
        "inputs": {"frames": ["1", 0], "faces": ["5", 0], "feather": 24, "strength": 1.0, "colour_match": False, "fade": True},
    },
    "8": {
        "class_type": "FVRSaveVideoFrames",
        "inputs": {"frames": ["7", 0], "filename_prefix": "video/nobody", "frame_rate": 25.0, **SAVING, "times": ["1", 1]},
    },
}
"""A clip without a face, with previews of the crops that there are not."""
SAVE = {"class_type": "FVRSaveVideoFrames", "inputs": {"frame_rate": 25.0, **SAVING}}


def save_as(prefix: str, source: str) -> dict[str, Any]:
    return {**SAVE, "inputs": {**SAVE["inputs"], "filename_prefix": prefix, "frames": [source, 0]}}


WIRED = {
    "1": {"class_type": "FVRLoadVideoFrames", "inputs": {"file": "nobody.mp4"}},
    "2": save_as("video/%width%x%height%", "1"),
    "3": {"class_type": "FVRLoadVideoFrames", "inputs": {"video": ["2", 0]}},
    "4": save_as("video/wired", "3"),
    "5": {"class_type": "TName", "inputs": {}},
    "6": {"class_type": "FVRLoadVideoFrames", "inputs": {"file": ["5", 0], "max_frames": 1}},
    "7": save_as("video/named", "6"),
}
"""A clip by its VIDEO without a file, and one whose file comes by a wire."""
PAGE = {"workflow": {"nodes": [{"id": 1, "title": "grün"}], "version": 0.4}}
MORE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"nobody": (NOBODY, {}), "wired": (WIRED, {"extra_pnginfo": PAGE})}
"""Prompts to run, with what the page sends along."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """input/clip.mp4, two frames with a face, and empty output and temp folders beside it."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    folder = tmp_path_factory.mktemp("api")
    for kind in ("input", "output", "temp"):
        (folder / kind).mkdir()
    save(folder / "input" / "clip.mp4", moving_portrait(2), FrameTimes.constant(2, 25))
    save(folder / "input" / "nobody.mp4", torch.full((2, 3, 64, 64), 0.5), FrameTimes.constant(2, 25))
    return folder


@pytest.fixture(scope="module")
def theirs(folder) -> dict[str, Any]:
    """What ComfyUI says."""
    cases = [prompt for *_, prompt in SLIPS.values()]
    (folder / "prompts.json").write_text(json.dumps([cases, PROMPT, [prompt for prompt, _ in FAILING.values()], list(MORE.values())]))
    reply = in_comfyui(PROGRAM, FOLDER=str(folder))
    if isinstance(reply, str):
        pytest.skip(f"this ComfyUI does not import in this Python: {reply}")
    return reply


def test_there_is_a_slip_for_every_rule():
    rules = {rule for _, _, rule, _ in SLIPS.values()}
    assert len(SLIPS) > 80 and rules == {
        "required_input_missing",
        "return_type_mismatch",
        "invalid_input_type",
        "value_smaller_than_min",
        "value_bigger_than_max",
        "value_not_in_list",
        "custom_validation_failed",
    }


@pytest.mark.parametrize("slip", SLIPS)
def test_the_runner_names_the_input_and_the_rule(slip, folder):
    node, name, rule, prompt = SLIPS[slip]
    with host.workspace(input=folder / "input"):
        (error,) = headless.validate(prompt, registry())
    assert (error.node, error.type) == (node, rule)
    assert error.input == name or (rule == "custom_validation_failed" and OF_OURS[name] in error.message)


@needs_comfyui
@pytest.mark.parametrize("slip", SLIPS)
def test_comfyui_names_the_input_and_the_rule(slip, theirs):
    """ComfyUI drops a choice that is missing or unknown; our own check names it, at a socket of the same node.

    What our own check says ComfyUI repeats for every input that it looks at.
    """
    node, name, rule, prompt = SLIPS[slip]
    found = theirs["errors"][list(SLIPS).index(slip)]
    assert {error[0] for error in found} == {node} and len({words.partition(" - ")[2] for *_, words in found}) == 1
    _, kind, at, words = next((error for error in found if error[2] == name), found[0])
    assert len(found) == 1 or kind == "custom_validation_failed"
    if (prompt[node]["class_type"], name) in CHOICES:
        assert kind == "custom_validation_failed" and f"{name} is missing or unknown; choose one of " in words
    else:
        assert (kind, at) == (rule, name)
        assert name.rpartition(".")[2] in words


def check_history(outputs: dict[str, Any], folder: Path) -> None:
    """Every output node reports its files, all of which are there, and reports are data."""
    for node, name in (("4", "compared"), ("7", "restored")):
        (file,) = outputs[node]["images"]
        assert (file["subfolder"], file["type"]) == ("video", "output") and file["filename"].startswith(name)
        assert (folder / "output" / "video" / file["filename"]).stat().st_size > 500
    for (file,) in (outputs["8"]["contact_sheet"][0], outputs["9"]["images"]):
        assert file["type"] == "temp" and (folder / "temp" / file["subfolder"] / file["filename"]).is_file()
    assert outputs["3"]["text"][0].startswith("2 clips, split, 2 frames of 320 x 320")
    for node, done in (("7", "restored"), ("8", "found")):
        assert outputs[node]["text"][0].startswith("2 frames, ") and f"faces {done} in every frame" in outputs[node]["text"][0]
    (report,) = outputs["7"]["report"]
    assert report["frames"] == 2 and report["faces"]["restored"] == 2 and report["faces"]["people"][0]["person"] == 0
    (found,) = outputs["8"]["report"]
    assert found["frames"] == 2 and found["people"][0]["selected"] is True


def test_the_runner_reports_files_and_data(folder):
    with host.workspace(input=folder / "input", output=folder / "output", temp=folder / "temp"):
        result = headless.run_prompt(PROMPT, registry())
    check_history(json.loads(json.dumps(result.ui)), folder)
    assert len(result.files) == 3 and all(file.is_file() for file in result.files)


@needs_comfyui
@pytest.mark.parametrize("time", ["first", "second"])
def test_comfyuis_history_reports_files_and_data(time, theirs, folder):
    """Also for a prompt of which nothing has to run again."""
    assert theirs[time]["failures"] == []
    check_history(theirs[time]["outputs"], folder)


@needs_comfyui
@pytest.mark.parametrize("case", FAILING)
def test_what_only_a_run_can_find_is_one_sentence(case, theirs):
    (message,), (kind,) = theirs["failing"][list(FAILING).index(case)]
    assert FAILING[case][1] in message and len(message.strip().splitlines()) == 1
    assert kind == "ValueError", "the page shows the full name of an exception's class"


@needs_comfyui
def test_no_sentence_names_the_servers_folders(theirs, folder):
    said = json.dumps([theirs["errors"], theirs["failing"], [node.get("text") for node in theirs["first"]["outputs"].values()]])
    assert "leads out of the output folder" in said and "is not in the input folder" in said
    assert str(folder) not in said


def run_here(case: str, folder: Path) -> dict[str, Any]:
    """What the headless runner leaves in history for one of MORE."""
    with host.workspace(input=folder / "input", output=folder / "output", temp=folder / "temp"):
        return headless.run_prompt(MORE[case][0], {**registry(), "TName": clip_name(io)}).ui


def run_there(case: str, theirs: dict[str, Any]) -> dict[str, Any]:
    """The same by ComfyUI."""
    reply = theirs["more"][list(MORE).index(case)]
    assert reply["failures"] == []
    return reply["outputs"]


def check_nobody(outputs: dict[str, Any], folder: Path) -> None:
    assert "3" not in outputs and "6" not in outputs, "a preview of nothing ran"
    assert "no face: 2" in outputs["2"]["text"][0]
    (file,) = outputs["8"]["images"]
    assert (folder / "output" / "video" / file["filename"]).stat().st_size > 500


def test_a_preview_of_no_faces_stops_nothing_else(folder):
    check_nobody(run_here("nobody", folder), folder)


@needs_comfyui
def test_a_preview_of_no_faces_stops_nothing_else_in_comfyui(theirs, folder):
    check_nobody(run_there("nobody", theirs), folder)


def check_wired(outputs: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What the three files say of the graph that made them, each as ComfyUI's own clips do."""
    info = []
    for node, name in (("2", "64x64_0"), ("4", "wired_0"), ("7", "named_0")):
        (file,) = outputs[node]["images"]
        assert file["filename"].startswith(name)
        with av.open(str(folder / "output" / "video" / file["filename"])) as clip:
            info.append({key: json.loads(value) for key, value in clip.metadata.items() if key in ("prompt", "workflow")})
    for tags in info:
        assert {key: entry["class_type"] for key, entry in tags["prompt"].items()} == {key: entry["class_type"] for key, entry in WIRED.items()}
    return info


def test_a_wired_clip_needs_no_file_and_a_file_may_be_wired(folder):
    assert all(set(tags) == {"prompt"} for tags in check_wired(run_here("wired", folder), folder))


@needs_comfyui
def test_a_wired_clip_needs_no_file_and_a_file_may_be_wired_in_comfyui(theirs, folder):
    assert all(tags["workflow"] == PAGE["workflow"] for tags in check_wired(run_there("wired", theirs), folder))


@needs_comfyui
def test_comfyui_can_switch_the_tags_off(theirs):
    assert theirs["tags"] == [["prompt"], []]


@pytest.mark.parametrize("inputs", [{}, {"file": ""}, {"file": "gone.mp4"}])
def test_a_clip_must_come_from_somewhere(inputs, folder):
    """A name is checked before the run; that there is none at all, which ComfyUI asks nobody about, as the node's first step."""
    said = "gone.mp4" if inputs.get("file") else "no clip is chosen"
    restore = {**PROMPT, "7": {"class_type": "FVRRestoreVideo", "inputs": {"restorer": ["6", 0], **inputs}}}
    load = {"1": {"class_type": "FVRLoadVideoFrames", "inputs": inputs}, "2": save_as("video/x", "1")}
    with host.workspace(input=folder / "input"):
        for prompt in ({key: restore[key] for key in "567"}, load):
            with pytest.raises(headless.PromptRefused if inputs else headless.NodeFailed, match=said):
                headless.run_prompt(prompt, registry())


def choices_of(node) -> list[str]:
    return [one.id for one in node.define_schema().inputs if one.io_type == "COMFY_DYNAMICCOMBO_V3"]


WITH_CHOICES = [node for node in NODES if choices_of(node)]


@pytest.mark.parametrize("node", WITH_CHOICES, ids=lambda node: node.__name__)
def test_every_choice_is_checked_before_a_run(node):
    """A node with a choice that brings inputs names it in `validate_inputs`, with a required socket where it has one."""
    choices = choices_of(node)
    verdict = node.validate_inputs()
    assert isinstance(verdict, str) and any(verdict.startswith(f"{name} is missing or unknown; choose one of ") for name in choices)
    wired = {name: None for name in ("faces", "a", "b") if name in inspect.signature(node.validate_inputs).parameters}
    assert node.validate_inputs(**wired, **{name: {name: "x"} for name in choices}) is True


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_output_nodes_say_what_they_wrote(node):
    """A node that others can be queued for must be able to name files, a text or a report."""
    schema = node.define_schema()
    if schema.is_output_node:
        assert "ui=" in inspect.getsource(node.execute), f"{schema.node_id} leaves nothing in history"


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_what_a_node_says_is_seen_again_when_it_need_not_run(node):
    """On a page that was loaded anew, and in the history of each run: ComfyUI sends what it kept of output nodes, and of those that ask for it."""
    shows, asks = "ui=" in inspect.getsource(node.execute), "has_intermediate_output=True" in inspect.getsource(node.define_schema)
    assert asks == (shows and not node.define_schema().is_output_node)
