"""The official KEEP, DicFace and CodeFormer against ours: python benchmarks/cost/peers.py --official DIR [--networks keep,codeformer] [--frames 3]

DIR holds checkouts of jnjaby/KEEP (with its submodule gmflow), sczhou/CodeFormer and fudan-generative-vision/DicFace under these names; nothing but
their networks is run. Both have the same deterministic weights, at the published sizes, in float32, and one runs after the other in this process,
as their scripts run them: KEEP a sub-clip at once, DicFace a window of five frames for every frame (with the mean of its distribution, so that both
draw the same), CodeFormer frame by frame; ours with the memory that is freed kept, as `fvr` keeps it. Memory is the peak over what the process had
before, with the weights of both. Each network has a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from flow_sources import clip
from torch import Tensor, nn

from fvr.cli.memory import keep_freed_memory
from fvr.methods.base import from_network, restore_frames
from fvr.methods.codeformer import CodeFormerOptions, CodeFormerRestorer
from fvr.methods.dicface import DicFaceRestorer
from fvr.methods.keep import KeepOptions, KeepRestorer
from fvr.models.codeformer.network import CodeFormer
from fvr.models.dicface.network import DicFace
from fvr.models.keep.network import KEEP

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from helpers.seeded_weights import seed_weights

LARGEST = 2e-3
"""Difference in [0, 1] between two pictures of the same network that is rounding: largest of KEEP's third frame."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--networks", default="codeformer,keep,dicface")
    parser.add_argument("--frames", type=int, default=3)
    options = parser.parse_args()
    name, *others = options.networks.split(",")
    if others:
        shared = "--official", str(options.official), "--frames", str(options.frames)
        codes = [subprocess.run([sys.executable, __file__, *shared, "--networks", each]).returncode for each in (name, *others)]
        return int(any(codes))  # negative for one that was killed
    print(f"{torch.get_num_threads()} threads, {options.frames} frames")
    with torch.inference_mode(), checkout(options.official / FOLDERS[name]):
        theirs, ours = PEERS[name](clip(options.frames))
        theirs_made, theirs_cost = measured(theirs)
        keep_freed_memory()
        ours_made, ours_cost = measured(ours)
        apart = float((theirs_made - ours_made).abs().max())
        told = "; ".join(
            f"{what} {a / n:.2f} against {b / n:.2f}, {a / b:.2f} times"
            for what, a, b, n in zip(("s", "CPU s", "MiB"), theirs_cost, ours_cost, (len(theirs_made),) * 2 + (1,), strict=True)
        )
        same = "equal" if apart < LARGEST else "NOT EQUAL"
        print(f"{name}, official against ours, a frame: {told}; largest difference {apart:.1e}, {same}", flush=True)
    return 0


FOLDERS = {"keep": "KEEP", "codeformer": "CodeFormer", "dicface": "DicFace"}


def measured(work: Callable[[], Tensor]) -> tuple[Tensor, tuple[float, float, float]]:
    """What `work` makes; seconds, CPU seconds, and MiB at most over what there was."""
    gc.collect()
    before = forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, (time.perf_counter() - wall, time.process_time() - cpu, peak() - before)


def forget_peak() -> float:
    """MiB of the process now, from which its peak is counted where the system allows."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> float:
    with suppress(OSError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- their side ---


@contextmanager
def checkout(folder: Path) -> Iterator[None]:
    """`basicsr` is the one of `folder`, of which only the networks' own files run; what else they import has stand-ins."""
    if not (folder / "basicsr" / "archs").is_dir():
        raise SystemExit(f"{folder} holds no basicsr/archs; clone the official repository there")
    stubs = {name: ModuleType(name) for name in ("basicsr", "basicsr.archs", "basicsr.utils", "basicsr.ops", "basicsr.ops.dcn", "diffusers")}
    stubs |= {name: ModuleType(name) for name in ("diffusers.models", "diffusers.models.attention")}
    if find_spec("distutils") is None:
        stubs |= {name: ModuleType(name) for name in ("distutils", "distutils.version")}
        put(stubs["distutils.version"], LooseVersion=str)
    for name, module in stubs.items():
        module.__path__ = [str(folder / name.replace(".", "/"))] if name.startswith("basicsr") else []
    stubs["basicsr.archs.pwcnet_arch"] = ModuleType("basicsr.archs.pwcnet_arch")  # KEEP's other flow, which needs CuPy
    put(stubs["basicsr.archs.pwcnet_arch"], FlowGenerator=None)
    put(stubs["basicsr.utils"], get_root_logger=lambda: None)
    put(stubs["basicsr.ops.dcn"], ModulatedDeformConvPack=nn.Module, modulated_deform_conv=None)
    put(stubs["diffusers.models.attention"], CrossAttention=CrossAttention, FeedForward=FeedForward, AdaLayerNorm=nn.LayerNorm)
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name in stubs or name.startswith("basicsr.")]:
            del sys.modules[name]


def put(module: ModuleType, **values: Any) -> None:
    for name, value in values.items():
        setattr(module, name, value)


class CrossAttention(nn.Module):
    """Multi-head attention with the parameter names and the interface that KEEP expects of diffusers 0.11."""

    def __init__(self, query_dim: int, heads: int = 8, dim_head: int = 64, dropout: float = 0.0, bias: bool = False, **_: Any) -> None:
        super().__init__()
        inner = heads * dim_head
        self.heads, self.scale = heads, dim_head**-0.5
        self.group_norm = self.added_kv_proj_dim = self._slice_size = None
        self._use_memory_efficient_attention_xformers = False
        self.to_q, self.to_k, self.to_v = (nn.Linear(query_dim, inner, bias=bias) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, query_dim), nn.Dropout(dropout)])

    def reshape_heads_to_batch_dim(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1)

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        scores = torch.baddbmm(query.new_empty(len(query), query.shape[1], key.shape[1]), query, key.mT, beta=0, alpha=self.scale)
        return (scores.softmax(-1) @ value).unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, context: Tensor | None = None, **_: Any) -> Tensor:
        context = x if context is None else context
        query, key, value = (self.reshape_heads_to_batch_dim(made) for made in (self.to_q(x), self.to_k(context), self.to_v(context)))
        return self.to_out[1](self.to_out[0](self._attention(query, key, value)))


class Gated(nn.Module):
    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, -1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """Of diffusers 0.11, with a gated GELU."""

    def __init__(self, dim: int, dropout: float = 0.0, **_: Any) -> None:
        super().__init__()
        self.net = nn.ModuleList([Gated(dim, 4 * dim), nn.Dropout(dropout), nn.Linear(4 * dim, dim)])

    def forward(self, x: Tensor) -> Tensor:
        for part in self.net:
            x = part(x)
        return x


class Mean:
    """A Dirichlet distribution whose draws are its mean."""

    def __init__(self, alpha: Tensor) -> None:
        self.alpha = alpha

    def rsample(self) -> Tensor:
        return self.alpha / self.alpha.sum(-1, keepdim=True)


# --- both sides ---

Works = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def codeformer(frames: Tensor) -> Works:
    theirs = seed_weights(
        import_module("basicsr.archs.codeformer_arch").CodeFormer(
            dim_embd=512, codebook_size=1024, n_head=8, n_layers=9, connect_list=["32", "64", "128", "256"]
        )
    )
    ours = CodeFormerRestorer(settled(CodeFormer.of(theirs.state_dict())), CodeFormerOptions(fidelity=0.5, adain=True))
    official = lambda: torch.cat([from_network(theirs(frame[None] * 2 - 1, w=0.5, adain=True)[0]) for frame in frames])  # noqa: E731
    return official, lambda: restore_frames(ours, frames)


def keep(frames: Tensor) -> Works:
    theirs = import_module("basicsr.archs.keep_arch").KEEP(
        img_size=512,
        emb_dim=256,
        dim_embd=512,
        n_head=8,
        n_layers=9,
        codebook_size=1024,
        connect_list=["16", "32", "64"],
        flow_type="gmflow",
        kalman_attn_head_dim=48,
        num_uncertainty_layers=3,
        cross_fuse_list=["16", "32"],
        cross_fuse_nhead=4,
        cross_fuse_dim=256,
    )
    seed_weights(theirs)
    last = theirs.kalman_filter.kalman_gain_calculator[3]
    last.weight.mul_(0.1)  # gains near 0.02: with the seeded 0.95 and a flow of hundreds of pixels, rounding flips codes
    last.bias.fill_(-4)
    ours = KeepRestorer(settled(KEEP.of(theirs.state_dict())), KeepOptions(reset_every=100, gain_window=100))
    return lambda: from_network(theirs(frames[None] * 2 - 1, need_upscale=False)[0]), lambda: restore_frames(ours, frames, chunk=len(frames))


def dicface(frames: Tensor) -> Works:
    module = import_module("basicsr.archs.dir_dist_codeformer_multiscale_arch")
    theirs = seed_weights(
        module.TemporalCodeFormerDirDistMultiScale(
            dim_embed=512, n_head=8, n_layers=9, codebook_size=1024, connect_list=["32", "64", "128", "256"], frame_length=5
        )
    )
    ours = DicFaceRestorer(settled(DicFace.of(theirs.state_dict())))

    def official() -> Tensor:
        made = []
        with patch.object(module, "dist", SimpleNamespace(Dirichlet=Mean)):
            for n in range(len(frames)):
                window = frames[[min(max(k, 0), len(frames) - 1) for k in range(n - 2, n + 3)]]
                made.append(theirs(window * 2 - 1, w=1)[0][2:3])
        return from_network(torch.cat(made))

    return official, lambda: restore_frames(ours, frames)


PEERS: dict[str, Callable[[Tensor], Works]] = {"codeformer": codeformer, "keep": keep, "dicface": dicface}


def settled(network: Any) -> Any:
    """As `load_network` leaves a network."""
    return network.eval().to(memory_format=torch.channels_last)


if __name__ == "__main__":
    sys.exit(main())
