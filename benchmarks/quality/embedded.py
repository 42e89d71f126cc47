"""What the embedded face codebook restores: PSNR in dB and SSIM against bicubic enlargement, on faces that it never saw.

    python benchmarks/quality/embedded.py --faces ../shared/faces [--weights FILE] [--sheet FILE.png] [--limit N]

Faces of the validation split at the network's own side, degraded there; the network, filling in what its input lacks. Clips are in embedded_clips.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from fvr.methods.base import to_network
from fvr.methods.detail_fusion import fused
from fvr.metrics.fidelity import psnr, ssim
from fvr.models.codeformer.network import CodeFormer
from fvr.models.embedded import CODEBOOK, FOLDER, read_embedded
from fvr.training.data.degradations import BENCHMARK, benchmark_input
from fvr.training.data.faces import Faces
from fvr.training.sheet import sheet_png


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=FOLDER / CODEBOOK)
    parser.add_argument("--sheet", type=Path, help="write some faces here: input and restored under each degradation, then the truth")
    parser.add_argument("--limit", type=int, default=88, help="faces of the validation split")
    parser.add_argument("--fidelity", type=float, default=1.0)
    options = parser.parse_args()
    network = CodeFormer.of(read_embedded(options.weights.resolve())).to(memory_format=torch.channels_last).requires_grad_(False)
    side = network.config.side

    def restore(source: Tensor) -> Tensor:
        seen = to_network(source, side, torch.device("cpu"))
        images = torch.cat([network(part, options.fidelity, match=False) for part in seen.split(8)])
        return fused((images.clamp(-1, 1) + 1) / 2, source).clamp(0, 1)

    truth = Faces(options.faces, "val", side).first(options.limit)
    print(f"{options.weights.name}, {side} x {side}, w = {options.fidelity:g}, {len(truth)} validation faces.\n")
    print("| degradation | bicubic | restored | gain |\n| --- | --- | --- | --- |")
    columns = []
    for name in BENCHMARK:
        source = benchmark_input(name, truth, seed=0)
        restored = restore(source)
        columns += [source, restored]
        (before, similar), (after, more) = ((psnr(x, truth).mean(), ssim(x, truth).mean()) for x in (source, restored))
        gain = f"{after - before:+.2f} / {more - similar:+.3f}"
        print(f"| {name} | {before:.2f} / {similar:.3f} | {after:.2f} / {more:.3f} | {gain} |", flush=True)
    if options.sheet:
        sheet_png(torch.stack([column[:: max(1, len(truth) // 4)][:4] for column in (*columns, truth)], 1), options.sheet)


if __name__ == "__main__":
    main()
