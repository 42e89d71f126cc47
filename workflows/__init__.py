"""The bundled example workflows: page format here, API format in `api/`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def bundled(name: str | Path) -> Path:
    """The file itself if it exists, else the bundled API workflow of that name, with or without ".json".

    Raises:
        FileNotFoundError: naming the workflows there are.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = FOLDER / "api" / f"{path.stem}.json"
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in (FOLDER / "api").glob("*.json")))
    raise FileNotFoundError(f"no workflow file {name}, and none of that name is bundled; bundled are: {names}")
