"""Translations: English repeats the schemas, Chinese in both scripts says all that English says, and the page can read them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fvr.nodes import NODES
from fvr.nodes.page.locales import english

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "locales"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
CORE_CATEGORIES = {"video", "training"}
"""Parts of our categories that ComfyUI's own page translates."""
COMFYUI = os.environ.get("COMFYUI_PATH")
every_chinese = pytest.mark.parametrize("language", ["zh", "zh-TW"])


def texts(language: str, file: str) -> dict[str, Any]:
    return json.loads((FOLDER / language / file).read_text(encoding="utf-8"))


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, text) of everything in a nested dict."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def test_english_is_what_the_schemas_say():
    assert texts("en", "nodeDefs.json") == english(), "run: python -m fvr.nodes.page.locales"


@every_chinese
@pytest.mark.parametrize("file", ["nodeDefs.json", "main.json"])
def test_chinese_covers_exactly_what_english_has(file, language):
    theirs, ours = dict(leaves(texts("en", file))), dict(leaves(texts(language, file)))
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("file", ["nodeDefs.json", "main.json"])
def test_both_scripts_say_the_same(file):
    """Traditional characters only, those of Big5, and the same numbers, names and option values."""
    simplified, traditional = dict(leaves(texts("zh", file))), dict(leaves(texts("zh-TW", file)))
    for path, text in traditional.items():
        "".join(CHINESE.findall(text)).encode("big5")
        assert re.findall("[!-~]+", text) == re.findall("[!-~]+", simplified[path]), path


@every_chinese
def test_every_sentence_is_chinese(language):
    """Names may be symbols (w, zeta); what explains them may not stay English."""
    for path, text in leaves(texts(language, "nodeDefs.json")):
        assert text, path
        if path[-1] != "name":
            assert CHINESE.search(text), f"{'.'.join(path)} is not translated: {text}"


@pytest.mark.parametrize("language", ["en", "zh", "zh-TW"])
def test_the_page_shows_texts_as_they_are(language):
    """Names and descriptions go through the page's message format, in which these characters mean something else."""
    for path, text in leaves(texts(language, "nodeDefs.json")):
        if path[-1] != "tooltip":
            assert not set(text) & set("{}@|"), f"{'.'.join(path)}: {text}"


def test_combos_that_reveal_inputs_say_what_belongs_to_which_option():
    inputs = texts("en", "nodeDefs.json")["FVRDegrade"]["inputs"]
    assert inputs["kind_sigma"]["name"] == "sigma"
    assert inputs["kind_sigma"]["tooltip"].startswith("gaussian_blur: ")
    assert "noise: " in inputs["kind_sigma"]["tooltip"]
    assert inputs["kind_iso"]["tooltip"].startswith("Sensitivity")


NAMES = {"KEEP", "DicFace", "CodeFormer", "SeedVR2", "中文说明"}
"""Titles of nodes that are the same in every language."""


def test_titles_of_workflows_and_words_of_our_buttons_are_translated():
    """What web/words.js looks up is there, and nothing else."""
    graphs = [json.loads(path.read_text(encoding="utf-8")) for name in ("workflows", "subgraphs") for path in (ROOT / name).glob("*.json")]
    inside = [one for graph in graphs for one in (graph.get("definitions") or {}).get("subgraphs", [])]
    titles = {node["title"] for graph in (*graphs, *inside) for node in graph["nodes"] if node.get("title")}
    said = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "web").glob("*.js"))
    words = {text for call in re.findall(r"\bword\(([^;]*?)\)", said) for text in re.findall('"([^"]+)"', call)}
    english, chinese, traditional = (texts(language, "main.json")["faceVideo"] for language in ("en", "zh", "zh-TW"))
    assert set(english["titles"]) == titles - NAMES and set(english["page"]) == words
    assert all(theirs == text for part in english.values() for text, theirs in part.items())
    for text, theirs in (pair for one in (chinese, traditional) for part in one.values() for pair in part.items()):
        assert CHINESE.search(theirs) or theirs == f"English: {text[0].lower()}{text[1:]}", f"{text} is not translated"


@every_chinese
def test_every_category_has_a_name(language):
    parts = {part for node in NODES for part in node.define_schema().category.split("/")}
    assert parts - CORE_CATEGORIES <= set(texts(language, "main.json")["nodeCategories"])


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import folder_paths
folder_paths.folder_names_and_paths["custom_nodes"] = ([sys.argv[2]], set())
from app.custom_node_manager import CustomNodeManager
print(json.dumps(CustomNodeManager().build_translations()))
"""


@pytest.mark.skipif(not COMFYUI or not (Path(COMFYUI) / "app").is_dir(), reason="COMFYUI_PATH names no ComfyUI tree")
def test_comfyui_finds_every_language(tmp_path):
    (tmp_path / "face-video-restoration").symlink_to(ROOT, target_is_directory=True)
    done = subprocess.run([sys.executable, "-c", PROGRAM, COMFYUI, str(tmp_path)], capture_output=True, text=True, cwd=COMFYUI, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for language in ("en", "zh", "zh-TW"):
        assert found[language] == {**texts(language, "main.json"), "nodeDefs": texts(language, "nodeDefs.json")}
