"""`fvr train blind|prior|codebook|keep|dicface`: trains a network on a folder of aligned faces, and writes weights with a model card."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors.torch import load_file
from torch import nn

from ..faces.types import CROP
from ..methods.blind.restorer import BlindRestorer
from ..methods.registry import build_restorer
from ..methods.tasks import Mode
from ..models.blind import BlindUNet
from ..models.checkpoints.load import load_network
from ..models.checkpoints.state_dict import notes_of
from ..models.embedded import ALIAS, BLIND, CODEBOOK, DICFACE, FOLDER, SIZES
from ..models.flair.spynet import spynet_of
from . import blind, codebook, dicface, keep, prior, temporal
from .bars import Bars
from .card import FEDERAL_BIAS, LICENCE, OWN_LICENCE, STILLS, Card, export, federal_data
from .codebook import clean_encoder
from .data.cleaned import CLIP, CleanedClips
from .data.faces import FEDERAL, Faces
from .data.pairs import Pairs
from .data.synthetic_motion import Clips
from .engine import Run, Stopped, averaged_weights, train
from .evidence import EvidenceStage
from .flow_weights import GMFLOW, PUBLISHED, load_spynet
from .recipe import KEEP_BASE, PAPER, SMALL_128, CodebookRecipe

RECIPES: dict[str, dict[str, Any]] = {
    "blind": {"small": blind.BLIND_512},
    "prior": {"small": prior.PRIOR_128, "paper": prior.paper()},
    "codebook": {"small": SMALL_128, "paper": PAPER},
    "keep": {"small": keep.KEEP_SMALL, "paper": keep.KEEP_PAPER},
    "dicface": {"small": dicface.DICFACE_SMALL, "paper": dicface.DICFACE_PAPER},
}
BEST_OPTIONS = {
    "blind": {},
    "prior": {},
    "codebook": {"fidelity": "1", "adain": "off"},
    "keep": {"flow": "dis"},
    "dicface": {"fidelity": "1", "dirichlet": "mean"},
}
"""The settings that the networks were trained for; stored in the files' metadata, which restorers read."""
ONLY_FOR = {
    "task": ("prior", "codebook", "dicface"),
    "clips": ("prior", "keep", "dicface"),
    "base": ("keep", "dicface"),
    "autoencoder": ("keep", "dicface"),
    "spynet": ("prior",),
    "gmflow": ("keep",),
    "frames": ("keep",),
}
"""The networks that an option is for; all others are for every network."""
EXIT_STOPPED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("network", choices=sorted(RECIPES), help="what to train")
    parser.add_argument("--faces", type=Path, required=True, help="folder of aligned, square faces, with sub-folders train and val, or split by name")
    parser.add_argument("--out", type=Path, required=True, help="weights file to write, .safetensors; the model card is written beside it as .md")
    parser.add_argument("--work", type=Path, help="folder for states, curves and sheets (default: the file's name with -training)")
    parser.add_argument(
        "--recipe", choices=("small", "paper"), default="small", help="small: 128 x 128, for a CPU; paper: the published sizes and plan"
    )
    parser.add_argument(
        "--task",
        help=f"with --recipe paper, prior: {', '.join(prior.TASKS)} (default: x8); codebook: keep, for KEEP's stages I and II; with either, dicface: "
        f"{', '.join(get_args(Mode))} (default: restore)",
    )
    parser.add_argument(
        "--prefix", action="append", help=f"use only files with this name prefix; may be repeated; 'federal' means {' and '.join(FEDERAL)}"
    )
    parser.add_argument(
        "--clips",
        type=Path,
        help="prior, keep, dicface: folder of aligned clips for half of the training; the other half are stills with synthetic motion",
    )
    parser.add_argument(
        "--base", type=Path, help="keep, dicface: the CodeFormer to build on, of the recipe's size (default: the embedded one, for small)"
    )
    parser.add_argument(
        "--autoencoder", type=Path, help="keep, dicface: autoencoder.safetensors of the codebook's work folder; of codeformer.pth, vqgan_code1024.pth"
    )
    parser.add_argument("--spynet", type=Path, metavar="FILE", help="prior with flow-guided recurrence (paper): SPyNet's weights")
    parser.add_argument("--gmflow", type=Path, metavar="FILE", help=f"keep: GMFlow's weights, required by paper: {GMFLOW}; small uses OpenCV's flow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--precision", choices=("bfloat16", "float32"), default="bfloat16", help="precision of convolutions and matrix products; weights stay float32"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="threads that prepare batches and, for blind, all pairs in advance; use as many as CPU cores with a GPU",
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="stop cleanly after this time; the same command resumes")
    parser.add_argument("--validate-every", type=int, default=200, metavar="STEPS")
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--export-now", action="store_true", help="write the file from the saved state of an unfinished run, and stop")
    parser.add_argument(
        "--frames", type=int, help="keep: frames per training clip, 2 or more (default: the recipe's; 10 for paper, which states none)"
    )
    parser.add_argument("--batch", type=int, help="faces or clips per pass, for less memory; gradients accumulate to the recipe's batch")


def run(options: argparse.Namespace) -> int:
    """Trains; returns 0 when finished and 130 when stopped; the same command then resumes.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a folder without faces, the work of another recipe, or options that do not go together.
    """
    for name, networks in ONLY_FOR.items():
        if (given := getattr(options, name)) is not None and options.network not in networks:
            raise ValueError(f"--{name} is for {', '.join(networks)}, got {given} for {options.network}; leave it out")
    if options.frames is not None and options.frames < 2:
        raise ValueError(f"--frames is 2 or more, as keep learns from the frame before, got {options.frames}")
    try:
        {"prior": _prior, "blind": _blind, "codebook": _codebook}.get(options.network, _temporal)(options)
    except Stopped as stop:
        Bars().write(str(stop))
        return EXIT_STOPPED
    return 0


def _settings(options: argparse.Namespace) -> Run:
    folder = options.work or options.out.with_name(f"{options.out.stem}-training")
    precision = torch.bfloat16 if options.precision == "bfloat16" else None
    return Run(folder, options.seed, options.device, precision, options.save_every, options.validate_every, options.minutes, options.workers)


def _prefixes(options: argparse.Namespace) -> tuple[str, ...]:
    given = options.prefix or []
    return tuple(name for prefix in given for name in (FEDERAL if prefix == "federal" else (prefix,)))


def _prior(options: argparse.Namespace) -> None:
    recipe = RECIPES["prior"][options.recipe]
    if options.task is not None:
        if options.recipe != "paper":
            raise ValueError(
                f"--task chooses among the prior's published recipes, got --recipe {options.recipe}: add --recipe paper, or leave it out"
            )
        recipe = prior.paper(options.task)
    if options.batch:
        recipe = replace(recipe, image=recipe.image.with_batch(options.batch), video=recipe.video.with_batch(min(options.batch, recipe.video.batch)))
    faces, held_out = (Faces(options.faces, split, recipe.sizes.side, _prefixes(options)) for split in ("train", "val"))
    torch.manual_seed(options.seed)
    network = recipe.sizes.network()
    _load_flow(options, network, recipe.name)
    clips = None if options.clips is None else Clips(options.clips, recipe.sizes.side, recipe.frames)
    stages = prior.stages_of(recipe, faces, held_out, torch.device(options.device), clips)
    trained = _trained_network(network, stages, _settings(options), recipe.name, options.export_now)
    notes = {SIZES: json.dumps(asdict(recipe.sizes), default=sorted)}  # sets become lists
    does = "denoises aligned faces, with their degraded selves as condition or without: a diffusion prior"
    damage = (recipe.video_blind or recipe.blind).text
    _save(options, trained, recipe.name, "Face prior (FLAIR)", does, (faces, held_out), notes=notes, damage=damage)


def _blind(options: argparse.Namespace) -> None:
    recipe = RECIPES["blind"].get(options.recipe)
    if recipe is None:
        raise ValueError("the blind restorer has one recipe, small, since no paper has published it; leave --recipe out")
    if options.batch:
        detail = recipe.detail.with_batch(min(options.batch, recipe.detail.batch))
        recipe = replace(recipe, pixels=recipe.pixels.with_batch(options.batch), detail=detail)
    settings = _settings(options)
    faces, held_out = (Faces(options.faces, split, CROP, _prefixes(options)) for split in ("train", "val"))
    pairs = Pairs(faces, recipe.footage, recipe.pairs, options.seed, settings.folder / "pairs")
    judged = Pairs(held_out, recipe.footage, blind.VALIDATION_PAIRS, options.seed + 1, settings.folder / "held-out")
    if options.workers and not options.export_now:
        for some in (judged, pairs):
            some.prepare(options.workers)
    torch.manual_seed(options.seed)
    network = BlindUNet(recipe.sizes)
    stages = blind.stages_of(recipe, pairs, judged, torch.device(options.device))
    trained = cast(BlindUNet, _trained_network(network, stages, settings, recipe.name, options.export_now))
    first = settings.folder / "recurrent.safetensors"
    networks = blind.restorers_of(load_file(first) if first.is_file() else None, trained)
    does = "restores clips of aligned 512 x 512 faces with unknown damage"
    _save(options, networks, recipe.name, "Blind restorer", does, (faces, held_out), damage=recipe.footage.describe())


def _load_flow(options: argparse.Namespace, network: nn.Module, recipe: str) -> None:
    """Gives the network SPyNet's weights, which no stage trains. Raises ValueError if they are needed and not given, or the other way round."""
    if spynet_of(network) is None:
        if options.spynet is not None:
            raise ValueError(f"--spynet is for recipes that carry features along flow, and {recipe} does not; leave it out")
        return
    if options.spynet is not None:
        load_spynet(network, options.spynet)
    elif not options.export_now:  # the state on disk has them
        raise ValueError(
            f"the recipe {recipe} carries features along the flow of SPyNet, which is not trained here: give --spynet the file {PUBLISHED}"
        )


def _codebook(options: argparse.Namespace) -> None:
    recipe = RECIPES["codebook"][options.recipe]
    if options.task is not None:
        if (options.task, options.recipe) != ("keep", "paper"):
            raise ValueError(f"the codebook's one --task is keep, with --recipe paper; got {options.task!r} with {options.recipe}: leave --task out")
        recipe = KEEP_BASE
    if options.batch:
        plans = {name: plan for name in ("autoencoder", "prediction", "joint", "cleaned") if (plan := getattr(recipe, name)) is not None}
        recipe = replace(recipe, **{name: plan.with_batch(options.batch) for name, plan in plans.items()})
    faces, held_out = (Faces(options.faces, split, recipe.sizes.vq.side, _prefixes(options)) for split in ("train", "val"))
    torch.manual_seed(options.seed)
    network = codebook.network_of(recipe)
    cleaned = None if recipe.cleaned is None or options.export_now else _cleaned(options, recipe)
    stages = [] if options.export_now else codebook.stages_of(recipe, faces, held_out, torch.device(options.device), cleaned)
    trained = _trained_network(network, stages, _settings(options), recipe.name, options.export_now)
    damage = recipe.blind.text
    if recipe.cleaned is not None:
        damage = f"{STILLS}; small faces by {recipe.footage.describe()}, then cleaned by the blind restorer"
    _save(options, trained, recipe.name, "Face codebook (CodeFormer)", "restores aligned faces frame by frame", (faces, held_out), damage=damage)


def _cleaned(options: argparse.Namespace, recipe: CodebookRecipe) -> tuple[CleanedClips, CleanedClips]:
    """The clips of the recipe's last stage, to learn from and held out.

    Raises:
        FileNotFoundError: in an installation without the embedded blind restorer, which cleans them.
    """
    if not (FOLDER / BLIND).is_file():
        raise FileNotFoundError(
            f"the last stage of the recipe {recipe.name} learns from what the embedded blind restorer leaves of small faces, and {FOLDER / BLIND} "
            "is not there; install this package anew, or make that file with `fvr train blind`"
        )
    folder = _settings(options).folder
    blind = cast(BlindRestorer, build_restorer("blind", weights=FOLDER / BLIND, device=options.device, precision=None))

    def clips(split: str, number: int, seed: int) -> CleanedClips:
        faces = Faces(options.faces, split, CROP, _prefixes(options))
        pairs = Pairs(faces, recipe.footage, number, seed, window=CROP, frames=CLIP)
        return CleanedClips(pairs, blind, recipe.sizes.vq.side, folder / f"cleaned-{split}")

    return clips("train", recipe.clips, options.seed), clips("val", codebook.VALIDATION_CLIPS, options.seed + 1)


def _temporal(options: argparse.Namespace) -> None:
    recipe = RECIPES[options.network][options.recipe]
    if options.task is not None:
        recipe = dicface.for_task(recipe, options.task)
    if options.frames is not None:
        recipe = replace(recipe, frames=options.frames)
    if options.batch:
        recipe = replace(recipe, plan=recipe.plan.with_batch(options.batch))
    further = recipe.evidence is not None and recipe.task != "restore"  # trained on top of the restoring network
    base_path = (FOLDER / (DICFACE if further else CODEBOOK) if options.base is None else options.base).resolve()
    base = _base_network(base_path, recipe, options.recipe, "dicface" if further else "codeformer")
    side = base.config.side
    if options.autoencoder is None and not options.export_now and (recipe.codes or recipe.features or recipe.perceptual):
        raise ValueError(
            f"training {options.network} needs the encoder of clean faces: give --autoencoder, the codebook's work folder's autoencoder.safetensors"
        )
    faces, held_out = (Faces(options.faces, split, side, _prefixes(options)) for split in ("train", "val"))
    if options.network == "keep" and options.recipe == "paper" and options.gmflow is None:
        raise ValueError(f"the recipe {recipe.name} warps along the flow of GMFlow, which is not trained here: give --gmflow {GMFLOW}")
    clips = None if options.clips is None else Clips(options.clips, side, recipe.frames)
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    network: nn.Module = keep.keep_on(base, options.gmflow) if options.network == "keep" else dicface.dicface_on(base, recipe.frames)
    kind: Any = keep.KeepStage if options.network == "keep" else dicface.DicFaceStage
    clean = None if options.autoencoder is None or options.export_now else clean_encoder(base, options.autoencoder)
    stages = [kind(recipe, base.to(device), faces, held_out, device, clean, clips)]
    if recipe.evidence is not None and not further:
        stages.append(EvidenceStage(recipe.evidence, base, faces, held_out, device))
    trained = _trained_network(network, stages, _settings(options), recipe.name, options.export_now)
    title, does, damage = CARD_TEXTS[recipe.task]
    # a file can leave to its base what is the same there only if it finds it: beside itself, and in the form that it is read in
    beside = base_path.parent == options.out.resolve().parent and base_path.suffix == ".safetensors"
    notes = {}
    if options.network == "dicface":
        notes["task"] = recipe.task
    else:
        title = "KEEP's temporal parts"
    if beside and recipe.tied:
        notes[ALIAS] = "hq_encoder.=encoder."
    if recipe.evidence is not None:
        notes["prior"] = f"{recipe.evidence.prior:g}"
    if recipe.filled and recipe.task == "inpaint":
        notes["holes"] = "filled"
    does += f", together with {base_path.name}" if beside else ""
    _save(options, trained, recipe.name, title, does, (faces, held_out), base_path, beside, notes, damage or recipe.blind.text)


CARD_TEXTS = {
    "restore": ("DicFace's temporal parts", "restores clips of aligned faces with what neighbouring frames show", ""),
    "colourise": ("DicFace, colourising", "colours clips of aligned grey faces", "taking their colours away"),
    "inpaint": (
        "DicFace, inpainting",
        "fills holes in clips of aligned faces",
        "brush strokes over 5 to 40 % of the picture, filled from around them",
    ),
}
"""For the card of a task: DicFace's title, what the network does, and how its faces were degraded if not by the recipe's blind degradation."""


def _base_network(path: Path, recipe: temporal.TemporalRecipe, choice: str, kind: str) -> Any:
    """The base network of a file: a codebook network, or a small DicFace for restoration.

    Raises:
        FileNotFoundError, ValueError: as `load_network`; if it is another network; if its side is not the recipe's.
    """
    loaded = load_network(path)
    network: Any = loaded.network
    if loaded.kind != kind:
        wants = "KEEP and DicFace are trained on a CodeFormer: give the codebook network"
        if kind != "codeformer":
            wants = "a further task is trained on a DicFace that restores: give its file, or leave --base out"
        raise ValueError(f"--base {path.name} is a {type(network).__name__}; {wants}")
    side, wanted = network.config.side, recipe.blind.side
    if side != wanted:
        raise ValueError(
            f"the recipe {recipe.name} is for {wanted} x {wanted} pixels and the codebook network {path.name} for {side} x {side}: give --base "
            f"{'codeformer.pth, or ' if wanted == 512 else ''}what `fvr train codebook --recipe {choice}` wrote"
        )
    return network


def _trained_network(network: nn.Module, stages: list, settings: Run, recipe: str, at_once: bool) -> nn.Module:
    if at_once:
        network.load_state_dict(averaged_weights(settings.folder))
        return network.eval()
    with Bars() as bars:
        return train(network, stages, settings, recipe, bars)


def _save(
    options: argparse.Namespace,
    network: nn.Module,
    recipe: str,
    title: str,
    does: str,
    seen: tuple[Faces, Faces],
    base: Path | None = None,
    beside: bool = False,
    notes: dict[str, str] | None = None,
    damage: str = "",
) -> None:
    federal = set(_prefixes(options)) == set(FEDERAL)
    train, held_out = map(len, seen)
    of_base = None if base is None else notes_of(base).get("licence", "")
    others = [] if base is None or of_base in (LICENCE, OWN_LICENCE) else [base.name]
    others += [] if options.gmflow is None else [options.gmflow.name]
    if spynet_of(network) is not None:
        others.append("SPyNet" if options.spynet is None else options.spynet.name)
    licence = LICENCE if federal and of_base in (None, LICENCE) and options.clips is None else OWN_LICENCE
    made = f"starting from {' and '.join(others)}" if others else "with nothing of the published weights in it"
    faces = (
        federal_data(train, held_out, *filter(None, [damage]))
        if federal
        else f"The faces of the folder {options.faces.name}, {train} to learn from and {held_out} to validate."
    )
    card = Card(
        title=title,
        what=f"A {'small ' if options.recipe == 'small' else ''}network that {does}. Made by this package's own recipe, {made}.",
        data=faces if options.clips is None else f"{faces} The clips of the folder {options.clips.name}.",
        licence=f"{licence} The licences of {' and '.join(others)} hold for it too." if others else licence,
        recipe=f'Recipe "{recipe}" of training/; stages, losses and plan are its data classes.',
        command=_command(options, base),
        seed=options.seed,
        bias=FEDERAL_BIAS if federal and options.clips is None else "Not stated: describe whom the folder shows.",
        figures=_figures(_settings(options).folder),
    )
    about = {"recipe": recipe, "network": options.network, **BEST_OPTIONS[options.network]} | ({} if options.gmflow is None else {"flow": "gmflow"})
    export(network.state_dict(), options.out, card, about | (notes or {}), base if beside else None)


def _command(options: argparse.Namespace, base: Path | None) -> str:
    """The command that makes the file again, with names of files and folders instead of their paths."""
    words = ["fvr train", options.network, "--faces", options.faces.name, "--recipe", options.recipe, "--seed", str(options.seed)]
    words += [] if options.task is None else ["--task", options.task]
    words += [f"--prefix {prefix}" for prefix in options.prefix or []]
    for name in ("clips", "spynet", "gmflow", "frames", "batch"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name}", str(getattr(value, "name", value))]
    words += [] if base is None else ["--base", base.name]
    words += [] if options.autoencoder is None else ["--autoencoder", "/".join(options.autoencoder.parts[-2:])]
    return " ".join([*words, "--out", options.out.name])


def _figures(work: Path) -> tuple[tuple[str, str], ...]:
    """The figures of the last stage's last validation, for the card."""
    logs = sorted(work.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return ()
    last = json.loads(logs[-1].read_text())[-1]
    figures = tuple((name, f"{value:.3g}") for name, value in last["figures"].items())
    return (("steps of the last stage", str(last["step"])), *figures)
