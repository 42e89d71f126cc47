"""The headless runner of ComfyUI's API-format prompts: load, override, validate, run.

A prompt is {node id: {"class_type": ..., "inputs": {name: value or [node id, output index]}, "_meta": {"title": ...}}}.
"""

from __future__ import annotations

from .graph_load import apply_overrides, load_prompt
from .graph_run import NodeFailed, NodeStep, PromptRefused, RunResult, run_prompt
from .graph_validate import NodeError, validate

__all__ = ["NodeError", "NodeFailed", "NodeStep", "PromptRefused", "RunResult", "apply_overrides", "load_prompt", "run_prompt", "validate"]
