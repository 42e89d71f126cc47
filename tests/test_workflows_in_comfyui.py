"""The bundled workflows in a real ComfyUI: queued through its API, and each page opened in its page, keeping a screenshot.

Runs where COMFYUI_PATH names a ComfyUI tree and `../shared/tools/hostctl.py`, which starts one and drives it, lies beside this checkout.
FVR_SCREENSHOTS names a folder for the pictures; without it they go into pytest's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.comfyui_host import COMFYUI, PATIENCE, Host, loaded, needs_browser, needs_host
from helpers.small_keep import small_keep
from helpers.small_workflows import API, FRAMES, NOTES, PAGES, embedded_are_here, make_inputs, make_models, quick, reporting

from fvr.assembly import AUTO

BLUEPRINTS = sorted((Path(__file__).resolve().parents[1] / "subgraphs").glob("*.json"))
AS_RUN = """async (outputs) => {
  for (const node of app.graph.nodes)
    for (const widget of node.widgets ?? []) {
      const file = { FVRLoadVideoFrames: { file: 'clip.mp4' }, FVRRestoreVideo: { file: 'clip.mp4' }, LoadImage: { image: 'frame.png' } }[node.type];
      if (file?.[widget.name]) {
        widget.value = file[widget.name];
        widget.callback?.(widget.value);
      }
    }
  const { api } = await import('/scripts/api.js');
  for (const [node, output] of Object.entries(outputs)) api.dispatchCustomEvent('executed', { node, display_node: node, output, prompt_id: '' });
}"""
"""Shows on an open page what the server would send of a run with the tiny clip."""
BOXES = """() => app.graph.nodes.map((node) => {
  const element = document.querySelector(`[data-node-id="${node.id}"]`);
  const shown = LiteGraph.vueNodesMode && element?.getBoundingClientRect();
  const box = shown ? [shown.left, shown.top, shown.width, shown.height].map((one) => one / app.canvas.ds.scale) : node.boundingRect;
  const [x, y, width, height] = box;
  return [node.title, x, y, x + width, y + height];
})"""
QUEUED = "async () => (await window.app.graphToPrompt()).output"
CHANGE = """(values) => {
  for (const widget of app.graph.nodes[0].widgets) if (widget.name in values) widget.value = values[widget.name];
}"""
PREVIEWS = {"video-preview"}
"""What the page itself adds to the inputs of a node that uploads."""

pytestmark = needs_host

every_workflow = pytest.mark.parametrize("path", API, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Host]:
    """A host with the tiny clip and small stand-ins for published files; the embedded weights are the package's own."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    here = Host(tmp_path_factory.mktemp("comfyui"))
    make_models(here.folder / "models")
    torch.save({"params_ema": small_keep().state_dict()}, here.folder / "models" / "facerestore_models" / "KEEP-b76feb75.pth")
    make_interpolation(here.folder / "models" / "frame_interpolation")
    name_models(here.folder / "models")
    make_inputs(here.base / "input")
    packs = [word for name in ("tiny_sd", "tiny_seedvr2") for word in ("--custom-node", str(Path(__file__).parent / "helpers" / f"{name}.py"))]
    here.start("--models", str(here.folder / "models"), *packs)
    yield here
    here.control("stop")


def name_models(folder: Path) -> None:
    """Empty files under the names that the pages give ComfyUI's own loaders, for their menus; what runs has TINY instead."""
    for path in PAGES:
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            for model in node["properties"].get("models", []) if node["type"] in TINY else []:
                (folder / model["directory"]).mkdir(parents=True, exist_ok=True)
                (folder / model["directory"] / model["name"]).touch()


def make_interpolation(folder: Path) -> None:
    """ComfyUI's own small network that draws frames in between (RIFE, of any weights), under the name that the workflow has."""
    folder.mkdir(parents=True, exist_ok=True)
    program = (
        "import sys, torch; from safetensors.torch import save_file; from comfy.cli_args import args; args.cpu = True; "
        "from comfy_extras.frame_interpolation_models.ifnet import IFNet; "
        "state = IFNet(channels=(32,) * 5).state_dict(); generator = torch.Generator().manual_seed(0); "
        "save_file({key: 0.02 * torch.randn(value.shape, generator=generator) for key, value in state.items()}, sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "film_net_fp16.safetensors")], cwd=COMFYUI, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


TINY = {
    "CheckpointLoaderSimple": ("FVRTestTinySD", {0: 0, 2: 1}),
    "UNETLoader": ("FVRTestTinySeedVR2", {0: 0}),
    "VAELoader": ("FVRTestTinySeedVR2", {0: 1}),
}
"""What stands in for ComfyUI's own loaders, and which of its outputs for which of theirs."""


def with_tiny_models(prompt: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same graph with tiny models where it loads published ones; what was conditioned by a text is conditioned at random."""
    loaders = {key: TINY[node["class_type"]] for key, node in prompt.items() if node["class_type"] in TINY}
    texts = {key: node["inputs"]["clip"][0] for key, node in prompt.items() if node["class_type"] == "CLIPTextEncode"}
    places = {(key, output): [key, other] for key, (_, outputs) in loaders.items() for output, other in outputs.items()}
    places |= {(key, 0): [loader, 2] for key, loader in texts.items()}

    def rewired(value: Any) -> Any:
        return places.get((value[0], value[1]), value) if isinstance(value, list) else value

    kept = {
        key: {**node, "inputs": {name: rewired(value) for name, value in node["inputs"].items()}} for key, node in prompt.items() if key not in texts
    }
    return kept | {
        key: {"class_type": kind, "inputs": {"prediction": "eps"} if kind == "FVRTestTinySD" else {}} for key, (kind, _) in loaders.items()
    }


def needs(prompt: dict[str, dict[str, Any]]) -> str | None:
    """What a prompt needs that is not here."""
    values = [value for node in prompt.values() for value in node["inputs"].values() if isinstance(value, str)]
    chosen = [node["inputs"].get("model") for node in prompt.values()]
    if (AUTO in chosen or any(value.startswith("embedded ") for value in values)) and not embedded_are_here():
        return "the embedded weights, which this checkout has not got"
    return None


@pytest.fixture(scope="module")
def history(running) -> Callable[[Path], dict[str, Any]]:
    """What came of a workflow, which is run once."""
    return cache(lambda path: running.history(with_tiny_models(quick(path))))


@every_workflow
def test_runs_when_queued(path, running, history):
    prompt = with_tiny_models(quick(path))
    if missing := needs(prompt):
        pytest.skip(f"needs {missing}")
    entry = history(path)
    wrong = [body for name, body in entry["status"]["messages"] if name == "execution_error"]
    assert entry["status"]["status_str"] == "success", [(body["node_type"], body["exception_message"], body["traceback"][-3:]) for body in wrong]
    shown = [file for output in entry["outputs"].values() for files in output.values() for file in files if isinstance(file, dict)]
    files = [file for file in shown if "filename" in file]
    assert files
    for file in files:
        assert (running.base / file["type"] / file["subfolder"] / file["filename"]).stat().st_size > 0
    for node in reporting(prompt):
        (report,) = entry["outputs"][node]["report"]
        assert isinstance(report, dict) and len(report) > 2, f"{node} {prompt[node]['class_type']}"


def test_measured_figures_are_data_in_the_history(running):
    prompt = quick(next(path for path in API if path.stem == "measure_against_reference"))
    if missing := needs(prompt):
        pytest.skip(f"needs {missing}")
    node = next(key for key, node in prompt.items() if node["class_type"] == "FVRMeasureRestoration")
    (report,) = running.history(prompt)["outputs"][node]["report"]
    assert 10 < report["summary"]["psnr"] < 60 and len(report["per_frame"]["psnr"]) == FRAMES


OLD = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "frame.png"}, "_meta": {"title": "picture"}},
    "2": {"class_type": "FaceRestoreModelLoader", "inputs": {"model_name": "codeformer.pth"}, "_meta": {"title": "facerestore_cf"}},
    "3": {
        "class_type": "FaceRestoreCFWithModel",
        "inputs": {"facerestore_model": ["2", 0], "image": ["1", 0], "facedetection": "retinaface_resnet50", "codeformer_fidelity": 0.7},
        "_meta": {"title": "facerestore_cf"},
    },
    "4": {
        "class_type": "ReActorRestoreFace",
        "inputs": {
            "image": ["1", 0],
            "facedetection": "retinaface_resnet50",
            "model": "codeformer.pth",
            "visibility": 0.8,
            "codeformer_weight": 0.5,
        },
        "_meta": {"title": "ReActor"},
    },
    "7": {
        "class_type": "ReActorRestoreFaceAdvanced",
        "inputs": {
            "image": ["1", 0],
            "facedetection": "retinaface_resnet50",
            "model": "codeformer.pth",
            "visibility": 1.0,
            "codeformer_weight": 0.5,
            "face_selection": "largest",
        },
        "_meta": {"title": "ReActor"},
    },
    "5": {
        "class_type": "KEEP_ModelLoader",
        "inputs": {"model": "KEEP", "detection_model": "retinaface_resnet50"},
        "_meta": {"title": "ComfyUI-KEEP"},
    },
    "6": {
        "class_type": "KEEP_ProcessImageSequence",
        "inputs": {
            "images": ["1", 0],
            "keep_model": ["5", 0],
            "final_upscale_factor": 2.0,
            "has_aligned_frames": False,
            "only_center_face": True,
            "draw_bounding_box": False,
            "max_clip_length": 20,
        },
        "_meta": {"title": "ComfyUI-KEEP"},
    },
    **{
        key: {"class_type": "SaveImage", "inputs": {"images": [node, 0], "filename_prefix": f"old{node}"}, "_meta": {"title": "save"}}
        for key, node in (("13", "3"), ("14", "4"), ("16", "6"), ("17", "7"))
    },
}
"""A graph of other packs' nodes, as their users saved it."""


def test_a_saved_graph_of_other_packs_runs_with_our_nodes(running):
    from PIL import Image

    known = running.ask("/node_replacements")
    if not known:
        pytest.skip("this ComfyUI replaces no nodes")
    assert {"FaceRestoreCFWithModel", "ReActorRestoreFace", "KEEP_FaceUpscaleImage"} <= set(known)
    assert known["FaceRestoreModelLoader"][0]["output_mapping"] == [{"new_idx": 0, "old_idx": 0}]  # the page's wires
    entry = running.history(json.loads(json.dumps(OLD)))
    wrong = [body for name, body in entry["status"]["messages"] if name == "execution_error"]
    assert entry["status"]["status_str"] == "success", wrong
    assert "1 person" in entry["outputs"]["3"]["text"][0]
    pictures = {key: entry["outputs"][key]["images"][0] for key in ("13", "14", "16", "17")}
    sizes = {key: Image.open(running.base / "output" / file["filename"]).size for key, file in pictures.items()}
    width, height = Image.open(running.base / "input" / "frame.png").size
    assert sizes == {"13": (width, height), "14": (width, height), "16": (2 * width, 2 * height), "17": (width, height)}


def test_blueprints_are_listed(running):
    listed = running.ask("/global_subgraphs")
    ours = {entry["name"]: key for key, entry in listed.items() if entry["info"]["node_pack"].endswith("face-video-restoration")}
    assert set(ours) == {path.stem for path in BLUEPRINTS}
    for name, key in ours.items():
        assert json.loads(running.ask(f"/global_subgraphs/{key}")["data"])["nodes"][0]["title"] == name


@needs_browser
def test_blueprints_open_in_the_page(running):
    """Each as its one node; what would be queued are the nodes in it, with the values of the blueprint, or the user's, also of a saved graph."""
    hostctl = loaded()
    hostctl.ROOT = running.folder
    found: dict[str, Any] = {}
    changed: list[dict[str, Any]] = []
    mine = {"faces": "1", "strength": 0.5, "scale": 2}

    def visit(page: Any, logs: list[Any]) -> None:
        for path in BLUEPRINTS:
            fault = page.evaluate(hostctl.LOAD, [path.name, path.read_text(encoding="utf-8")])
            page.wait_for_timeout(500)
            found[path.stem] = fault, page.evaluate(hostctl.REPORT), page.evaluate(QUEUED)
            if path.stem == "Face restore for videos":
                page.evaluate(CHANGE, mine)
                page.evaluate("async () => await app.loadGraphData(app.graph.serialize())")
                changed.append(page.evaluate(QUEUED))

    hostctl.browser(Namespace(port=running.port, width=1280, height=800), visit)
    for path in BLUEPRINTS:
        fault, report, queued = found[path.stem]
        inside = json.loads(path.read_text(encoding="utf-8"))["definitions"]["subgraphs"][0]["nodes"]
        assert fault is None and report["missing"] == []
        assert sorted(node["class_type"] for node in queued.values()) == sorted(node["type"] for node in inside), path.stem
    for queued, values in ((found["Face restore for videos"][2], {"faces": "all", "strength": 1, "scale": 1}), (changed[0], mine)):
        (video,) = (node["inputs"] for node in queued.values() if node["class_type"] == "FVRRestoreVideo")
        assert {name: video[name] for name in values} == values


def overlapping(boxes: list[tuple[str, float, float, float, float]]) -> list[tuple[str, str]]:
    """The titles of nodes that lie over each other; boxes are (title, left, top, right, bottom)."""
    return [
        (one, other)
        for (one, left, top, right, bottom), (other, a, b, c, d) in combinations(boxes, 2)
        if min(right, c) - max(left, a) > 1 and min(bottom, d) - max(top, b) > 1
    ]


@needs_browser
@pytest.mark.parametrize("mode", ["classic", "vue"])
def test_every_page_opens_and_is_its_twin(mode, running, history, tmp_path):
    """In one browser: no node is unknown, nothing fails to load, and what the page would queue is the API form. No node lies over another, even

    after a run, which adds to them.
    """
    suffix = "" if mode == "classic" else f"-{mode}"
    pictures = Path(os.environ.get("FVR_SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    hostctl = loaded()
    hostctl.ROOT = running.folder
    found: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {}
    over: dict[str, list[tuple[str, str]]] = {}
    ran = {path.stem: {} if needs(quick(path)) else history(path)["outputs"] for path in API}

    def visit(page: Any, logs: list[Any]) -> None:
        for name, value in (("Minimap.Visible", False), ("VueNodes.Enabled", mode == "vue")):
            page.evaluate("async ([name, value]) => await app.extensionManager.setting.set(name, value)", [f"Comfy.{name}", value])
        page.reload()
        page.wait_for_function("() => window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 50")
        page.wait_for_timeout(1000)
        for path in PAGES:
            fault = page.evaluate(hostctl.LOAD, [path.name, path.read_text(encoding="utf-8")])
            page.wait_for_timeout(800)
            page.evaluate("async () => { await window.app.extensionManager.command.execute('Comfy.Canvas.FitView') }")
            page.wait_for_timeout(500)
            page.screenshot(path=str(pictures / f"{path.stem}{suffix}.png"))
            report = page.evaluate(hostctl.REPORT)
            found[path.stem] = fault, report, page.evaluate(QUEUED)
            page.evaluate(AS_RUN, ran[path.stem])
            page.wait_for_timeout(800)
            over[path.stem] = overlapping(page.evaluate(BOXES))

    hostctl.browser(Namespace(port=running.port, width=1920, height=1080), visit)
    for path in PAGES:
        fault, report, queued = found[path.stem]
        twin = json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        asked = {f"has_errors {key}:LoadImage" for key, node in twin.items() if node["class_type"] == "LoadImage"}  # for a picture yet to be chosen
        assert fault is None and (set(report["missing"]) <= asked or needs(twin)), f"{path.stem}: {fault or report['missing']}"
        assert len(report["nodes"]) == len(nodes) and len(twin) == len([node for node in nodes if node["type"] not in NOTES])
        assert {key: node["class_type"] for key, node in queued.items()} == {key: node["class_type"] for key, node in twin.items()}, path.stem
        for key, node in twin.items():
            inputs = {name: value for name, value in queued[key]["inputs"].items() if name not in PREVIEWS}
            assert inputs == node["inputs"], f"{path.stem}: {key} {node['class_type']}"
        assert (pictures / f"{path.stem}{suffix}.png").stat().st_size > 20_000
    assert {name: pairs for name, pairs in over.items() if pairs} == {}
