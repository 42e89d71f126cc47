"""A small latent diffusion prior fitted to one clip, or to many faces: what seed-space MAP is tested with where no Stable Diffusion is at hand.

An autoencoder with the layout of Stable Diffusion's (4 channels at 1/8 of the side, GroupNorm and SiLU before the last convolution), and
for the latents the exact denoiser of a Gaussian with the mean and covariance that the latents of what it was fitted to have.

    python benchmarks/inverse_problems/fitted_prior.py CLIP_OR_FOLDER_OF_FACES OUT.safetensors
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fvr.diffusion.schedule import Schedule
from fvr.methods.seed_map.generator import LatentGenerator, leading_times

LATENT = 4
FACTOR = 8
FLOOR = 0.05
"""Share of the latents' variance that is left to every direction of the latent space."""


class ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Autoencoder(nn.Module):
    """Frames (n, 3, H, W) in [-1, 1] to latents (n, 4, H / 8, W / 8) and back."""

    def __init__(self, widths: tuple[int, ...] = (32, 32, 48, 64)) -> None:
        super().__init__()
        down: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
        for inner, outer in pairwise(widths):
            down += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.SiLU()]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], LATENT, 3, padding=1))
        up: list[nn.Module] = [nn.Conv2d(LATENT, widths[-1], 3, padding=1), ResBlock(widths[-1], widths[-1])]
        for outer, inner in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up += [nn.Upsample(scale_factor=2), ResBlock(outer, inner)]
        self.body = nn.Sequential(*up, nn.GroupNorm(8, widths[0]), nn.SiLU())
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.body(self.encoder(x)))


def schedule() -> Schedule:
    """Stable Diffusion's "scaled linear" table."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return Schedule(torch.cumprod(1 - beta, 0), tuple(range(1000)))


class FittedPrior:
    """The autoencoder and the Gaussian of its latents: mean (d,), directions (d, m) orthonormal, variances (m,), floor variance."""

    def __init__(self, network: Autoencoder, mean: Tensor, directions: Tensor, variances: Tensor, floor: Tensor, side: int) -> None:
        self.network, self.mean, self.directions, self.variances, self.floor, self.side = network, mean, directions, variances, floor, side

    def x0(self, x_t: Tensor, alpha_bar: float) -> Tensor:
        """E[z_0 | z_t] = m + sqrt(alpha_bar) S (alpha_bar S + (1 - alpha_bar) I)^-1 (z_t - sqrt(alpha_bar) m) for z_0 ~ N(m, S)."""
        d = x_t.flatten(1) - alpha_bar**0.5 * self.mean
        gain = alpha_bar**0.5 * self.floor / (alpha_bar * self.floor + 1 - alpha_bar)
        inside = d @ self.directions
        extra = alpha_bar**0.5 * self.variances / (alpha_bar * self.variances + 1 - alpha_bar) - gain
        return (self.mean + gain * d + (inside * extra) @ self.directions.mT).view_as(x_t)

    def generator(self, steps: int = 4) -> LatentGenerator:
        table = schedule()
        alpha_bars = [table.alpha_bar(t) for t in leading_times(1000, steps)]
        low, out = self.side // FACTOR, self.network.conv_out
        return LatentGenerator(
            lambda x_t, i: self.x0(x_t, alpha_bars[i]),
            alpha_bars,
            self.network.body,
            out.weight,
            out.bias,
            seed_shape=(1, LATENT, low, low),
            feature_shape=(out.in_channels, self.side, self.side),
            size=(self.side, self.side),
        )

    def save(self, path: Path) -> None:
        state = {f"network.{name}": value.half() for name, value in self.network.state_dict().items()}
        parts = {"mean": self.mean, "directions": self.directions.half(), "variances": self.variances, "floor": self.floor.view(1)}
        save_file({name: value.contiguous() for name, value in {**state, **parts}.items()}, path, {"side": str(self.side)})


def load(path: Path, side: int = 128) -> FittedPrior:
    state = {name: value.float() for name, value in load_file(path).items()}
    network = Autoencoder()
    network.load_state_dict({name.partition(".")[2]: value for name, value in state.items() if name.startswith("network.")})
    network.requires_grad_(False).eval()
    return FittedPrior(network, state["mean"], state["directions"], state["variances"], state["floor"][0], side)


def fit(frames: Tensor, steps: int = 1200, directions: int = 24) -> FittedPrior:
    """The prior of frames (n, 3, S, S) in [0, 1], with at most `directions` directions in which latents vary by more than the floor."""
    torch.manual_seed(0)
    network, x = Autoencoder(), frames * 2 - 1
    adam = torch.optim.Adam(network.parameters(), 3e-3)
    fall = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, steps)
    for step in range(steps):
        chosen = x[torch.randint(len(x), (6,))]
        z = network.encoder(chosen)
        noisy = z + 0.02 * torch.randn_like(z)
        loss = (network.conv_out(network.body(noisy)) - chosen).square().mean() + 1e-4 * z.square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        fall.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"fit {step}: {loss.item():.5f}")
    network.requires_grad_(False).eval()
    with torch.no_grad():
        latents = torch.cat([network.encoder(part) for part in x.split(16)]).flatten(1)
        scale = latents.std()
        network.body[0].weight.mul_(scale)  # latents of unit variance, as a diffusion model wants them
        network.encoder[-1].weight.div_(scale)
        network.encoder[-1].bias.div_(scale)
        latents = latents / scale
        mean = latents.mean(0)
        centred = latents - mean
        _, s, vt = torch.linalg.svd(centred, full_matrices=False)
        keep = min(directions, len(s))
        variances = s[:keep].square() / len(latents)
        floor = FLOOR * centred.var()
    return FittedPrior(network, mean, vt[:keep].mT.contiguous(), variances + floor, floor, x.shape[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a clip, or a folder of aligned faces of which the training split is taken")
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--without", type=int, nargs=2, default=[112, 128], metavar=("FIRST", "LAST"), help="frames of the clip kept out of the fit")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--directions", type=int, default=24, help="in which latents vary; 256 for faces")
    arguments = parser.parse_args()
    if arguments.source.is_dir():
        from fvr.training.data.faces import Faces

        faces = Faces(arguments.source, "train", arguments.side)
        frames = faces.first(len(faces))
    else:
        from fvr.video import open_source, read_frames

        frames, _ = read_frames(open_source(arguments.source))
        frames = F.interpolate(frames, (arguments.side, arguments.side), mode="area")
        first, last = arguments.without
        frames = torch.cat([frames[:first], frames[last:]])
    fit(frames, arguments.steps, directions=arguments.directions).save(arguments.out)


if __name__ == "__main__":
    main()
