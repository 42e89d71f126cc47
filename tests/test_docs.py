"""What the pages under docs/ name is there, and the examples in the docstrings run."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import fvr

ROOT = Path(__file__).resolve().parents[1]
PAPERS = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("papers.md", "measure.md"))
PACKAGE = Path(fvr.__file__).parent
EXAMPLES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
    for path in (*PACKAGE.glob("*.py"), *PACKAGE.glob("[a-z]*/**/*.py"))
    if path.relative_to(PACKAGE).parts[0] not in ("tests", "benchmarks", "tools", "build") and ">>> " in path.read_text(encoding="utf-8")
)
"""Modules whose docstrings hold examples."""


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`([a-z_.]+:\w+)`", PAPERS))))
def test_functions_of_the_papers_exist(named):
    module, name = named.split(":")
    assert hasattr(importlib.import_module(f"fvr.{module}"), name)


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAPERS))))
def test_tests_of_the_papers_exist(named):
    path, _, name = named.partition("::")
    assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8")


def test_links_of_the_pages_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_run(module):
    done = doctest.testmod(importlib.import_module(f"fvr.{module}"), optionflags=doctest.ELLIPSIS)
    assert done.attempted and not done.failed


def test_rooms_that_people_call_have_examples():
    assert {name.partition(".")[0] for name in EXAMPLES} >= {"physics", "diffusion", "priors", "metrics", "pipeline", "options"}
