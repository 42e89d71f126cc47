"""The headless runner of ComfyUI's API-format prompts: load, override, validate, run.

A prompt is {node id: {"class_type": ..., "inputs": {name: value or [node id, output index]}, "_meta": {"title": ...}}}.
"""

from __future__ import annotations

from .executor import NodeFailed, NodeStep, PromptRefused, RunResult, run_prompt
from .prompt import apply_overrides, load_prompt
from .validation import NodeError, validate
