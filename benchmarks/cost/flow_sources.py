"""Seconds per pair of 512 x 512 frames of every source of flow that KEEP can take: python benchmarks/cost/flow_sources.py"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.optical_flow import raft_large

from fvr.models.keep.network import KEEP
from fvr.motion.dis import DisFlow
from fvr.motion.raft import RaftFlow

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from helpers.seeded_weights import seed_weights


def clip(length: int) -> Tensor:
    """(length, 3, 512, 512): a portrait that moves a few pixels a frame, back and forth."""
    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 255
    steps = [abs(index % 40 - 20) for index in range(length)]
    return F.interpolate(torch.stack([picture[:, step : step + 256, 130 + step : 386 + step] for step in steps]), (512, 512), mode="bilinear")


@torch.inference_mode()
def main() -> None:
    own = seed_weights(KEEP()).to(memory_format=torch.channels_last).flownet
    frames = clip(3) * 2 - 1
    sources = {"gmflow, KEEP's own": own, "dis, OpenCV's": DisFlow(), "RAFT large": RaftFlow(seed_weights(raft_large(weights=None)))}
    for name, source in sources.items():
        seconds = []
        seen = source.features(frames[:1])
        for frame in frames[1:].split(1):
            begin = time.perf_counter(), time.process_time()
            now = source.features(frame)
            source.flow(now, seen)
            seconds.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
            seen = now
        wall, cpu = (min(part) for part in zip(*seconds, strict=True))
        print(f"{name}: {wall:.2f} s, CPU {cpu:.2f} s", flush=True)


if __name__ == "__main__":
    main()
