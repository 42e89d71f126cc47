"""What FLAIR's networks need of memory, and what their shortcuts save: two markdown tables.

    python benchmarks/cost/flair_network.py [--frames 10] [--side 512] [--cuda]

Memory: one call of each full-size network on the meta device, where no number is computed; every tensor that lives is counted, so the
peak is that of our own tensors in exactly this code. Workspace of the convolution library is not in it; what torchvision's deformable
convolution unfolds inside (float32 columns) is added where it is called. With --cuda the call is made on the GPU instead and its own
count of allocated memory is shown.
Time: small networks on the CPU, the long way over the short way in one run, the fastest of five tries each.
"""

from __future__ import annotations

import argparse
import time
import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fvr.models.flair.attention import TemporalAttention
from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet
from fvr.models.flair.blur import BlurConfig, BlurUNet
from fvr.models.flair.embedding import sinusoid
from fvr.models.flair.norm import ClipNorm
from fvr.models.flair.unet import VideoUNet
from fvr.models.flair.window import Flow, Window

GIB = 1 << 30
SMALL: dict[str, tuple[type[VideoUNet], BicubicConfig | BlurConfig]] = {
    "bicubic": (BicubicUNet, BicubicConfig(64, 32, (1, 2), 1, 16, frozenset({1}), frozenset({0, 1}), 7, 32)),
    "blur": (BlurUNet, BlurConfig(64, 64, (0.5, 1), 1, frozenset({1}), frozenset({0, 1}), 5, 32)),
}


class Census(TorchDispatchMode):
    """Counts the bytes of all tensors alive that were made under it, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        inside = columns(args) if "deform_conv2d" in str(function) else 0
        self.peak = max(self.peak, self.alive + inside)
        return result

    def _add(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.alive += size
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


def columns(args) -> int:
    """Bytes of the unfolded input of a deformable convolution, one frame at a time."""
    x, weight = args[0], args[1]
    return x.shape[1] * weight.shape[-2] * weight.shape[-1] * x.shape[-2] * x.shape[-1] * x.element_size()


def peak_on_meta(network: VideoUNet, frames: int, side: int, pixels: int | None) -> int:
    """Peak bytes of one call beside the weights, flow given."""
    x = torch.zeros(frames, 3, side, side, device="meta")
    motion = {size: torch.zeros(1, frames - 1, 2, *size, device="meta") for size in network.sizes(side, side)}
    flows = {size: Flow(motion[size], motion[size]) for size in motion}
    level, weights = torch.tensor(0.5, device="meta"), torch.zeros(1, 1, side, side, device="meta")
    with torch.no_grad(), Census() as census:
        network(x, x, level, flows=flows, weights=weights, pixels=pixels)
    return census.peak


def peak_on_cuda(network: VideoUNet, frames: int, side: int, pixels: int | None) -> int:
    """The same on a GPU, by its own count."""
    network = network.to_empty(device="cuda")
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    x = torch.randn(frames, 3, side, side, device="cuda")
    with torch.no_grad():
        flows = network.flows(x)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network(x, x, torch.tensor(0.5), flows=flows, weights=0.93, pixels=pixels)
    return torch.cuda.max_memory_allocated() - before


def memory(frames: int, side: int, cuda: bool) -> None:
    """The table of peaks."""
    print(f"| network, {frames} frames at {side} | weights | at once | {side * side} pixels at a time | announced |")
    print("| --- | --- | --- | --- | --- |")
    measure = peak_on_cuda if cuda else peak_on_meta
    for build, dtype in ((b, d) for b in (BicubicUNet, BlurUNet) for d in (torch.float32, torch.bfloat16)):
        with torch.device("meta"):
            network = build().eval().halved(dtype)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
        peaks = [measure(network, frames, side, pixels) for pixels in (None, side * side)]
        sizes = (weights, *peaks, network.working_bytes(frames, side, side))
        print(f"| {build.__name__}, {str(dtype).removeprefix('torch.')} | {' | '.join(f'{size / GIB:.2f} GiB' for size in sizes)} |")


def seconds(work: Callable[[], object]) -> float:
    """The fastest of five."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def timing() -> None:
    """The table of ratios."""
    print("| shortcut | network | long way / short way |")
    print("| --- | --- | --- |")
    with torch.inference_mode():
        for kind in SMALL:
            _call_ratios(kind)
        print(f"| keys and values once per frame | temporal attention | {attention_ratio():.2f} |")
        print(f"| statistics in two passes (for memory, not for time) | group norm and SiLU | {norm_ratio():.2f} |")


def _call_ratios(kind: str, side: int = 64, frames: int = 5) -> None:
    build, config = SMALL[kind]
    network = build(config).eval().to(memory_format=torch.channels_last)
    x, level = torch.randn(frames, 3, side, side), torch.tensor(0.5)
    flows = network.flows(x)

    def call() -> Tensor:
        return network(x, x, level, flows=flows)

    short, flow = seconds(call), seconds(lambda: network.flows(x))
    again = 3 if kind == "bicubic" else 1  # published: in each of three recurrences per size, or once per call
    per = "step and recurrence" if kind == "bicubic" else "step"
    print(f"| flow once per window, not per {per} | {kind} | {1 + again * flow / short:.2f} |")
    if isinstance(network, BlurUNet):
        network.variance = True
        print(f"| variance channels left out | {kind} | {seconds(call) / short:.2f} |")


def attention_ratio(side: int = 16, frames: int = 10, width: int = 256, span: int = 7) -> float:
    """Projecting every frame of every window, over projecting every frame."""
    layer = TemporalAttention(width, span, 64).eval()
    x = torch.randn(frames, width, side, side).contiguous(memory_format=torch.channels_last)
    window = Window(frames, torch.zeros(frames, 1), True, {}, 1.0)
    reach = span // 2
    sin, cos = sinusoid(torch.arange(-reach, reach + 1), width)
    places = torch.cat([cos, sin], 1)
    others = [n for n in range(span) if n != reach]

    def long() -> Tensor:
        tokens = layer.norm(x, window).flatten(2).permute(2, 0, 1)  # (hw, T, C)
        padded = torch.cat([tokens[:, :1]] * reach + [tokens] + [tokens[:, -1:]] * reach, 1)
        seen = padded.unfold(1, span, 1).mT  # (hw, T, span, C)
        q = layer.q_linear(seen[:, :, reach : reach + 1] + places[reach])
        k, v = layer.k_linear(seen[:, :, others] + places[others]), layer.v_linear(seen[:, :, others])
        heads = [part.unflatten(3, (layer.heads, -1)).transpose(2, 3).flatten(0, 1) for part in (q, k, v)]
        mixed = scaled_dot_product_attention(*heads).unflatten(0, (side * side, frames)).flatten(2)
        return x + layer.proj.conv(mixed.permute(1, 2, 0).unflatten(2, (side, side)))

    torch.nn.init.normal_(layer.proj.conv.weight, std=width**-0.5)
    torch.testing.assert_close(long(), layer(x, window), rtol=1e-3, atol=1e-3)
    return seconds(long) / seconds(lambda: layer(x, window))


def norm_ratio(side: int = 128, frames: int = 10, width: int = 64) -> float:
    """nn.GroupNorm on the clip as one tensor, over two passes."""
    norm = ClipNorm(32, width)
    x = torch.randn(frames, width, side, side).contiguous(memory_format=torch.channels_last)
    window = Window(frames, torch.zeros(frames, 1), True, {}, 1.0)

    def short() -> Tensor:
        return norm.read(x, window)(slice(None))

    def long() -> Tensor:
        return silu(norm.wrapped_module(x[None].transpose(1, 2))).transpose(1, 2)[0]

    torch.testing.assert_close(long(), short(), rtol=1e-3, atol=1e-3)
    return seconds(long) / seconds(short)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--cuda", action="store_true", help="count on the GPU instead of the meta device")
    chosen = parser.parse_args()
    memory(chosen.frames, chosen.side, chosen.cuda)
    print()
    timing()
