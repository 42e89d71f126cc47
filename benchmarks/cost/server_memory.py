"""Resident memory of a running ComfyUI after each of 20 prompts: python benchmarks/cost/server_memory.py http://127.0.0.1:8188 PID CLIP WORKFLOW...

CLIP lies in its input folder; WORKFLOW is one of workflows/api without .json. Every prompt has a seed of its own, so that nothing comes from the
cache; /history is asked as a script would.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

from fvr.workflows import FOLDER

PROMPTS = 20


def asked(address: str, content: object = None) -> dict:
    data = None if content is None else json.dumps(content).encode()
    with urlopen(Request(address, data, {"Content-Type": "application/json"}), timeout=60) as answer:
        return json.loads(answer.read())


def resident(pid: str) -> float:
    """MB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def main(server: str, pid: str, clip: str, *names: str) -> None:
    for name in names:
        prompt = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
        held = []
        for number in range(PROMPTS):
            for node in prompt.values():
                node["inputs"].update({key: value for key, value in (("file", clip), ("seed", number)) if key in node["inputs"]})
            key = asked(f"{server}/prompt", {"prompt": prompt})["prompt_id"]
            while not (entry := asked(f"{server}/history/{key}").get(key)):
                time.sleep(0.1)
            assert entry["status"]["status_str"] == "success", entry["status"]
            held.append(resident(pid))
        print(f"{name}: MB after prompt 1, 2, 5, 10, 15, 20: {', '.join(f'{held[n - 1]:.0f}' for n in (1, 2, 5, 10, 15, 20))}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
