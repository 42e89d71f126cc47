"""FID's, KID's and an FVD-like distance of aligned restored faces from clean ones, in the features of a network on this machine; prints a line.

    python benchmarks/quality/feature_distance.py RESTORED CLEAN

RESTORED and CLEAN are folders of aligned pictures, or clips of aligned faces. Where torchvision's inception_v3_google-0cc3c7bd.pth lies in a model
folder or in torch's checkpoint folder that network measures, else the embedded identity network. Numbers of one network compare with each other only:
published ones are of TensorFlow's Inception and of I3D.
"""

from __future__ import annotations

import argparse

import torch

from fvr import host
from fvr.faces.geometry import TEMPLATE
from fvr.metrics.feature_distance import Features, available_features, frechet_distance, kernel_distance, over_time
from fvr.video import open_source


def features_of(place: str, network: Features) -> torch.Tensor:
    return torch.cat([network.of(piece.frames) for piece in open_source(place).chunks(8)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restored")
    parser.add_argument("clean")
    options = parser.parse_args()
    network = available_features(TEMPLATE, [folder for named in host.model_folders().values() for folder in named], host.device())
    restored, clean = (features_of(place, network) for place in (options.restored, options.clean))
    line = f"Frechet distance {frechet_distance(restored, clean):.4f}, kernel distance {kernel_distance(restored, clean):.5f}"
    pieces = over_time(restored), over_time(clean)
    if min(map(len, pieces)) > 1:
        line += f", Frechet distance over time {frechet_distance(*pieces):.4f}"
    print(f"{line}; {len(restored)} and {len(clean)} pictures, features of {network.name}")


if __name__ == "__main__":
    main()
