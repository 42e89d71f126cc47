"""The bundled workflows: valid against the node schemas, the two formats agree, and they run headless."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from helpers.small_workflows import API, FRAMES, NOTES, PAGES, frames_of, make_embedded, make_inputs, make_models, quick, reporting

from fvr import headless, host
from fvr.assembly import AUTO
from fvr.headless.schema import Slot, describe, is_link
from fvr.models import embedded
from fvr.models.checkpoints.catalogue import published_as
from fvr.nodes import registry
from fvr.video import open_source
from fvr.workflows import FOLDER, bundled


def name_of(path: Path) -> str:
    return path.stem


every_workflow = pytest.mark.parametrize("path", API, ids=name_of)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """An input folder with what `quick` names."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    folder = tmp_path_factory.mktemp("input")
    make_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A model folder with every file that the workflows name."""
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory) -> Path:
    """The embedded weights of the package, small ones where it has none; the prior is always a small one, or every step would cost a second."""
    folder = tmp_path_factory.mktemp("embedded")
    make_embedded(folder)
    for file in embedded.FOLDER.glob("*.safetensors"):
        if file.name != embedded.PRIOR:
            (folder / file.name).unlink(missing_ok=True)
            (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture
def place(inputs, models, own_weights, tmp_path, monkeypatch):
    """A workplace with the tiny clip and the weights that all workflows need."""
    copied = tmp_path / "models"  # fine-tuning writes into it
    for file in models.glob("*/*"):
        (copied / file.parent.name).mkdir(parents=True, exist_ok=True)
        (copied / file.parent.name / file.name).hardlink_to(file)
    monkeypatch.setenv("FVR_MODELS", str(copied))
    monkeypatch.setattr(embedded, "FOLDER", own_weights)
    with host.workspace(input=inputs, output=tmp_path / "output", temp=tmp_path / "temp"):
        yield tmp_path


def api_form(path: Path) -> dict[str, dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def page_form(path: Path) -> dict[str, Any]:
    return json.loads((FOLDER / path.name).read_text(encoding="utf-8"))


def page_nodes(page: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The nodes of a page that do something, by id."""
    return {str(node["id"]): node for node in page["nodes"] if node["type"] not in NOTES}


def values_of(node: dict[str, Any]) -> list[Any]:
    """The values of a page's node, but for what the page does to the seed of ComfyUI's own nodes after a run, which is no input."""
    values = node.get("widgets_values") or []
    return values if node["type"].startswith("FVR") else [value for value in values if value not in ("fixed", "randomize")]


def widgets(node: dict[str, Any]) -> dict[str, Any]:
    """Name and value of each widget of a page's node, but for upload buttons."""
    names = [socket["name"] for socket in node["inputs"] if socket.get("widget")]
    return {name: value for name, value in zip(names, values_of(node), strict=True) if name != "upload"}


def is_widget(slot: Slot) -> bool:
    """Whether the page shows an input as a widget, not as a socket only."""
    plain = slot.choice or isinstance(slot.type, list) or slot.type in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
    return plain and not slot.options.get("forceInput")


def foreign(prompt: dict[str, dict[str, Any]]) -> set[str]:
    """Classes that only ComfyUI has."""
    return {node["class_type"] for node in prompt.values()} - set(registry())


def test_every_page_has_its_twin_and_its_picture():
    assert {path.name for path in API} == {path.name for path in PAGES}
    assert all(path.with_suffix(".jpg").is_file() for path in PAGES)


def test_load_image_names_a_picture():
    """ComfyUI takes an empty name for the input folder, which is there, and fails on it in the run: "[Errno 21] Is a directory"."""
    pictures = {path.stem: node["inputs"]["image"] for path in API for node in api_form(path).values() if node["class_type"] == "LoadImage"}
    assert pictures and set(pictures.values()) == {"choose a picture"}, pictures


SCREEN = 0.75 * 1920, 0.75 * 1043
"""What Fit View fills of a page of 1920 x 1080."""
READABLE = 0.65
"""Zoom at which the 10 pixels of a note's text can still be read; below 8 / 14 the page draws no text at all."""


def shown_size(node):
    """Width and height below the title; of a folded node only that shows."""
    return (160, 0) if node.get("flags", {}).get("collapsed") else node["size"]


def test_text_can_be_read_at_fit_view():
    """On a screen of 1920 x 1080; and no node lies over another."""
    for path in PAGES:
        boxes = [(*node["pos"], *shown_size(node)) for node in page_form(path)["nodes"]]
        width, height = (max(b[k] + b[k + 2] for b in boxes) - min(b[k] for b in boxes) for k in (0, 1))
        assert min(SCREEN[0] / width, SCREEN[1] / height) > READABLE, f"{path.stem} is {width} x {height}"
        for number, (x, y, w, h) in enumerate(boxes):
            apart = [x + w <= a or a + c <= x or y + h + 30 <= b or b + d + 30 <= y for a, b, c, d in boxes[number + 1 :]]  # 30: a title
            assert all(apart), f"{path.stem}: node {number} lies over another"


def wires_behind_nodes(page: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(from, behind, to) by their titles, of every wire that passes behind a node which is not one of its ends.

    Wires are drawn as Bezier curves that leave and arrive level, a quarter of the distance between their ends long.
    """
    nodes, found = page_nodes(page), []
    for _, source, output, target, entry, _ in page["links"]:
        one, other = nodes[str(source)], nodes[str(target)]
        rows = sum(not socket.get("widget") for socket in other["inputs"])
        row = sum(not socket.get("widget") for socket in other["inputs"][:entry])
        down = 20 * rows + 24 * (entry - row) if other["inputs"][entry].get("widget") else 20 * row
        ax, ay = one["pos"][0] + one["size"][0] - 10, one["pos"][1] + 14 + 20 * output
        bx, by = other["pos"][0] + 10, other["pos"][1] + 14 + down
        reach = 0.25 * math.dist((ax, ay), (bx, by))
        for node in (node for node in nodes.values() if node is not one and node is not other):
            (left, top), (width, height) = node["pos"], node["size"]
            for t in (k / 40 for k in range(41)):
                a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
                x, y = a * ax + b * (ax + reach) + c * (bx - reach) + d * bx, (a + b) * ay + (c + d) * by
                if left < x < left + width and top - 30 < y < top + height:
                    found.append((one["title"], node["title"], other["title"]))
                    break
    return found


CROWDED = {"adapt_to_my_archive", "faces_with_ksampler", "faces_with_seedvr2"}
"""Pages with too many nodes and wires for each to have its own way."""


def test_wires_are_seen_where_they_go():
    """A wire that goes in behind one side of a node and comes out at the other reads as two wires of that node."""
    behind = {path.stem: wires_behind_nodes(page_form(path)) for path in PAGES if path.stem not in CROWDED}
    assert {name: wires for name, wires in behind.items() if wires} == {}


def test_pages_and_their_nodes_say_where_they_come_from():
    pages = [page_form(path) for path in PAGES]
    assert len({UUID(page["id"]).int for page in pages} - {0}) == len(pages)
    for page in pages:
        for node in page["nodes"]:
            ours = node["type"].startswith("FVR")
            assert node["properties"]["cnr_id"] == ("face-video-restoration" if ours else "comfy-core") and node["properties"]["ver"]


def test_every_page_says_what_it_does():
    """A note that is neither empty nor longer than anybody reads."""
    for path in PAGES:
        notes = [node["widgets_values"][0] for node in page_form(path)["nodes"] if node["type"] in NOTES]
        assert notes and all(100 < len(text) < 2000 for text in notes), path.stem
        assert not any("`" in text for text in notes), f"{path.stem}: Vue nodes print code in blue on the brown of a dark note"


def nulls(part: Any, where: str = "") -> set[str]:
    """Keys of a page form under which nothing stands."""
    if isinstance(part, list):
        return set().union(*(nulls(one, where) for one in part))
    if isinstance(part, dict):
        return set().union(*(nulls(value, key) for key, value in part.items()))
    return {where} if part is None else set()


def test_only_sockets_without_a_wire_hold_nothing():
    """ComfyUI's page checks a template by a schema of its own, which takes no null where a value may be left out."""
    assert {path.stem: held for path in PAGES if (held := nulls(page_form(path)) - {"link", "links"})} == {}


def test_no_page_has_a_label_that_hides_the_translated_name():
    for path in PAGES:
        for node in page_form(path)["nodes"]:
            assert [slot["name"] for slot in (*node["inputs"], *node["outputs"]) if slot.get("label")] == [], f"{path.stem}: {node['title']}"


def test_every_page_has_its_note_in_chinese():
    """Folded up, so that it takes one line."""
    for path in PAGES:
        (note,) = [node for node in page_form(path)["nodes"] if node.get("title") == "中文说明"]
        words = note["widgets_values"][0]
        assert note["type"] in NOTES and note["flags"]["collapsed"], path.stem
        assert sum("\u4e00" <= letter <= "\u9fff" for letter in words) > len(words) / 3, path.stem


@every_workflow
def test_the_page_says_what_its_twin_says(path):
    """Same nodes, same wires, and every widget has the value that the API form has."""
    prompt, page = api_form(path), page_form(path)
    nodes = page_nodes(page)
    assert {key: node["class_type"] for key, node in prompt.items()} == {key: node["type"] for key, node in nodes.items()}
    links = {link[0]: [str(link[1]), link[2]] for link in page["links"]}
    for key, node in prompt.items():
        wired = {socket["name"]: links[socket["link"]] for socket in nodes[key]["inputs"] if socket.get("link")}
        assert {name: value for name, value in node["inputs"].items() if isinstance(value, list)} == wired
        values = {name: value for name, value in widgets(nodes[key]).items() if name not in wired}
        assert {name: value for name, value in node["inputs"].items() if not isinstance(value, list)} == values, f"{key} {node['class_type']}"


@every_workflow
def test_values_by_name_are_those_by_place(path):
    """Front ends may restore either."""
    for node in page_nodes(page_form(path)).values():
        shown = [socket["name"] for socket in node["inputs"] if socket.get("widget")]
        assert node.get("widgets_values_named", {}) == dict(zip(shown, values_of(node), strict=True)), node["type"]


@every_workflow
def test_the_page_fits_the_nodes(path):
    """Sockets in the page have the names and types of the schemas, widgets their order, and wires lead where both ends say."""
    page = page_form(path)
    nodes, ids = page_nodes(page), [node["id"] for node in page["nodes"]]
    assert len(ids) == len(set(ids)) and max(ids) == page["last_node_id"]
    assert max([link[0] for link in page["links"]], default=0) <= page["last_link_id"]
    for number, source, output, target, entry, kind in page["links"]:
        start, end = nodes[str(source)]["outputs"][output], nodes[str(target)]["inputs"][entry]
        assert number in start["links"] and end["link"] == number and kind in (start["type"], end["type"])
    known = registry()
    for node in nodes.values():
        if node["type"] not in known:
            continue
        info = describe(known[node["type"]])
        assert [output["type"] for output in node["outputs"]][: len(info.outputs)] == list(info.outputs)
        slots = info.slots(widgets(node))
        shown = {socket["name"]: socket["type"] for socket in node["inputs"] if socket["name"] != "upload"}
        assert {name for name, slot in slots.items() if slot.required} <= set(shown) <= set(slots)
        assert all(slots[name].choice or slots[name].type == kind or isinstance(slots[name].type, list) for name, kind in shown.items())
        assert [name for name in slots if is_widget(slots[name]) and name not in shown and not node["type"].endswith("Note")] == []
        values = list(widgets(node))
        assert values == [name for name in slots if is_widget(slots[name])][: len(values)], (
            "values go by their place: a new widget belongs at the end"
        )


@every_workflow
def test_ids_inputs_ranges_and_links_are_those_of_the_nodes(path, place):
    """Nothing is missing, out of range or unknown, and no input is one that its node has not (which ComfyUI would drop without a word)."""
    prompt, known = quick(path), registry()
    for key, node in prompt.items():
        if node["class_type"] in known:
            slots = describe(known[node["class_type"]]).slots(node["inputs"])
            assert set(node["inputs"]) <= set(slots), f"{key} {node['class_type']}"
    theirs = {key for key, node in prompt.items() if node["class_type"] not in known}
    behind = [key for key, node in prompt.items() if any(is_link(value) and value[0] in theirs for value in node["inputs"].values())]
    if behind:
        pytest.skip(f"needs ComfyUI's own {', '.join(sorted(foreign(prompt)))}")
    assert [str(error) for error in headless.validate({key: node for key, node in prompt.items() if key not in theirs}, known)] == []


@pytest.mark.parametrize("path", [path for path in API if path.stem != "adapt_to_my_archive"], ids=name_of)
def test_runs_headless(path, place):
    """All but the workflow that trains, which has a test of its own."""
    prompt = quick(path)
    theirs = foreign(prompt)
    if theirs:
        pytest.skip(f"needs ComfyUI's own {', '.join(sorted(theirs))}")
    result = headless.run_prompt(prompt, registry())
    made = [file for file in result.files if file.is_relative_to(place / "output")]
    shown = [file for file in result.files if file.is_relative_to(place / "temp")]
    assert made or shown
    for node in reporting(prompt):
        (report,) = json.loads(json.dumps(result.ui[node]["report"], allow_nan=False))
        assert len(report) > 2, f"{node} {prompt[node]['class_type']}"
    for file in made:
        if file.suffix == ".mp4":
            assert sum(len(chunk.frames) for chunk in open_source(file).chunks()) == frames_of(prompt)
    if path.stem == "measure_against_reference":
        check_measured(result.ui[next(key for key, node in prompt.items() if node["class_type"] == "FVRMeasureRestoration")])


def test_pairs_are_kept_and_a_fine_tuned_file_is_what_the_next_workflow_names(place):
    """The three workflows of adapting are one story: pairs in a folder, a file made of them, the file in use."""
    adapt, use = (quick(bundled(name)) for name in ("adapt_to_my_archive", "use_fine_tuned"))
    named = next(node["inputs"]["model"] for node in use.values() if node["class_type"] == "FVRLoadFaceRestorer")
    (place / "models" / "facerestore_models" / named).unlink()  # the stand-in: now it has to be written
    assert any(named in str(error) for error in headless.validate(use, registry()))
    saved = [file for file in headless.run_prompt(adapt, registry()).files if file.suffix == ".mp4"]
    assert [len(chunk.frames) for chunk in open_source(saved[0]).chunks()] == [FRAMES] and len(saved) == 1
    folder = next(node["inputs"]["folder"] for node in adapt.values() if node["class_type"] == "FVRPseudoTargetGenerate")
    assert len(list((place / "output" / folder).rglob("*.png"))) >= 2 * FRAMES
    assert (place / "models" / "face_video_restoration" / named).is_file()
    result = headless.run_prompt(use, registry())
    assert [file for file in result.files if file.suffix == ".mp4"]


def check_measured(ui):
    """Figures that a program can read from the history of a run, and a table for people."""
    (table,), (figures,) = ui["text"], json.loads(json.dumps(ui["report"], allow_nan=False))
    assert 10 < figures["summary"]["psnr"] < 60 and len(figures["per_frame"]["psnr"]) == FRAMES
    assert {"ssim", "residual_rms", "sharpness", "flicker"} <= set(figures["summary"]) and "psnr" in table.lower()


WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors")


@pytest.mark.parametrize("path", [*PAGES, *Path(__file__).resolve().parents[1].glob("subgraphs/*.json")], ids=lambda path: path.stem)
def test_the_upload_button_comes_last(path):
    """The page puts the button of an optional file behind all widgets, and values go by place: new widgets come before it."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    inside = [node for one in (graph.get("definitions") or {}).get("subgraphs", []) for node in one["nodes"]]
    for node in (node for node in (*graph["nodes"], *inside) if node["type"] == "FVRRestoreVideo"):
        assert node["widgets_values"][-1] == "image" and "image" not in node["widgets_values"][:-1]
        names = [socket["name"] for socket in node["inputs"] if socket.get("widget")]
        assert "upload" not in names or names[-1] == "upload"


def test_pages_say_where_every_file_that_they_name_comes_from():
    """So that the page offers what is missing; my-archive is what the user has made."""
    for path in PAGES:
        for node in page_form(path)["nodes"]:
            values = [value for value in node.get("widgets_values") or [] if isinstance(value, str)]
            named = {value for value in values if value.endswith(WEIGHTS) and not value.startswith("my-")}
            offered = node["properties"].get("models", [])
            assert {model["name"] for model in offered} == named, f"{path.stem}: {node['type']}"
            assert all(model["url"].startswith("https://") and model["directory"] for model in offered), f"{path.stem}: {node['type']}"


def test_pages_that_need_a_download_say_so_and_are_few():
    """In both languages; the others open without a red node on a fresh machine, but for the one that uses what the user has made."""
    needing = [path for path in PAGES if any(node["properties"].get("models") for node in page_form(path)["nodes"])]
    assert [path.stem for path in needing] == ["faces_with_ksampler", "faces_with_seedvr2", "flair_space_time", "flair_with_codeformer", "flair_x8"]
    for path in needing:
        notes = {node["title"] == "中文说明": node["widgets_values"][0] for node in page_form(path)["nodes"] if node["type"] in NOTES}
        assert re.search("not part of this pack|Needs ", notes[False]) and re.search("不含|不属于|不在|需要", notes[True]), path.stem


def test_pages_say_where_missing_restorers_come_from():
    """The page shows a row with name, address and folder for a combo whose published file is not there; other files need none."""
    for path in PAGES:
        for node in page_form(path)["nodes"]:
            if node["type"] != "FVRLoadFaceRestorer":
                continue
            name, offered = node["widgets_values"][0], node["properties"].get("models", [])
            published = published_as(name)
            assert [(model["name"], model["directory"]) for model in offered] == ([(name, "facerestore_models")] if published else [])
            assert [model["url"] for model in offered] == ([published.url] if published else [])
            assert published or name in (AUTO, *embedded.RESTORERS) or re.fullmatch(r"my-[a-z-]+\.safetensors", name)


@pytest.mark.parametrize("name", ["start_here", "restore_face_video", "restore_long_video"])
def test_the_starters_are_apps(name):
    """What ComfyUI's app mode shows of them: the clip first, and what is written last."""
    page = page_form(FOLDER / f"{name}.json")
    nodes, app = page_nodes(page), page["extra"]["linearData"]
    assert app["inputs"][0][1] == "file" and all(name in widgets(nodes[str(node)]) for node, name in app["inputs"])
    schemas = {node: registry()[nodes[str(node)]["type"]].define_schema() for node, _ in app["inputs"]}
    settings = [next(one for one in schemas[node].inputs if one.id == name) for node, name in app["inputs"]]
    assert not any(one.advanced for one in settings), "app mode leaves those out, and shows their names over nothing"
    assert [registry()[nodes[str(node)]["type"]].define_schema().is_output_node for node in app["outputs"]] == [True]


@pytest.mark.parametrize("name", ["restore_face_video", "restore_long_video"])
def test_the_starters_say_nothing_of_the_damage(name):
    """Nobody who opens them has described any: a description that is wrong does harm."""
    prompt = headless.load_prompt(bundled(name))
    assert {node["inputs"].get("model", AUTO) for node in prompt.values()} == {AUTO}
    assert "FVRLoadFaceRestorer" in {node["class_type"] for node in prompt.values()}
    assert not any("degradation" in node["inputs"] or "kind" in node["inputs"] for node in prompt.values())


def test_a_name_that_is_not_there_lists_those_that_are():
    with pytest.raises(FileNotFoundError, match="restore_face_video"):
        bundled("restore_faces")


def test_no_two_workflows_write_pairs_into_one_folder():
    """Pairs of other parameters in the same folder are refused, so whoever ran one workflow could not run the other."""
    folders = [
        node["inputs"]["folder"]
        for path in sorted((FOLDER / "api").glob("*.json"))
        for node in json.loads(path.read_text(encoding="utf-8")).values()
        if node["class_type"] == "FVRPseudoTargetGenerate"
    ]
    assert len(folders) == len(set(folders)) > 1


def test_the_archives_targets_are_those_that_helped():
    """benchmarks/README.md: 22.07 dB before, 22.66 after with N 16 and no anchor, 21.93 with the preset `embedded` as it is."""
    prompt = json.loads((FOLDER / "api" / "adapt_to_my_archive.json").read_text(encoding="utf-8"))
    (made,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "FVRPseudoTargetGenerate")
    assert (made["preset.N"], made["preset.anchored"]) == (16, False)
