"""What pip and ComfyUI's manager install is one list, and pip ships every room."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def listed(name: str) -> list[str]:
    """The strings of an array in pyproject.toml."""
    body = re.search(rf"^{name} = \[(.*?)\]", PROJECT, re.MULTILINE | re.DOTALL)
    assert body is not None
    return re.findall(r'"([^"]+)"', body[1])


def test_requirements_are_the_dependencies():
    assert (ROOT / "requirements.txt").read_text(encoding="utf-8").split() == listed("dependencies")


def test_no_pins_on_what_comfyui_brings():
    for requirement in listed("dependencies"):
        assert not re.match(r"(torch|torchvision|numpy)\b.*[=<>~]", requirement)


def test_every_package_is_shipped():
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("*/**/__init__.py") if path.parts[len(ROOT.parts)][0] != "."}
    rooms = {".".join(("fvr", *folder.parts)) for folder in folders if folder.parts[0] not in ("build", "dist", "tests")}
    assert rooms | {"fvr", "fvr.workflows.api"} == set(listed("packages"))
