"""What README, help pages, notes of workflows and docs say: figures are those of the tables, and what a method does not do is said where it is
chosen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HELP = ROOT / "web" / "docs"
TABLES = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
NUMBER = r"\d+(?:\.\d+)?"
DECIBELS = re.compile(rf"({NUMBER})(?:(?:,? (?:to|and|against|instead of|with)|,| 对| 和)\s\+?-?({NUMBER}))*\s?dB")
"""Numbers before "dB", whole chains of them: "27.31 against 27.23 dB"."""
WITH_UNIT = re.compile(rf"({NUMBER})\s?(?:dB|%|GiB|MiB|MB|GB|CPU|秒|毫秒)")


def said(path: Path) -> str:
    """The text of a page; of a workflow, its notes."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        text = "\n".join(str(node["widgets_values"]) for node in json.loads(text)["nodes"] if "Note" in node["type"])
    return re.sub(r"\s+", " ", text)


PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(HELP.glob("*.md")),
    *sorted(HELP.glob("*/zh.md")),
    *sorted((ROOT / "workflows").glob("*.json")),
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_decibels_stand_in_a_table(path):
    """As they are or rounded; the paper's own figures are quoted in the tables, too."""
    known = set(re.findall(NUMBER, TABLES))
    for chain in DECIBELS.finditer(said(path)):
        for number in re.findall(NUMBER, chain.group()):
            places = len(number.partition(".")[2])
            near = (0.5 + 1e-6) * 10**-places
            assert any(abs(float(other) - float(number)) <= near for other in known), (
                f"{number} of {chain.group()!r} is in no table of benchmarks/README.md"
            )


@pytest.mark.parametrize("path", sorted(HELP.glob("*/zh.md")), ids=lambda path: path.parent.name)
def test_chinese_pages_have_the_figures_of_english_ones(path):
    english = set(re.findall(NUMBER, (HELP / f"{path.parent.name}.md").read_text(encoding="utf-8")))
    assert {found.group(1) for found in WITH_UNIT.finditer(said(path))} <= english


SAID = [
    (
        "web/docs/FVRLoadDiffusionPrior.md",
        "temporal layers, learnt in 70 steps, lower the warping error by 1 to 3 % (the paper's, in 75,000, by 55 %)",
    ),
    ("web/docs/FVRLoadDiffusionPrior/zh.md", "降低 1 到 3 %"),
    ("web/docs/FVRFlairSampler.md", "Data consistency raises the warping error: with the embedded prior in every row"),
    ("web/docs/FVRFlairSampler/zh.md", "数据一致性会提高扭曲误差"),
    (
        "web/docs/FVRFlairRestorer.md",
        "It raises the warping error, as what it brings back differs from frame to frame; `trust` 10 takes most of that back",
    ),
    ("web/docs/FVRFlairRestorer/zh.md", "`trust` 10"),
    ("web/docs/FVRDicFaceRestore.md", "With the embedded weights 0 stands for 0.1"),
    ("web/docs/FVRDicFaceRestore/zh.md", "用内嵌权重时 0 相当于 0.1"),
    ("README.md", "not yet measured with Stable Diffusion"),
    ("web/docs/FVRSeedMapOptimize.md", "not yet measured with real Stable Diffusion weights"),
    ("workflows/seed_map_sr_x4.json", "no more than bicubic enlargement gives"),
    ("workflows/dicface_inpaint.json", "draws no hidden eye"),
]


@pytest.mark.parametrize(("path", "words"), SAID, ids=lambda value: value[:40])
def test_what_a_method_does_not_do_is_said_where_it_is_chosen(path, words):
    assert words in said(ROOT / path)


def test_no_page_calls_a_method_the_steadiest():
    assert not [path.name for path in PAGES if "steadiest" in said(path).lower()]


ASKED = ("PSNR", "SSIM", "LPIPS", "E_warp", "E*warp", "VIDD", "TLME", "IDS", "AKD", "sigma IDS", "sigma AKD", "FVD", "FID", "KID", "MUSIQ", "MANIQA")


@pytest.mark.parametrize("name", ASKED)
def test_every_measure_of_the_papers_has_its_row(name):
    """Name, definition, source, ours, what differs."""
    rows = [line.strip("|").split("|") for line in (ROOT / "docs" / "measure.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    mine = [row for row in rows if name in re.split(r", (?:also )?", row[0].strip())]
    assert len(mine) == 1 and len(mine[0]) == 5
    _, definition, source, ours, difference = (cell.strip() for cell in mine[0])
    assert definition and ours and (source or ours == "not computed") and (difference or source)
