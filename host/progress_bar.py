"""Progress bars and previews; ticking one is also what makes a loop interruptible."""

from __future__ import annotations

import base64
import io
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from . import comfyui, signals
from .folders import user_message

if TYPE_CHECKING:
    import torch


LOG_SECONDS = 60.0
"""Seconds between progress lines in a log (nohup, cluster)."""


class Interrupted(KeyboardInterrupt):
    """Raised by `check_interrupt` outside ComfyUI after `interrupt()`; like Ctrl-C, no `except Exception` swallows it."""


class Tick(Protocol):
    """`n` more units are done; `preview` is a frame (3, H, W) in [0, 1] to show, or None. Raises if the user asked to stop."""

    def __call__(self, n: int = 1, preview: torch.Tensor | None = None) -> None: ...


def check_interrupt() -> None:
    """Raises the host's interrupt exception when the user asked to stop; call it between units of work."""
    if signals.requested.is_set():
        raise Interrupted("stopped on request")
    if comfyui.inside_comfyui():
        comfyui.model_management().throw_exception_if_processing_interrupted()


def interrupt() -> None:
    """Asks the work in progress to stop at its next check_interrupt; for signal handlers and other threads."""
    signals.requested.set()


def clear_interrupt() -> None:
    """Clears a request to stop, before new work."""
    signals.requested.clear()


CHECK_INTERVAL = 0.1
"""Seconds between checks for an interrupt while networks run."""


@contextmanager
def interrupts_between_layers() -> Iterator[None]:
    """Inside, the layers of every network that this thread runs call `check_interrupt`: one pass of a large network takes many seconds on a CPU.

    It is a global hook on all modules, since networks may come from other packages and be nested in restorers in unknown ways.
    """
    import torch
    from torch.nn.modules.module import register_module_forward_hook

    thread, last = threading.get_ident(), [0.0]

    def beat(*layer: Any) -> None:
        if torch.compiler.is_compiling() or threading.get_ident() != thread or time.monotonic() - last[0] < CHECK_INTERVAL:
            return
        last[0] = time.monotonic()
        check_interrupt()

    hook = register_module_forward_hook(beat)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def progress(total: int | None, desc: str = "", initial: int = 0) -> Iterator[Tick]:
    """A progress bar over `total` units (0 or None: unknown), which also makes a loop interruptible, even between a network's layers.

    `initial` units are already done; the time left ignores them.

    In ComfyUI the running node's bar, with `preview` shown on it; elsewhere tqdm on stderr, or a line every LOG_SECONDS in a log.
    """
    check_interrupt()
    with interrupts_between_layers(), _bar(total, desc, initial) as tick:
        yield tick


@contextmanager
def _bar(total: int | None, desc: str, initial: int) -> Iterator[Tick]:
    if comfyui.inside_comfyui():
        comfyui.model_management()
        from comfy.utils import ProgressBar

        bar = ProgressBar(max(total or 0, 1))
        bar.current = initial
        shown = [0.0]

        def tick(n: int = 1, preview: torch.Tensor | None = None) -> None:
            picture = None
            if preview is not None and time.monotonic() - shown[0] > 0.25:
                shown[0] = time.monotonic()
                picture = ("JPEG", _to_pil(preview), 512)
            bar.update_absolute(bar.current + n, preview=picture)
            check_interrupt()

        yield tick
        return

    from tqdm import tqdm

    done, said = initial, time.monotonic()
    with tqdm(total=total or None, initial=initial, desc=desc or None, file=sys.stderr, disable=None) as line:

        def tick(n: int = 1, preview: torch.Tensor | None = None) -> None:
            nonlocal done, said
            line.update(n)
            done += n
            if line.disable and time.monotonic() - said > LOG_SECONDS:
                said = time.monotonic()
                say(f"{desc or 'done'}: {done:,}{f' of {total:,}' if total else ''}")
            check_interrupt()

        yield tick


def on_page() -> bool:
    """Whether a node's `ui` is shown on ComfyUI's page, not only returned to the caller."""
    return comfyui.inside_comfyui() and getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None) is not None


def show_work(text: str, picture: torch.Tensor | None = None) -> None:
    """Shows the progress of the running node on the page that queued it (web/compare.js); elsewhere does nothing, as the bar suffices.

    picture: (3, H, W) in [0, 1]. ComfyUI's own preview would stay in place of the clip the node shows at the end.
    """
    if not on_page() or (context := comfyui.comfy("comfy_execution.utils").get_executing_context()) is None:
        return
    server = sys.modules["server"].PromptServer.instance
    if server.client_id is None:  # queued by a program: sent to nobody, it would reach every page, whose nodes have the same numbers
        return
    said = {"node": context.node_id, "text": text}
    if picture is not None:
        held = io.BytesIO()
        _to_pil(picture).save(held, "JPEG", quality=80)
        said["picture"] = "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()
    server.send_sync("fvr.work", said, server.client_id)


def say(text: str) -> None:
    """Shows a line while a node runs: on the node inside ComfyUI's server, on stderr elsewhere."""
    if on_page():
        text = user_message(text)
        context = comfyui.comfy("comfy_execution.utils").get_executing_context()
        if context is not None:
            sys.modules["server"].PromptServer.instance.send_progress_text(text, context.node_id)
    logging.getLogger("fvr").info(text)
    if not comfyui.inside_comfyui():
        print(text, file=sys.stderr)  # noqa: T201


def _to_pil(frame: torch.Tensor) -> Any:
    import torch
    from PIL import Image

    pixels = frame.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
