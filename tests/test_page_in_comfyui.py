"""The nodes in ComfyUI's own page, classic and Vue: a clip gets in, and what a node says can be read.

Runs where `comfyui_host` finds a ComfyUI and a browser; FVR_FRONT_END names another front end to run it in.
"""

from __future__ import annotations

import base64
import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from helpers.comfyui_host import FRONT_END, PATIENCE, Host, loaded, needs_browser, needs_host

from fvr.demo import moving_portrait, save
from fvr.video import AudioTrack, FrameTimes
from fvr.workflows import FOLDER

pytestmark = [*needs_host, needs_browser]

MODES = ("classic", "vue")

BUILD = """([nodes, wires]) => {
  app.graph.clear();
  const made = {};
  nodes.forEach(([name, type, values], index) => {
    const node = LiteGraph.createNode(type);
    node.pos = [80 + 400 * (index % 4), 120 + 480 * Math.floor(index / 4)];
    app.graph.add(node);
    for (const [key, value] of Object.entries(values)) node.widgets.find((widget) => widget.name === key).value = value;
    made[name] = node;
  });
  for (const [from, output, to, input] of wires) made[from].connect(output, made[to], input);
  app.canvas.ds.offset = [0, 0];
  app.canvas.ds.scale = 1;
  app.graph.setDirtyCanvas(true, true);
}"""
PLACE = """([type, name]) => {
  const node = app.graph.nodes.find((node) => node.type === type);
  const y = name ? (node.widgets.find((widget) => widget.name === name).last_y ?? 0) + 10 : 20;
  const [left, top] = app.canvas.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + y]);
  const box = app.canvas.canvas.getBoundingClientRect();
  return [left + box.left, top + box.top];
}"""
DROP = """([x, y, name, content]) => {
  const file = new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name, { type: 'video/mp4' });
  const carried = new DataTransfer();
  carried.items.add(file);
  const under = document.elementFromPoint(x, y);
  for (const kind of ['dragenter', 'dragover', 'drop'])
    under.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, clientX: x, clientY: y, dataTransfer: carried }));
}"""
SET = """([type, name, value]) => {
  app.graph.nodes.find((node) => node.type === type).widgets.find((widget) => widget.name === name).value = value;
}"""
FILES = "() => Object.fromEntries(app.graph.nodes.map((node) => [node.type, node.widgets?.find((widget) => widget.name === 'file')?.value]))"
SAID = "[data-testid=fvr-said]"
COMPARE = "[data-testid=fvr-compare]"
PEOPLE = "[data-testid=fvr-people]"
OPEN = """async (graph) => {
  await app.loadGraphData(graph);
  await app.extensionManager.command.execute('Comfy.Canvas.FitView');
}"""
LISTEN = """async () => {
  window.fvrWork = [];
  (await import('/scripts/api.js')).api.addEventListener('fvr.work', ({ detail }) => window.fvrWork.push(detail));
}"""
EVERY_CHOICE = """() => {
  app.graph.clear();
  const other = (widget, key) => {
    const { values, min, max, step2, precision } = widget.options ?? {};
    if (Array.isArray(values)) return values.findLast((one) => one !== widget.value) ?? widget.value;
    if (typeof widget.value === 'boolean') return !widget.value;
    if (typeof widget.value !== 'number') return `words ${key}`;
    const step = step2 || 10 ** -(precision ?? 2);
    return widget.value + step <= (max ?? Infinity) ? widget.value + step : widget.value - step;
  };
  const choices = (spec) => {
    const dynamic = Object.entries({ ...spec.input.required, ...spec.input.optional }).filter(([, [type]]) => type === 'COMFY_DYNAMICCOMBO_V3');
    return dynamic.reduce((all, [name, [, { options }]]) => all.flatMap((one) => options.map(({ key }) => ({ ...one, [name]: key }))), [{}]);
  };
  const types = Object.keys(LiteGraph.registered_node_types).filter((type) => type.startsWith('FVR'));
  for (const type of types) for (const made of choices(LiteGraph.registered_node_types[type].nodeData)) {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    node.pos = [460 * (app.graph.nodes.length % 8), 900 * Math.floor(app.graph.nodes.length / 8)];
    node.title = `${type} ${Object.values(made)}`;
    for (const [name, key] of Object.entries(made)) node.widgets.find((widget) => widget.name === name).value = key;
    for (const [key, widget] of [...(node.widgets ?? [])].entries())
      if (widget.serialize !== false && !(widget.name in made)) widget.value = other(widget, key);
  }
}"""
HELD = """() => app.graph.nodes.map((node) =>
  [node.title, (node.widgets ?? []).filter((widget) => widget.serialize !== false).map((widget) => [widget.name, widget.value])])"""
VALUE = "([type, name]) => app.graph.nodes.find((node) => node.type === type).widgets.find((widget) => widget.name === name).value"
CLIPS = f"""() => [...document.querySelectorAll('{COMPARE} video')].map((clip) => [clip.currentTime, clip.duration, clip.paused, clip.muted])"""


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Host]:
    """A host whose input folder is empty, as on the first day."""
    here = Host(tmp_path_factory.mktemp("comfyui"))
    here.start()
    yield here
    here.control("stop")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, bytes]:
    """A clip with a face, one with two, one without, and one of three seconds with sound, as mp4 files."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    folder = tmp_path_factory.mktemp("clips")
    grey = torch.linspace(0.2, 0.8, 96).expand(3, 3, 96, 96).contiguous()
    portrait = moving_portrait(3)
    two = torch.cat([portrait, 0.5 + 0.5 * portrait.flip(-1)], dim=-1)
    for name, frames in (("face", portrait), ("two", two), ("nobody", grey)):
        save(folder / f"{name}.mp4", frames, FrameTimes.constant(len(frames), 25))
    long = torch.linspace(0, 1, 75)[:, None, None, None].expand(-1, 3, 96, 128)
    tone = AudioTrack(0.2 * torch.sin(torch.arange(48000 * 3) * 0.05)[None], 48000)
    save(folder / "heard.mp4", long, FrameTimes.constant(75, 25), audio=tone)
    return {name: (folder / f"{name}.mp4").read_bytes() for name in ("face", "two", "nobody", "heard")}


def in_page(host: Host, mode: str, visit: Callable[[Any], Any], language: str = "en") -> Any:
    """What `visit` gives for a page that shows nodes in that mode, in that language."""
    hostctl = loaded()
    hostctl.ROOT = host.folder

    def settled(page: Any, logs: list[Any]) -> Any:
        for name, value in (("VueNodes.Enabled", mode == "vue"), ("Locale", language)):
            page.evaluate("async ([name, value]) => await app.extensionManager.setting.set(name, value)", [f"Comfy.{name}", value])
        page.reload()
        page.wait_for_function("() => window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 50")
        page.set_default_timeout(1000 * PATIENCE)
        page.wait_for_timeout(1000)
        return visit(page)

    return hostctl.browser(Namespace(port=host.port, width=1280, height=800), settled)


def build(page: Any, nodes: list[tuple[str, str, dict[str, Any]]], wires: list[tuple[str, int, str, str]]) -> None:
    page.evaluate(BUILD, [nodes, wires])
    page.wait_for_timeout(1500)


def upload(page: Any, mode: str, title: str, kind: str, name: str, content: bytes) -> None:
    """Chooses a file by the node's own button."""
    file = {"name": name, "mimeType": "video/mp4", "buffer": content}
    if mode == "vue":
        page.locator("[data-node-id]").filter(has_text=title).locator("input[type=file]").first.set_input_files([file])
    else:
        chosen: list[Any] = []
        page.once("filechooser", lambda chooser: chosen.append(chooser))
        end = time.monotonic() + PATIENCE
        while not chosen and time.monotonic() < end:  # a busy machine draws late, and where a node is not drawn there is no button
            page.mouse.click(*page.evaluate(PLACE, [kind, "upload"]))
            page.wait_for_timeout(3000)
        chosen[0].set_files([file])
    page.wait_for_function(f"() => ({FILES})()['{kind}'] === '{name}'")


def drop(page: Any, kind: str, name: str, content: bytes) -> None:
    """Drops a file on a node's title."""
    page.evaluate(DROP, [*page.evaluate(PLACE, [kind, None]), name, base64.b64encode(content).decode()])
    page.wait_for_function(f"() => ({FILES})()['{kind}'] === '{name}'")


def run(host: Host, page: Any, click: bool = False) -> dict[str, Any]:
    """Runs what is there, by a click on Run if asked; the history of what that queued."""
    before = set(host.ask("/history"))
    if click:
        page.get_by_test_id("queue-button").click()
    else:
        page.evaluate("async () => await app.queuePrompt(0)")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        page.wait_for_timeout(300)
        new = [entry for key, entry in host.ask("/history").items() if key not in before]
        if new:
            page.wait_for_timeout(1000)
            return new[0]
    raise AssertionError(f"nothing ran in {PATIENCE} s")


def said(page: Any) -> list[str]:
    """Every text that a person sees on a node."""
    return [box.input_value() for box in page.locator(SAID).all() if box.is_visible()]


RESTORER = ("restorer", "FVRLoadFaceRestorer", {"model": "embedded codeformer"})
LOAD_AND_RESTORE = [
    ("load", "FVRLoadVideoFrames", {}),
    ("align", "FVRFaceAlign", {"detector": "blazeface"}),
    ("show", "PreviewImage", {}),
    RESTORER,
    ("restore", "FVRRestoreVideo", {"max_frames": 1, "detector": "blazeface"}),
]
WIRED = [("video", "LoadVideo", {"file": "nobody.mp4"}), RESTORER, ("restore", "FVRRestoreVideo", {"file": ""})]
WIRES = [("load", 0, "align", "frames"), ("align", 2, "show", "images"), ("restorer", 0, "restore", "restorer")]


@pytest.mark.parametrize("mode", MODES)
def test_a_clip_gets_in_and_what_nodes_say_is_seen(mode, running, clips, tmp_path):
    """In one page: the button of one node and a dropped file on another; a click on one of two faces; a prompt that is refused and one that

    fails; then a wired VIDEO instead of a file, of a clip without a face.
    """
    names = f"{mode}-button.mp4", f"{mode}-dropped.mp4"

    def visit(page: Any) -> list[Any]:
        build(page, LOAD_AND_RESTORE, WIRES)
        upload(page, mode, "Load Video Frames", "FVRLoadVideoFrames", names[0], clips["two"])
        drop(page, "FVRRestoreVideo", names[1], clips["face"])
        first = run(running, page), said(page)
        strip = page.locator(PEOPLE).filter(has=page.locator("button").nth(1))
        strip.locator("button").nth(1).click(timeout=30_000)  # of Face Align
        chosen = page.evaluate(VALUE, ["FVRFaceAlign", "faces"]), run(running, page)
        begin = page.evaluate("async () => Object.values(await (await import('/scripts/api.js')).api.getWorkflowTemplates()).flat()")
        page.screenshot(path=str(tmp_path / f"{mode}.png"))
        graph = page.evaluate("() => app.graph.serialize()")
        page.evaluate("async (graph) => await app.loadGraphData(graph)", graph)
        page.wait_for_timeout(500)
        kept = graph, page.evaluate("() => app.graph.serialize()")

        page.evaluate(SET, ["FVRRestoreVideo", "filename_prefix", "../outside"])
        page.evaluate("async () => await app.queuePrompt(0).catch(() => null)")
        page.wait_for_timeout(1000)
        wrong = [said(page)]
        page.evaluate(SET, ["FVRRestoreVideo", "filename_prefix", "video/restored"])
        page.evaluate(SET, ["FVRLoadFaceRestorer", "model", "gone.pth"])
        page.evaluate("async () => await app.queuePrompt(0).catch(() => null)")
        page.wait_for_timeout(1000)
        wrong.append(said(page))
        page.evaluate(SET, ["FVRLoadFaceRestorer", "model", RESTORER[2]["model"]])
        page.evaluate(SET, ["FVRRestoreVideo", "faces", "the tall one"])
        run(running, page)
        wrong.append(said(page))

        (running.base / "input" / "nobody.mp4").write_bytes(clips["nobody"])
        page.evaluate("async () => await app.refreshComboInNodes()")
        build(page, WIRED, [("video", 0, "restore", "video"), WIRES[2]])
        upload(page, mode, "Restore Video", "FVRRestoreVideo", f"{mode}-other.mp4", clips["face"])  # the button is there all the same
        page.evaluate(SET, ["FVRRestoreVideo", "file", ""])
        return [first, chosen, wrong, (run(running, page), said(page)), kept, begin]

    (entry, texts), (ids, again), (refused, gone, failed), (wired, nobody), kept, begin = in_page(running, mode, visit)
    assert entry["status"]["status_str"] == wired["status"]["status_str"] == "success", (entry["status"], wired["status"])
    assert [(running.base / "input" / name).read_bytes() for name in names] == [clips["two"], clips["face"]]
    inputs = {node["class_type"]: node["inputs"] for node in entry["prompt"][2].values()}
    assert (inputs["FVRLoadVideoFrames"]["file"], inputs["FVRRestoreVideo"]["file"]) == names
    assert any("3 frames, 2 people" in text for text in texts) and any("1 frame, 1 person" in text for text in texts), texts
    (align,) = (node for node, said in again["outputs"].items() if said.get("text", [""])[0].startswith("3 frames, 2 people"))
    assert ids == "0" and [one["chosen"] for one in again["outputs"][align]["people"][0]] == [True, False]
    assert any("Apache-2.0" in text for text in texts), "the restorer's licence is not on the page"
    assert any("'../outside' leads out of the output folder" in text for text in refused), refused
    assert any("model 'gone.pth' is not here: choose auto, " in text and text.endswith(", or add the file and press R") for text in gone), gone
    assert "faces must be all, largest, ids such as 0,2, or like:photo.jpg, got 'the tall one'" in failed, failed
    assert not any("outside" in text for text in failed), "an error is shown until the next run only"
    assert any("no face: 3" in text for text in nobody), nobody
    before, after = ({node["type"]: node.get("widgets_values") for node in graph["nodes"] if node["type"].startswith("FVR")} for graph in kept)
    assert before == after and before["FVRLoadVideoFrames"][:4] == [names[0], 0, 0, 1]
    assert len(before["FVRFaceAlign"]) == 6, "what a node said of a run is not a part of the workflow"
    assert begin[0] == "start_here", "the template to begin with comes first"


def test_the_classic_page_shows_few_widgets_and_all_when_asked(running):
    """FLAIR Sampler has 27; wires into those that are put away keep them in sight."""

    def visit(page: Any) -> list[list[str]]:
        seen = "() => { const n = app.graph.nodes[0]; return n.widgets.filter((w) => n.isWidgetVisible(w)).map((w) => w.name); }"
        build(page, [("flair", "FVRFlairSampler", {})], [])
        few = page.evaluate(seen)
        page.evaluate("() => app.graph.nodes[0].widgets.find((w) => w.name === 'fvr_more').callback()")
        return [few, page.evaluate(seen)]

    few, all_of_them = in_page(running, "classic", visit)
    assert few == ["seed", "data_consistency", "enhance", "preset", "preset.steps", "fvr_more"] and len(all_of_them) == 28


def test_a_table_on_a_node_has_a_line_for_each_row(running):
    """Padded for a page, it would wrap into a heap."""
    table = "| measure   | frame | unit |\n| --------- | ----- | ---- |\n| PSNR      | 28.77 | dB   |\n| SSIM      | 0.581 |      |"

    def visit(page: Any) -> list[str]:
        build(page, [("measure", "FVRMeasureRestoration", {})], [])
        page.evaluate("(text) => app.graph.nodes[0].onExecuted({ text: [text] })", table)
        page.wait_for_timeout(500)
        return said(page)

    assert in_page(running, "classic", visit) == ["measure | frame | unit\nPSNR | 28.77 | dB\nSSIM | 0.581 |"]


HELP = """() => {
  app.graph.clear();
  const node = LiteGraph.createNode('FVRRestoreVideo');
  app.graph.add(node);
  app.canvas.ds.offset = [300, 300];
  app.canvas.selectNode(node);
}"""


def test_a_folder_of_any_name_serves_scripts_help_and_workflows(tmp_path):
    """A browser's second download has a space and brackets in its name, a release a full stop."""
    here = Host(tmp_path)
    here.start(name="face video restoration 1.0 (1)")

    def visit(page: Any) -> None:
        page.evaluate(HELP)
        with page.expect_response(lambda answer: answer.ok and answer.url.endswith("/face-video-restoration/docs/FVRRestoreVideo.md")):
            page.locator("[data-testid=info-button]").click()
        with page.expect_response(lambda answer: answer.ok and "/workflow_templates/face-video-restoration/" in answer.url):
            page.evaluate("async () => await app.extensionManager.command.execute('Comfy.BrowseTemplates')")

    try:
        ours = [path for path in here.ask("/extensions") if path.startswith("/extensions/face")]
        served = [urlopen(f"http://127.0.0.1:{here.port}{path}").read() for path in ours]
        in_page(here, "classic", visit)
        workflow = here.ask("/api/workflow_templates/face-video-restoration/start_here.json")
    finally:
        here.control("stop")
    assert len(ours) == 5 and all(b"import" in script for script in served) and workflow["nodes"]


LOOKED_FOR = {
    "face restore": "Face restore for videos",
    "face restoration": "Restore Video",
    "codeformer": "Restore Video",
    "gfpgan": "Restore Video",
    "reactor": "Restore Frames",
    "keep": "KEEP Propagate",
    "deflicker": "KEEP Propagate",
    "upscale face video": "Restore Video",
    "fix faces": "Restore Video",
    "old video": "Restore Video",
    "enhance face": "Restore Video",
    "load video": "Load Video Frames",
    "paste face": "Paste Back",
    "psnr": "Measure Restoration",
}
"""What somebody would type who knows ComfyUI but not us, and the node of ours that should be offered first."""
FOUND = """(words) => {
  const nodes = document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s.get('nodeDef');
  return nodes.nodeSearchService.searchNode(words).map((node) => [node.display_name, node.category]);
}"""
"""What the search box lists for these words."""


def test_what_one_would_type_finds_the_right_node_first(running):
    def visit(page: Any) -> dict[str, list[list[str]]]:
        return {words: page.evaluate(FOUND, words) for words in LOOKED_FOR}

    found = in_page(running, "classic", visit)
    ours = {words: [title for title, category in nodes if "face video" in category] for words, nodes in found.items()}
    assert {words: nodes[0] if nodes else None for words, nodes in ours.items()} == LOOKED_FOR


@pytest.mark.parametrize("mode", MODES)
def test_a_saved_workflow_brings_back_every_widget_of_every_choice(mode, running):
    """Of every node with each option of its dynamic choices, no widget at its default: saved and opened again, and pasted."""

    def visit(page: Any) -> list[Any]:
        page.evaluate(EVERY_CHOICE)
        page.wait_for_timeout(1000)
        found = [page.evaluate(HELD)]
        saved = page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
        page.evaluate("async (graph) => await app.loadGraphData(graph)", saved)
        page.wait_for_timeout(1000)
        found.append(page.evaluate(HELD))
        page.evaluate("() => { app.canvas.selectItems(app.graph.nodes); app.canvas.copyToClipboard(); }")
        page.evaluate("() => { app.graph.clear(); app.canvas.pasteFromClipboard(); }")
        page.wait_for_timeout(1000)
        return [*found, page.evaluate(HELD)]

    made, opened, pasted = (dict(held) for held in in_page(running, mode, visit))
    assert len({title.split()[0] for title in made}) == 26 and len(made) > 40
    held = {title: (values, opened.get(title), pasted.get(title)) for title, values in made.items()}
    assert not {title: values for title, values in held.items() if not values[0] == values[1] == values[2]}


def wiped(page: Any, node: str) -> list[float]:
    """Where the line is after the pointer has been at the left, in the middle and at the right of a node's comparison."""
    stage = page.locator(node).locator("> div").first
    box = stage.bounding_box()
    shares = []
    for share in (0.1, 0.5, 0.9):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_timeout(100)
        shares.append(float(stage.get_attribute("data-share")))
    return shares


@pytest.mark.parametrize("mode", MODES)
def test_start_here_by_clicking(mode, running, clips, tmp_path):
    """The workflow to begin with, opened, given a clip, run; before and after; a click on the only face, and on one of two."""
    graph = json.loads((FOLDER / "start_here.json").read_text(encoding="utf-8"))

    def visit(page: Any) -> list[Any]:
        page.evaluate(OPEN, graph)
        page.wait_for_timeout(1000)
        zoom = page.evaluate("() => app.canvas.ds.scale")
        page.screenshot(path=str(tmp_path / f"{mode}-opened.png"))
        upload(page, mode, "restore the faces of a clip", "FVRRestoreVideo", f"{mode}-start.mp4", clips["face"])
        page.evaluate(LISTEN)
        entry = run(running, page, click=True)
        page.evaluate("async () => await app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        page.wait_for_timeout(1000)
        page.screenshot(path=str(tmp_path / f"{mode}-run.png"))
        shares = wiped(page, COMPARE)
        face = page.locator(f"{PEOPLE} button").first
        face.click()  # somebody always stays
        alone = page.evaluate(VALUE, ["FVRRestoreVideo", "faces"]), face.get_attribute("aria-pressed")
        people = entry["outputs"]["1"]["people"][0]
        two = [people[0], {**people[0], "person": 1}]
        page.evaluate("(two) => app.graph.nodes.find((node) => node.type === 'FVRRestoreVideo').onExecuted({ people: [two] })", two)
        faces = page.locator(f"{PEOPLE} button")
        words = []
        for number in (0, 0, 1):
            faces.nth(number).click()
            words.append(page.evaluate(VALUE, ["FVRRestoreVideo", "faces"]))
        queued = page.evaluate("async () => (await app.graphToPrompt()).output")
        page.screenshot(path=str(tmp_path / f"{mode}-chosen.png"))
        work = page.evaluate("() => window.fvrWork")
        shown = app_mode(page, tmp_path / f"{mode}-app.png")
        running.history(queued)
        return [zoom, entry, shares, alone, words, queued, work, page.evaluate("() => window.fvrWork")[len(work) :], shown]

    zoom, entry, shares, alone, words, queued, work, others, shown = in_page(running, mode, visit)
    assert entry["status"]["status_str"] == "success" and zoom > 0.8
    assert [len(entry["outputs"]["1"][name][0]) for name in ("a_images", "b_images")] == [3, 3]
    assert all(said["node"] == "1" for said in work) and any("frames/s" in said["text"] for said in work)
    assert others == [], "how the work of a program goes on is no page's matter"
    assert "restoring: 0 of 3 frames" in [said["text"] for said in work]
    assert shares == pytest.approx([0.1, 0.5, 0.9], abs=0.02)
    assert alone == ("all", "true") and words == ["1", "all", "0"]
    assert queued["1"]["inputs"]["faces"] == "0" and not {"fvr_people", "fvr_compare"} & set(queued["1"]["inputs"])
    (clip,) = entry["outputs"]["1"]["images"]
    assert any(clip["filename"] in source for source in shown), "the first result of the app is the clip"


@pytest.mark.parametrize("mode", MODES)
def test_the_other_starters_by_clicking(mode, running, clips, tmp_path):
    """Each opened, given a clip by its own button, and run by a click on Run; the second again as a job, whose frames are seen."""

    def visit(page: Any) -> list[Any]:
        found = []
        for name, title, kind in (("restore_face_video", "damaged clip", "FVRLoadVideoFrames"), ("restore_long_video", "clip in", "FVRRestoreVideo")):
            page.evaluate(OPEN, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
            page.wait_for_timeout(1500)
            upload(page, mode, title, kind, f"{mode}-{name}.mp4", clips["face"])
            found.append(run(running, page, click=True))
            page.screenshot(path=str(tmp_path / f"{mode}-{name}.png"))
        page.evaluate(SET, ["FVRRestoreVideo", "job", f"{mode}-work"])
        page.evaluate(LISTEN)
        found.append(run(running, page, click=True))
        page.screenshot(path=str(tmp_path / f"{mode}-job.png"))
        return [found, page.evaluate("() => window.fvrWork"), page.locator(COMPARE).first.is_visible()]

    entries, work, compared = in_page(running, mode, visit)
    assert [entry["status"]["status_str"] for entry in entries] == ["success"] * 3 and compared
    for entry in entries:
        assert any(file["filename"].endswith(".mp4") for said in entry["outputs"].values() for file in said.get("images", []) if "filename" in file)
    (said,) = (said for said in entries[2]["outputs"].values() if "a_images" in said)
    assert len(said["a_images"][0]) == len(said["b_images"][0]) == 3
    assert any(one["text"].startswith("3 of 3 frames") and one["picture"].startswith("data:image/jpeg") for one in work)


INTO_BLUEPRINT = """(wires) => {
  const blueprint = app.graph.nodes[0];
  const load = LiteGraph.createNode('FVRLoadVideoFrames');
  const video = LiteGraph.createNode('LoadVideo');
  for (const node of [load, video]) {
    app.graph.add(node);
    node.pos = [-600, 0];
    node.widgets.find((widget) => widget.name === 'file').value = 'heard.mp4';
  }
  load.widgets.find((widget) => widget.name === 'max_frames').value = 2;
  for (const [from, output, input] of wires)
    ({ load, video })[from].connect(output, blueprint, blueprint.inputs.findIndex((one) => one.name === input));
}"""
BLUEPRINTS = {
    "Face restore for videos": [("video", 0, "video")],
    "Compare before and after": [("load", 0, "before"), ("load", 0, "after"), ("load", 1, "times")],
}


@pytest.mark.parametrize("mode", MODES)
def test_blueprints_run_in_the_page(mode, running, clips):
    """The blueprint's one node says why it was refused or what came out, and plays the clip that was made (Vue nodes: of the page of now)."""
    (running.base / "input" / "heard.mp4").write_bytes(clips["heard"])

    texts: list[list[str]] = []

    def visit(page: Any) -> list[Any]:
        found = []
        for name, wires in BLUEPRINTS.items():
            page.evaluate(OPEN, json.loads((FOLDER.parent / "subgraphs" / f"{name}.json").read_text(encoding="utf-8")))
            page.wait_for_timeout(1000)
            page.evaluate("async () => await app.queuePrompt(0).catch(() => null)")
            page.wait_for_timeout(1000)
            texts.append(said(page))
            page.evaluate(INTO_BLUEPRINT, wires)
            found.append(run(running, page))
            texts.append(said(page))
            (clip,) = (file["filename"] for said in found[-1]["outputs"].values() for file in said.get("images", []) if file.get("type") == "output")
            if mode == "classic" or FRONT_END:
                page.wait_for_function(
                    "(clip) => [...document.querySelectorAll('video')].some((one) => one.src.includes(clip))", arg=clip, timeout=30_000
                )
        return found

    assert [entry["status"]["status_str"] for entry in in_page(running, mode, visit)] == ["success"] * len(BLUEPRINTS)
    refused, restored, *_ = texts
    assert refused == ["no clip is chosen; upload one, set the input file, or wire a VIDEO"]
    assert any("no face: 75" in text for text in restored) and not set(refused) & set(restored)


def app_mode(page: Any, picture: Path) -> list[str]:
    """What app mode shows large of the last run."""
    page.evaluate("async () => await app.extensionManager.command.execute('Comfy.ToggleLinear')")
    page.wait_for_timeout(2000)
    page.keyboard.press("Escape")  # ComfyUI's own tour
    page.wait_for_timeout(1000)
    page.screenshot(path=str(picture))
    large = "(one) => one.checkVisibility() && one.getBoundingClientRect().width > 250"
    return page.evaluate(f"() => [...document.querySelectorAll('video')].filter({large}).map((one) => one.currentSrc || one.src)")


@pytest.mark.parametrize("mode", MODES)
def test_the_name_of_a_file_is_filled_in_as_for_comfyui_s_own_nodes(mode, running):
    """What the page queues: the date and another node's value, as for Save Image; the workflow keeps what was written."""
    written = "%date:yyyy%/%FVRRestoreVideo.codec%_%width%"
    nodes = [("save", "SaveImage", {"filename_prefix": written}), ("film", "FVRRestoreVideo", {"filename_prefix": written, "codec": "vp9"})]
    nodes += [("frames", "FVRSaveVideoFrames", {"filename_prefix": written}), ("picture", "LoadImage", {})]

    def visit(page: Any) -> Any:
        build(page, nodes, [("picture", 0, "save", "images"), ("picture", 0, "frames", "frames")])
        queued = page.evaluate("async () => (await app.graphToPrompt()).output")
        kept = page.evaluate("() => app.graph.serialize().nodes.filter((node) => JSON.stringify(node.widgets_values ?? []).includes('%date:yyyy%'))")
        return queued, {node["type"] for node in kept}

    queued, kept = in_page(running, mode, visit)
    names = {node["class_type"]: node["inputs"]["filename_prefix"] for node in queued.values() if "filename_prefix" in node["inputs"]}
    assert names == dict.fromkeys(("SaveImage", "FVRRestoreVideo", "FVRSaveVideoFrames"), f"{time.localtime().tm_year}/vp9_%width%")
    assert kept == set(names)


def test_workflows_from_before_a_widget_was_added_still_open(running):
    """Values are saved by position, and the upload button's came after the last widget of the time; Restore Video had 17."""
    graph = json.loads((FOLDER / "start_here.json").read_text(encoding="utf-8"))
    node = next(node for node in graph["nodes"] if node["type"] == "FVRRestoreVideo")
    del node["widgets_values_named"]
    now = [value for value in node["widgets_values"] if value != "image"]

    def visit(page: Any) -> list[dict[str, Any]]:
        queued = []
        for count in range(17, len(now) + 1):
            node["widgets_values"] = [*now[:count], "image"]
            page.evaluate(OPEN, graph)
            (only,) = page.evaluate("async () => Object.values((await app.graphToPrompt()).output)")
            queued.append(only["inputs"])
        return queued

    *before, today = in_page(running, "classic", visit)
    assert len(before) > 5 and all(one == today for one in before), [one for one in before if one != today][:1]


@pytest.mark.parametrize("mode", MODES)
def test_a_page_in_chinese(mode, running, tmp_path):
    """Titles, the note that is open, and the words of our own button."""
    graph = json.loads((FOLDER / "start_here.json").read_text(encoding="utf-8"))

    def visit(page: Any) -> Any:
        page.evaluate(OPEN, graph)
        page.wait_for_timeout(1000)
        page.screenshot(path=str(tmp_path / f"{mode}-chinese.png"))
        return page.evaluate("""() => [app.graph.nodes.map((node) => [node.title, Boolean(node.flags.collapsed)]),
          app.graph.nodes[0].widgets.find((widget) => widget.name === 'fvr_more')?.label]""")

    titles, more = in_page(running, mode, visit, language="zh")
    in_page(running, mode, lambda page: None)  # for those who come after
    assert titles == [["修复一段视频中的人脸", False], ["English: start here", True], ["中文说明", False]] and more == "更多设置"


@pytest.mark.parametrize("mode", MODES)
def test_two_clips_play_together_under_a_line(mode, running, clips, tmp_path):
    """Compare Videos: the line follows the pointer, scrubbing moves both clips, and they stay together while they play."""
    (running.base / "input" / "heard.mp4").write_bytes(clips["heard"])
    nodes = [("load", "FVRLoadVideoFrames", {"file": "heard.mp4"}), ("compare", "FVRCompareVideos", {}), ("show", "PreviewImage", {})]
    wires = [("load", 0, "compare", "a"), ("load", 0, "compare", "b"), ("load", 1, "compare", "times"), ("compare", 0, "show", "images")]

    def visit(page: Any) -> list[Any]:
        page.evaluate("async () => await app.refreshComboInNodes()")
        build(page, nodes, wires)
        entry = run(running, page)
        assert page.evaluate("() => Object.keys(app.nodePreviewImages)") == [], "a picture of the run lies under the clips, over the next node"
        page.wait_for_function(f"() => ({CLIPS})().every((clip) => clip[1] > 0)")
        shares = wiped(page, COMPARE)
        bar = page.locator(f"{COMPARE} input[type=range]")
        box = bar.bounding_box()
        page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_timeout(500)
        scrubbed = page.evaluate(CLIPS)
        sound, play = page.locator(f"{COMPARE} button").last, page.locator(f"{COMPARE} button").first
        sound.click()
        play.click()
        page.wait_for_timeout(700)
        playing = page.evaluate(CLIPS)
        page.screenshot(path=str(tmp_path / f"{mode}-wipe.png"))
        play.click()
        page.wait_for_timeout(300)
        return [entry, shares, scrubbed, playing, page.evaluate(CLIPS)]

    entry, shares, scrubbed, playing, paused = in_page(running, mode, visit)
    assert entry["status"]["status_str"] == "success"
    assert shares == pytest.approx([0.1, 0.5, 0.9], abs=0.02)
    for clip in scrubbed:
        assert clip[0] == pytest.approx(clip[1] / 2, abs=0.15 * clip[1]) and clip[2:] == [True, True]
    (a, b) = playing
    assert not a[2] and not b[2] and abs(a[0] - b[0]) < 0.15 and {a[3], b[3]} == {True, False}, "one of the two is heard"
    assert paused[0][2] and paused[1][2] and abs(paused[0][0] - paused[1][0]) < 0.05
