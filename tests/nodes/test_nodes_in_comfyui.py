"""Our own nodes as ComfyUI publishes them, against what they publish without it; wherever COMFYUI_PATH says there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fvr.nodes import NODES

COMFYUI = os.environ.get("COMFYUI_PATH")
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from fvr import host
from fvr.nodes import NODES
with host.workspace(input=sys.argv[2]):
    print(json.dumps({node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in NODES}))
"""


@pytest.mark.skipif(not COMFYUI or not (Path(COMFYUI) / "comfy_api").is_dir(), reason="COMFYUI_PATH names no ComfyUI tree")
def test_every_node_looks_the_same_in_comfyui(tmp_path):
    from fvr import host

    done = subprocess.run([sys.executable, "-c", PROGRAM, COMFYUI, str(tmp_path)], capture_output=True, text=True, cwd=COMFYUI, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    with host.workspace(input=tmp_path):
        ours = json.loads(json.dumps({node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in NODES}))
    assert {name: {key: theirs[name][key] for key in info} for name, info in ours.items()} == ours
