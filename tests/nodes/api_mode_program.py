"""Validates and runs prompts as ComfyUI's server does, in FOLDER; test_api_mode.py reads the answers.

Finds FOLDER as a variable, and in its prompts.json: prompts to validate only, one to run twice, prompts that fail while running, and
prompts to run with what the page sends along.
"""

# ruff: noqa: E402, F821

import asyncio
import json
import sys
import types
from pathlib import Path

from comfy.cli_args import args

args.cpu = True
import folder_paths

for kind in ("input", "output", "temp"):
    getattr(folder_paths, f"set_{kind}_directory")(f"{FOLDER}/{kind}")
try:
    import execution

    import nodes
except (ImportError, OSError, RuntimeError) as error:  # as with a torchaudio of another CUDA build than torch
    sys.stdout.write(json.dumps(f"{type(error).__name__}: {error}"))
    sys.exit()
from fvr.nodes import FaceVideoRestoration

for node in asyncio.run(FaceVideoRestoration().get_node_list()):
    nodes.NODE_CLASS_MAPPINGS[node.GET_SCHEMA().node_id] = node
from comfy_extras.nodes_video import CreateVideo
from helpers.sample_nodes import clip_name

from fvr import host
from fvr.headless.io import io

nodes.NODE_CLASS_MAPPINGS |= {"TName": clip_name(io), "CreateVideo": CreateVideo}
for name in ("TName", "CreateVideo"):
    nodes.NODE_CLASS_MAPPINGS[name].GET_SCHEMA()
server = types.SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *a: None, prompt_queue=None)
executor = execution.PromptExecutor(server, execution.CacheType.CLASSIC, {"ram": 0, "ram_inactive": 0, "lru": 0})


def validated(prompt):
    return asyncio.run(execution.validate_prompt("p", prompt, None))


def errors(prompt):
    """[node, type, input, all its words] of each."""
    found = validated(prompt)[3]
    return [
        [node, error["type"], error["extra_info"].get("input_name"), f"{error['message']}: {error['details']}"]
        for node, entry in found.items()
        for error in entry["errors"]
    ]


def run(prompt, extra=None):
    fine, error, outputs, node_errors = validated(prompt)
    assert fine and not node_errors, (error, node_errors)
    executor.execute(prompt, "p", extra or {}, outputs)
    failed = [message for event, message in executor.status_messages if event == "execution_error"]
    kinds, failures = ([message[name] for message in failed] for name in ("exception_type", "exception_message"))
    return {"outputs": executor.history_result["outputs"], "failures": failures, "kinds": kinds}


cases, prompt, failing, more = json.loads(Path(FOLDER, "prompts.json").read_text(encoding="utf-8"))
said = {"errors": [errors(case) for case in cases], "first": run(prompt), "second": run(prompt)}
said["failing"] = [[ran["failures"], ran["kinds"]] for ran in map(run, failing)]
said["more"] = [run(case, extra) for case, extra in more]
hidden = types.SimpleNamespace(prompt=prompt, extra_pnginfo=None)
said["tags"] = [sorted(host.graph_tags(hidden))]
args.disable_metadata = True
said["tags"].append(sorted(host.graph_tags(hidden)))
sys.stdout.write("\n" + json.dumps(said))
