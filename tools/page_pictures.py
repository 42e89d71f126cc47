"""The pictures of the page: thumbnails of the workflows and graph_*.jpg of the help pages, cut out of screenshots.

    FVR_SCREENSHOTS=SHOTS pytest tests/test_workflows_in_comfyui.py
    python tools/page_pictures.py SHOTS [--results FOLDER]

SHOTS holds 1920 x 1080 pictures of the pages after Fit View, named after them; FOLDER may hold a picture NAME.png of what came out of a
workflow, which is put below its graph.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS, PICTURES = ROOT / "workflows", ROOT / "web" / "docs" / "pictures"
WIDTH, HEIGHT = 1920, 1080
FILLED = 0.75 * WIDTH, 0.75 * HEIGHT
"""What Fit View fills of the screen, around its middle."""
MARGIN, TITLE = 10, 30
TALLEST = 0.75
"""Of a thumbnail's graph, in widths."""
GRAPHS = {
    "graph_keep": ("keep_two_people", {"FVRFaceAlign", "FVRKeepPropagate", "FVRPasteBack", "FVRLoadFaceRestorer"}),
    "graph_restore": ("codeformer_still", {"FVRFaceAlign", "FVRRestoreFaces", "FVRPasteBack", "FVRLoadFaceRestorer"}),
    "graph_dicface": ("dicface_inpaint", {"FVRFaceAlign", "FVRDicFaceRestore", "FVRPasteBack", "FVRLoadFaceRestorer", "LoadImage"}),
}
"""Of a help page's picture: the workflow and the nodes of it that are shown."""


def bounds(nodes: list[dict[str, Any]]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of nodes with their titles."""
    boxes = [(*node["pos"], *node["size"]) for node in nodes]
    return min(x for x, *_ in boxes), min(y for _, y, *_ in boxes) - TITLE, max(x + w for x, _, w, _ in boxes), max(y + h for _, y, _, h in boxes)


def shown(page: dict[str, Any], screenshot: Image.Image, types: set[str] | None = None) -> Image.Image:
    """The part of a screenshot that shows a page's nodes, or those of some types."""
    left, top, right, bottom = bounds(page["nodes"])
    scale = min(FILLED[0] / (right - left + 2 * MARGIN), FILLED[1] / (bottom - top + 2 * MARGIN))
    middle = (left + right) / 2, (top + bottom) / 2
    a, b, c, d = bounds([node for node in page["nodes"] if types is None or node["type"] in types])
    (x0, y0), (x1, y1) = (
        (WIDTH / 2 + (x - middle[0]) * scale, HEIGHT / 2 + (y - middle[1]) * scale)
        for x, y in ((a - 2 * MARGIN, b - 3 * MARGIN), (c + 2 * MARGIN, d + 2 * MARGIN))
    )
    return screenshot.crop((round(x0), round(y0), round(x1), round(y1)))


def thumbnail(graph: Image.Image, result: Image.Image | None, width: int = 800) -> Image.Image:
    """The graph, and what came out of it below."""
    graph.thumbnail((width, round(TALLEST * width)), Image.Resampling.LANCZOS)
    if result is None:
        return graph
    result = result.convert("RGB")
    result.thumbnail((width, width), Image.Resampling.LANCZOS)
    size = max(graph.width, result.width), graph.height + result.height
    both = Image.new("RGB", size, graph.getpixel((1, 1)))
    both.paste(graph, ((size[0] - graph.width) // 2, 0))
    both.paste(result, ((size[0] - result.width) // 2, graph.height))
    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("screenshots", type=Path)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()

    def cut(name: str, types: set[str] | None = None) -> Image.Image:
        page = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
        return shown(page, Image.open(options.screenshots / f"{name}.png").convert("RGB"), types)

    for path in sorted(WORKFLOWS.glob("*.json")):
        result = options.results and options.results / f"{path.stem}.png"
        thumbnail(cut(path.stem), Image.open(result) if result and result.is_file() else None).save(path.with_suffix(".jpg"), quality=88)
    for name, (workflow, types) in GRAPHS.items():
        graph = cut(workflow, types)
        graph.thumbnail((800, 800), Image.Resampling.LANCZOS)
        graph.save(PICTURES / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
