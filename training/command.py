"""`fvr train prior|codebook|keep|dicface`: from a folder of aligned faces to a weights file with its model card."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ..models.codeformer import CodeFormer
from ..models.embedded import ALIAS, CODEBOOK, FOLDER, SIZES, read_embedded
from . import codebook, diffusion, temporal
from .card import FEDERAL_BIAS, FEDERAL_DATA, LICENCE, Card, export
from .codebook import clean_encoder
from .faces import FEDERAL, Faces
from .loop import Plan, Run, Stopped, average_of, train
from .moving import Clips
from .recipe import PAPER, SMALL_128, Recipe

RECIPES: dict[str, dict[str, Recipe | temporal.TemporalRecipe | diffusion.PriorRecipe]] = {
    "prior": {"small": diffusion.PRIOR_128, "paper": diffusion.PRIOR_PAPER},
    "codebook": {"small": SMALL_128, "paper": PAPER},
    "keep": {"small": temporal.KEEP_SMALL, "paper": temporal.KEEP_PAPER},
    "dicface": {"small": temporal.DICFACE_SMALL, "paper": temporal.DICFACE_PAPER},
}
USE = {"prior": {}, "codebook": {"fidelity": "1", "adain": "off"}, "keep": {"flow": "dis"}, "dicface": {"fidelity": "1", "dirichlet": "mean"}}
"""The options that the networks were trained for; kept in the files' metadata, for whoever loads them."""
STOPPED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("network", choices=sorted(RECIPES), help="what to train")
    parser.add_argument("--faces", type=Path, required=True, help="folder of aligned, square faces; with train and val inside, or split by name")
    parser.add_argument("--out", type=Path, required=True, help="the weights file to write, .safetensors; its card goes beside it as .md")
    parser.add_argument("--work", type=Path, help="folder for states, curves and sheets (default: the file's name with -training)")
    parser.add_argument(
        "--recipe", choices=("small", "paper"), default="small", help="small: 128 x 128, for a CPU; paper: the published sizes and plan"
    )
    parser.add_argument("--prefix", action="append", help=f"use files whose names begin so; may be repeated; 'federal' means {' and '.join(FEDERAL)}")
    parser.add_argument(
        "--clips", type=Path, help="keep, dicface: folder of aligned clips, half of what is trained on; the rest are stills set moving"
    )
    parser.add_argument("--base", type=Path, help="keep, dicface: the codebook network to build on (default: the embedded one)")
    parser.add_argument("--autoencoder", type=Path, help="keep, dicface: autoencoder.safetensors of the codebook's work folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of convolutions and products; weights stay float32")
    parser.add_argument("--workers", type=int, default=0, help="threads that prepare batches; a GPU wants as many as there are cores")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop cleanly after so long; the same command goes on from there")
    parser.add_argument("--validate-every", type=int, default=200, metavar="STEPS")
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--export-now", action="store_true", help="write the file from what an unfinished run has on disk, and stop")
    parser.add_argument("--batch", type=int, help="faces or clips at once, for less memory; steps then gather as many as the recipe says")


def run(options: argparse.Namespace) -> int:
    """Trains; returns 0 when done and 130 when stopped, with everything on disk to go on.

    Raises:
        ValueError: for a folder without faces, or the work of another recipe.
    """
    if options.network == "prior":
        return _prior(options)
    if options.network == "codebook":
        return _codebook(options)
    return _temporal(options)


def _settings(options: argparse.Namespace) -> Run:
    return Run(
        options.work or options.out.with_name(f"{options.out.stem}-training"),
        options.seed,
        options.device,
        options.precision == "bfloat16",
        options.save_every,
        options.validate_every,
        options.minutes,
        options.workers,
    )


def _prefixes(options: argparse.Namespace) -> tuple[str, ...]:
    given = options.prefix or []
    return tuple(name for prefix in given for name in (FEDERAL if prefix == "federal" else (prefix,)))


def _prior(options: argparse.Namespace) -> int:
    recipe = RECIPES["prior"][options.recipe]
    assert isinstance(recipe, diffusion.PriorRecipe)
    if options.batch:
        recipe = replace(recipe, image=gathered(recipe.image, options.batch))
    faces, held_out = (Faces(options.faces, split, recipe.sizes.side, _prefixes(options)) for split in ("train", "val"))
    torch.manual_seed(options.seed)
    network = diffusion.network_of(recipe)
    stages = diffusion.stages_of(recipe, faces, held_out, torch.device(options.device))
    trained = _trained(network, stages, _settings(options), recipe.name, options.export_now)
    if trained is None:
        return STOPPED
    sizes = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(recipe.sizes).items()}
    does = "denoises aligned faces, with their degraded selves as condition or without: a diffusion prior"
    return _written(options, trained, recipe.name, "Face prior (FLAIR)", does, None, {SIZES: json.dumps(sizes)})


def _codebook(options: argparse.Namespace) -> int:
    recipe = RECIPES["codebook"][options.recipe]
    assert isinstance(recipe, Recipe)
    if options.batch:
        plans = (gathered(plan, options.batch) for plan in (recipe.autoencoder, recipe.prediction, recipe.joint))
        recipe = replace(recipe, autoencoder=next(plans), prediction=next(plans), joint=next(plans))
    faces, held_out = (Faces(options.faces, split, recipe.sizes.vq.side, _prefixes(options)) for split in ("train", "val"))
    torch.manual_seed(options.seed)
    network = codebook.network_of(recipe)
    stages = codebook.stages_of(recipe, faces, held_out, torch.device(options.device))
    trained = _trained(network, stages, _settings(options), recipe.name, options.export_now)
    if trained is None:
        return STOPPED
    return _written(options, trained, recipe.name, "Face codebook (CodeFormer)", "restores aligned faces frame by frame", None)


def _temporal(options: argparse.Namespace) -> int:
    recipe = RECIPES[options.network][options.recipe]
    assert isinstance(recipe, temporal.TemporalRecipe)
    if options.batch:
        recipe = replace(recipe, plan=gathered(recipe.plan, options.batch))
    base_path = FOLDER / CODEBOOK if options.base is None else options.base
    if options.autoencoder is None:
        raise ValueError(
            f"training {options.network} needs the encoder of clean faces: give --autoencoder, the codebook's work folder's autoencoder.safetensors"
        )
    base = CodeFormer.of(read_embedded(base_path.resolve())).requires_grad_(False)
    side = base.config.side
    faces, held_out = (Faces(options.faces, split, side, _prefixes(options)) for split in ("train", "val"))
    clips = None if options.clips is None else Clips(options.clips, side, recipe.frames)
    if recipe.blind.side != side:
        recipe = replace(recipe, blind=recipe.blind.at(side))
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    network: nn.Module = temporal.keep_on(base) if options.network == "keep" else temporal.dicface_on(base, recipe.frames)
    kind = temporal.KeepStage if options.network == "keep" else temporal.DicFaceStage
    stage = kind(recipe, base.to(device), faces, held_out, device, clean_encoder(base, options.autoencoder), clips)
    trained = _trained(network, [stage], _settings(options), recipe.name, options.export_now)
    if trained is None:
        return STOPPED
    title = {"keep": "KEEP's temporal parts", "dicface": "DicFace's temporal parts"}[options.network]
    alias = {ALIAS: "hq_encoder.=encoder."} if options.network == "keep" and recipe.tied else None
    does = f"restores clips of aligned faces steadily, together with {base_path.name}"
    return _written(options, trained, recipe.name, title, does, base_path, alias)


def gathered(plan: Plan, batch: int) -> Plan:
    """The plan with `batch` faces at once and as many passes per step as make up its own batch."""
    return replace(plan, batch=batch, accumulate=max(1, plan.batch * plan.accumulate // batch))


def _trained(network: nn.Module, stages: list, settings: Run, recipe: str, at_once: bool) -> nn.Module | None:
    if at_once:
        network.load_state_dict(average_of(settings.folder)[2])
        return network.eval()
    with _Bars() as bars:
        try:
            return train(network, stages, settings, recipe, bars)
        except Stopped as stop:
            bars.write(str(stop))
            return None


def _written(
    options: argparse.Namespace, network: nn.Module, recipe: str, title: str, does: str, base: Path | None, notes: dict[str, str] | None = None
) -> int:
    federal = set(_prefixes(options)) == set(FEDERAL)
    words = ["fvr train", options.network, "--faces", options.faces.name, "--recipe", options.recipe, "--seed", str(options.seed)]
    words += ["--prefix federal"] if federal else []
    words += [] if base is None else ["--base", base.name, "--autoencoder", "/".join(options.autoencoder.parts[-2:])]
    command = " ".join([*words, "--out", options.out.name])
    card = Card(
        title=title,
        what=f"A small network that {does}. Made by this package's own recipe, with nothing of the published weights in it.",
        data=FEDERAL_DATA if federal else f"The faces of the folder {options.faces.name}.",
        licence=LICENCE if federal else "That of whoever trained it, and of the faces.",
        recipe=f'Recipe "{recipe}" of training/; stages, losses and plan are its data classes.',
        command=command,
        seed=options.seed,
        bias=FEDERAL_BIAS if federal else "Not stated: describe whom the folder shows.",
        figures=_figures(_settings(options).folder),
    )
    export(network.state_dict(), options.out, card, {"recipe": recipe, "network": options.network, **USE[options.network], **(notes or {})}, base)
    return 0


def _figures(work: Path) -> tuple[tuple[str, str], ...]:
    """What the last stage's last validation measured, for the card."""
    logs = sorted(work.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return ()
    last = json.loads(logs[-1].read_text())[-1]
    figures = tuple((name, f"{value:.3g}") for name, value in last["figures"].items())
    return (("steps of the last stage", str(last["step"])), *figures)


class _Bars:
    """One progress bar per stage."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.stage = ""

    def __call__(self, stage: str, done: int, steps: int, losses: dict[str, float]) -> None:
        if self.bar is None or stage != self.stage:
            self.close()
            self.stage, self.bar = stage, tqdm(total=steps, initial=done - 1, desc=stage, file=sys.stderr, mininterval=1.0)
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()}, refresh=False)

    def write(self, text: str) -> None:
        self.close()
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def main() -> int:
    """`python -m fvr.training.command`, the same without the rest of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
