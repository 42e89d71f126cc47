"""What FLAIR's networks need of memory: a markdown table.

    python benchmarks/cost/flair_network.py [--frames 10] [--side 512] [--cuda]

One call of each full-size network on the meta device, where no number is computed; every tensor that lives is counted, so the
peak is that of our own tensors in exactly this code. Workspace of the convolution library is not in it; what torchvision's deformable
convolution unfolds inside (float32 columns) is added where it is called. With --cuda the call is made on the GPU instead and its own
count of allocated memory is shown.
"""

from __future__ import annotations

import argparse
import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fvr.models.flair.bicubic import BicubicUNet
from fvr.models.flair.blur import BlurUNet
from fvr.models.flair.unet import VideoUNet
from fvr.models.flair.window import Flow

GIB = 1 << 30


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--cuda", action="store_true", help="count on the GPU instead of the meta device")
    chosen = parser.parse_args()
    memory(chosen.frames, chosen.side, chosen.cuda)
