"""Help pages: one for every node, which explains every input and output by the name that the page shows, with pictures that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fvr.nodes import NODES
from fvr.nodes.page.locales import input_texts, socket_texts

FOLDER = Path(__file__).resolve().parents[2] / "web" / "docs"
SCHEMAS = [node.define_schema() for node in NODES]
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)]+)\)")
MOST_BYTES = 120_000
MAGIC = {".jpg": b"\xff\xd8\xff", ".png": b"\x89PNG\r\n\x1a\n"}


def page(node_id: str) -> str:
    return (FOLDER / f"{node_id}.md").read_text(encoding="utf-8")


def explained(text: str) -> set[str]:
    """What a page says in code type."""
    return set(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.node_id)
def test_a_page_explains_every_input_and_output(schema):
    text = page(schema.node_id)
    assert text.startswith(f"# {schema.display_name}\n")
    names = {texts["name"] for texts in input_texts(schema).values()} | {socket_texts(output)["name"] for output in schema.outputs}
    assert names <= explained(text), f"{schema.node_id}.md does not say what {', '.join(sorted(names - explained(text)))} is"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.node_id)
def test_a_page_says_what_goes_wrong_and_what_it_costs(schema):
    text = page(schema.node_id).lower()
    for heading in ("\n## inputs", "\n## outputs", "\n## cost", "\n## when something is missing or wrong"):
        assert heading in text, f"{schema.node_id}.md has no heading{heading.strip()!r}"
    assert "licence" in text


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.node_id)
def test_pictures_are_there_and_small(schema):
    pictures = IMAGE.findall(page(schema.node_id))
    assert pictures, f"{schema.node_id}.md shows no picture"
    for words, name in pictures:
        file = FOLDER / name
        assert words, f"{name} in {schema.node_id}.md has no words for those who cannot see it"
        assert file.read_bytes().startswith(MAGIC[file.suffix])
        assert file.stat().st_size <= MOST_BYTES, f"{name} is larger than {MOST_BYTES} bytes"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.node_id)
def test_chinese_pages_say_what_english_ones_do(schema):
    """Where the page looks for them, with its Chinese names and the same pictures; a licence is named in every one."""
    texts = json.loads((FOLDER.parents[1] / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))[schema.node_id]
    text = (FOLDER / schema.node_id / "zh.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {texts['display_name']}\n")
    names = {shown["name"] for shown in [*texts["inputs"].values(), *texts["outputs"].values()]}
    assert names <= explained(text), f"{schema.node_id}/zh.md does not say what {', '.join(sorted(names - explained(text)))} is"
    assert [name for _, name in IMAGE.findall(text)] == [name for _, name in IMAGE.findall(page(schema.node_id))]
    for heading in ("\n## 输入", "\n## 输出", "\n## 开销", "\n## 缺少或出错时", "许可证"):
        assert heading in text, f"{schema.node_id}/zh.md has no {heading.strip()}"
    assert not LINK.findall(text)


def test_no_page_without_a_node_and_no_picture_without_a_page():
    pages = {file.stem for file in FOLDER.glob("*.md")}
    assert pages == {schema.node_id for schema in SCHEMAS}
    assert {file.relative_to(FOLDER).as_posix() for file in FOLDER.glob("*/*.md")} == {f"{node_id}/zh.md" for node_id in pages}
    used = {(FOLDER / name).resolve() for page_id in pages for _, name in IMAGE.findall(page(page_id))}
    there = {file.resolve() for file in FOLDER.rglob("*") if file.is_file() and file.suffix != ".md"}
    assert there == used


def test_links_lead_out():
    """ComfyUI's help panel opens links as they are written, so a path of ours would lead nowhere."""
    for file in FOLDER.glob("*.md"):
        for target in LINK.findall(file.read_text(encoding="utf-8")):
            assert target.startswith("https://"), f"{file.name} links to {target}"


RANGE = re.compile(r"^ *- \*\*`([^`]+)`\*\* \([^)]*?(?:(-1), or )?(-?[\d.,]*\d) to ([\d.,]*\d)(?:[^)]* or (-1))?", re.MULTILINE)
"""What a page says of a number: `name` (unit, low to high), with a -1 of its own before or behind."""


def numbers_of(inputs):
    """(least, greatest) that the widgets allow, by name, those of every choice too."""
    for one in inputs:
        if hasattr(one, "min") and one.min is not None and one.max is not None:
            yield one.id, (one.min, one.max)
        for option in getattr(one, "options", None) or ():
            yield from numbers_of(getattr(option, "inputs", ()))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.node_id)
def test_ranges_on_a_page_are_the_widgets(schema):
    """Which have them from `options.py`'s fields."""
    widgets = dict(numbers_of(schema.inputs))
    for name, before, low, high, behind in RANGE.findall(page(schema.node_id)):
        said = float(before or behind or low.replace(",", "")), float(high.replace(",", ""))
        assert said == widgets[name], f"{schema.node_id}.md says {said} of {name}, and the widget takes {widgets[name]}"
