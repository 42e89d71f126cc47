"""KEEP's session against the official order of work, on one network with deterministic weights.

python benchmarks/cost/keep_order.py [--frames 5] [--repeat 1]      time per frame of both, their ratio, and where the time goes
python benchmarks/cost/keep_order.py --without layout               the same with one of our savings switched off
python benchmarks/cost/keep_order.py --memory --frames 20 200       peak memory of one process per number of frames
python benchmarks/cost/keep_order.py --flow                         seconds per pair of frames of every source of flow

--small takes a network of 64 x 64. The official order, as the released script does it for one sub-clip: plain memory layout, all frames
encoded at once, all pairs' flow at once with both frames' features computed for each pair, attention with its weights written out,
upsampling by repetition, x sigmoid(x) in two steps. It runs on the same modules with our savings switched off, so both give the same images.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.methods.base import restore_frames
from fvr.methods.keep import KeepOptions, KeepRestorer
from fvr.models import code_prediction, gmflow, vq
from fvr.models.keep import attention
from fvr.models.keep.network import KEEP, KeepConfig
from fvr.motion.dis import DisFlow
from fvr.motion.raft import RaftFlow
from fvr.motion.warp import warp

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from helpers.seeded_weights import seed_weights, seeded_tensor

SMALL = KeepConfig(
    vq.VQConfig(side=64, channels=32, multipliers=(1, 2, 2), res_blocks=1, attention=frozenset({16}), code_dim=32, codes=64),
    width=128,
    heads=2,
    layers=2,
    fused=(16, 32),
    cross_width=16,
    gain_layers=2,
    gain_heads=2,
    gain_width=16,
)
SAVINGS = ("layout", "upsampling", "attention", "activation")
"""Those that can be switched off one by one."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[5])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--without", choices=SAVINGS, action="append", default=[])
    parser.add_argument("--window", type=int, default=20, help="gain_window of --memory")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--memory", action="store_true")
    modes.add_argument("--flow", action="store_true")
    modes.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        memory(options)
    elif options.child:
        stream(build(options.small), options.frames[0], options.window)
    elif options.flow:
        flows(build(options.small))
    else:
        compare(build(options.small), options.frames[0], options.repeat, options.without)
    return 0


def build(small: bool) -> KEEP:
    """Seeded weights, but for gains near 0.02: with the seeded 0.95 and a flow of hundreds of pixels, rounding flips codes within a few frames."""
    network = KEEP(SMALL if small else None).eval()
    for name, value in network.state_dict().items():
        value.copy_(seeded_tensor(name, tuple(value.shape), "parity"))  # one by one, or the peak of memory would be here
    last = network.kalman_filter.kalman_gain_calculator[3]
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.fill_(-4)
    return network


def clip(length: int, start: int = 0) -> Tensor:
    """(length, 3, 512, 512): a portrait that moves a few pixels a frame, back and forth."""
    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    steps = [abs((start + index) % 40 - 20) for index in range(length)]
    return F.interpolate(torch.stack([picture[:, step : step + 256, 130 + step : 386 + step] for step in steps]), (512, 512), mode="bilinear")


# --- time ---


def compare(network: KEEP, length: int, repeat: int, without: list[str]) -> None:
    frames = clip(length)
    ours: list[tuple[float, float]] = []
    official: list[tuple[float, float]] = []
    shares: dict[str, Counter[str]] = {}
    codes: list[Tensor] = []
    network.idx_pred_layer.register_forward_hook(lambda _, inputs, logits: codes.append(logits.argmax(-1)))
    with torch.inference_mode():
        for _ in range(repeat):
            codes.clear()
            shares["ours"], mine = measured(network, lambda: session(network, frames, without), ours)
            shares["official"], theirs = measured(network, lambda: official_order(network, frames), official)
    difference = (mine - theirs).abs()
    other = [int((a != b).sum()) for a, b in zip(codes[:length], codes[length:], strict=True)]
    print(f"{length} frames, {torch.get_num_threads()} threads, best of {repeat}" + (f", without {', '.join(without)}" if without else ""))
    for name, times in (("ours", ours), ("official", official)):
        wall, cpu = (min(part) / length for part in zip(*times, strict=True))
        parts = ", ".join(f"{part} {seconds / length:.2f}" for part, seconds in shares[name].most_common())
        print(f"{name:9s} {wall:7.2f} s/frame ({cpu:.2f} of the CPU): {parts}")
    for index, kind in enumerate(("wall", "CPU")):
        print(f"ratio, {kind}: {min(t[index] for t in ours) / min(t[index] for t in official):.3f}")
    print(f"largest difference of each frame in [0, 1]: {', '.join(f'{frame.max():.1e}' for frame in difference)}; other codes: {other}")


def measured(network: KEEP, work: Callable[[], Tensor], times: list[tuple[float, float]]) -> tuple[Counter[str], Tensor]:
    """Runs `work`, adds its (wall, CPU) seconds to `times`, and returns seconds per part and what it made."""
    parts: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, module, method in (
            ("encoder", network.encoder, "forward"),
            ("hq_encoder", network.hq_encoder, "forward"),
            ("generator with fusions", network.generator, "forward"),
            ("gain", network.kalman_filter, "forward"),
            ("transformer", network, "logits"),
            ("flow features", network.flownet, "features"),
            ("flow", network.flownet, "flow"),
        ):
            stack.enter_context(patch.object(module, method, timed(getattr(module, method), name, parts)))
        begin = time.perf_counter(), time.process_time()
        made = work()
        times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    return parts, made


def timed(work: Callable, name: str, parts: Counter[str]) -> Callable:
    def run(*args, **kwargs):
        begin = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            parts[name] += time.perf_counter() - begin  # type: ignore[assignment]

    return run


def session(network: KEEP, frames: Tensor, without: list[str]) -> Tensor:
    network.to(memory_format=torch.contiguous_format if "layout" in without else torch.channels_last)
    with ExitStack() as stack:
        for saving in without:
            if saving == "layout":
                stack.enter_context(patch("fvr.methods.base.torch.channels_last", torch.contiguous_format))
            else:
                stack.enter_context(OFF[saving]())
        # A reset that comes later than the clip: one sub-clip, as the official order has it.
        return restore_frames(KeepRestorer(network, KeepOptions(reset_every=100, gain_window=100)), frames, chunk=len(frames))


def official_order(network: KEEP, frames: Tensor) -> Tensor:
    """One sub-clip, as keep_arch.py's forward orders it."""
    network.to(memory_format=torch.contiguous_format)
    with upsampling_off(), attention_off(), activation_off():
        x = F.interpolate(frames, (network.config.side,) * 2, mode="area") * 2 - 1
        source = network.flownet
        flow = source.flow(source.features(x[1:]), source.features(x[:-1]))
        latents, features = network.encode(x)
        gains = network.gain(latents[None])[0][0]
        images: list[Tensor] = []
        cross = None
        for index in range(len(x)):
            latent = latents[index : index + 1]
            if images:
                predicted = network.encode_clean(warp(images[-1], flow[index - 1 : index]))
                latent = network.update(latent, predicted, gains[index : index + 1])
            codes = network.quantize.lookup(network.name_codes(latent))
            image, cross = network.decode(codes, {side: part[index : index + 1] for side, part in features.items()}, cross)
            images.append(image)
        made = (torch.cat(images).clamp(-1, 1) + 1) / 2
        return made if made.shape[-1] == 512 else F.interpolate(made, (512, 512), mode="bicubic").clamp(0, 1)


@contextmanager
def upsampling_off() -> Iterator[None]:
    def forward(self: vq.Upsample, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))

    with patch.object(vq.Upsample, "forward", forward):
        yield


@contextmanager
def attention_off() -> Iterator[None]:
    """Attention with its weights written out: the transformer's as nn.MultiheadAttention averages them, the others' as products."""

    def attend(self: code_prediction.CodeLayer, x: Tensor, position: Tensor, keep: slice) -> Tensor:
        value = self.norm1(x).transpose(0, 1)
        key = value + position[:, None]
        return self.self_attn(key, key, value, need_weights=True)[0].transpose(0, 1)

    def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        scores = query @ key.mT * query.shape[-1] ** -0.5
        return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ value

    with ExitStack() as stack:
        stack.enter_context(patch.object(code_prediction.CodeLayer, "_attend", attend))
        stack.enter_context(patch.object(gmflow, "ROWS", sys.maxsize))
        stack.enter_context(patch.object(gmflow, "instance_norm", F.instance_norm))
        for module in (vq, attention, gmflow):
            stack.enter_context(patch.object(module, "F", Functions(module.F, scaled_dot_product_attention)))
        yield


@contextmanager
def activation_off() -> Iterator[None]:
    """x sigmoid(x) in two steps and two new maps."""

    def silu(x: Tensor, inplace: bool = False) -> Tensor:
        return x * torch.sigmoid(x)

    with patch.object(vq, "F", Functions(vq.F, silu)):
        yield


class Functions:
    """A namespace of functions (torch.nn.functional) with one of them replaced."""

    def __init__(self, functions: object, other: Callable[..., Tensor]) -> None:
        self.functions = functions
        setattr(self, other.__name__, other)

    def __getattr__(self, name: str) -> Callable:
        return getattr(self.functions, name)


OFF = {"upsampling": upsampling_off, "attention": attention_off, "activation": activation_off}


# --- memory ---


def memory(options: argparse.Namespace) -> None:
    peaks = []
    for count in sorted(options.frames):
        command = [sys.executable, __file__, "--child", "--frames", str(count), "--window", str(options.window)]
        run = subprocess.run([*command, *(["--small"] if options.small else [])], check=True, capture_output=True, text=True)
        peaks.append(float(run.stdout.split()[-1]))
        print(f"{count} frames: {run.stdout.strip()}", flush=True)
    print(f"ratio {peaks[-1] / peaks[0]:.3f}")


def stream(network: KEEP, length: int, window: int) -> None:
    """Frames in one by one, restored ones looked at and dropped, as a clip is walked; prints the peaks before and after."""
    network.to(memory_format=torch.channels_last)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    running = KeepRestorer(network, KeepOptions(gain_window=window)).open()
    total = sum(running.push(clip(1, index)).sum().item() for index in range(length)) + running.close().sum().item()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"sum {total:.0f}, MiB before the first frame {before:.0f}, peak {peak:.0f}")


# --- flow ---


def flows(network: KEEP) -> None:
    from torchvision.models.optical_flow import raft_large

    network.to(memory_format=torch.channels_last)
    frames = clip(3) * 2 - 1
    sources = {"GMFlow of the checkpoint": network.flownet, "OpenCV DIS": DisFlow(), "RAFT large": RaftFlow(seed_weights(raft_large(weights=None)))}
    with torch.inference_mode():
        for name, source in sources.items():
            seconds = []
            seen = source.features(frames[:1])
            for index in (1, 2):
                begin = time.perf_counter(), time.process_time()
                now = source.features(frames[index : index + 1])
                found = source.flow(now, seen)
                seconds.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
                seen = now
            wall, cpu = (min(part) for part in zip(*seconds, strict=True))
            mean = ", ".join(f"{value:.1f}" for value in found.mean((0, 2, 3)))
            print(f"{name}: {wall:.2f} s per pair of 512 x 512 frames ({cpu:.2f} of the CPU); mean flow ({mean}), true (-2, -2), weights seeded")


if __name__ == "__main__":
    sys.exit(main())
