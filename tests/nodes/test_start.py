"""What ComfyUI waits for when it starts: importing the nodes brings in nothing large that they may never use."""

from __future__ import annotations

import subprocess
import sys

LARGE = ("torchvision", "scipy", "skimage", "sympy", "matplotlib", "spandrel", "facenet_pytorch", "lpips", "ray", "torch._dynamo", "torch._inductor")

OURS = (
    "training.engine", "finetune.run", "metrics.evaluate", "film.run", "methods.pseudo_target.generate",
    "models.keep.network", "models.codeformer.network", "models.flair.unet", "models.gmflow",
)  # fmt: skip
"""What only some runs need: compiled when the nodes are imported, it doubled what ComfyUI waits for."""

PROGRAM = """
import asyncio, sys
import torch
before = set(sys.modules)
import fvr

async def nodes():
    return await (await fvr.comfy_entrypoint()).get_node_list()

found = asyncio.run(nodes())
for node in found:
    node.define_schema()
assert len(found) > 20
print(*sorted(name for name in sys.modules if name in {large!r} and name not in before))
"""


def test_no_large_package_is_imported_with_the_nodes():
    """torchvision alone, which brings the compiler of PyTorch, took two seconds."""
    command = [sys.executable, "-c", PROGRAM.format(large=(*LARGE, *(f"fvr.{name}" for name in OURS)))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
