"""Networks compiled by torch.compile while they run, and uncompiled again where that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .device import out_of_memory


def compile_parts(networks: Iterable[nn.Module], say: Callable[[str], object], backend: Any = "inductor") -> None:
    """Compiles the parts of networks when they run for the second time; in the first run their output is checked by hooks (`check_first_output`).

    Networks are compiled in parts, since sessions call these; on CUDA they become graphs. If compiling fails, all parts run uncompiled, and `say` is
    called once.
    """
    attempt = Attempt(say, backend)
    for network in networks:
        for part in network.children():
            part._compiled_call_impl = Compiled(part, attempt)


class Attempt:
    """State shared by the parts of some networks: whether compiling has worked so far."""

    def __init__(self, say: Callable[[str], object], backend: Any) -> None:
        self.say, self.backend = say, backend
        self.failed = False

    def fails(self, part: nn.Module, error: Exception) -> None:
        if not self.failed:
            self.failed = True
            cause = getattr(error, "inner_exception", error)  # of PyTorch's own, which quote it in their second line
            reason = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
            self.say(f"warning: torch.compile failed on {type(part).__name__} ({reason}); the networks run uncompiled, with the same result")


class Compiled:
    """Calls a part: uncompiled the first time, compiled afterwards, and uncompiled again once compiling has failed."""

    def __init__(self, part: nn.Module, attempt: Attempt) -> None:
        self.part, self.attempt = part, attempt
        self.seen = False
        self.call: Callable[..., Any] | None = None
        self.graphs = False

    def __call__(self, *given: Any, **named: Any) -> Any:
        if self.attempt.failed or not self.seen:
            self.seen = True
            return self.part._call_impl(*given, **named)
        try:
            return self._compiled(*given, **named)
        except Exception as error:
            if out_of_memory(error):
                raise
            result = self.part._call_impl(*given, **named)  # raises what is not the compiler's fault
            self.attempt.fails(self.part, error)
            return result

    def _compiled(self, *given: Any, **named: Any) -> Any:
        if self.call is None:
            self.graphs = any(leaf.is_cuda for leaf in tree_leaves((given, named)) if isinstance(leaf, Tensor))
            self.call = torch.compile(self.part._call_impl, backend=self.attempt.backend, mode="reduce-overhead" if self.graphs else None)
        if not self.graphs:
            return self.call(*given, **named)
        torch.compiler.cudagraph_mark_step_begin()
        made = self.call(*given, **named)
        return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, made)  # the graph's next run writes into its own
