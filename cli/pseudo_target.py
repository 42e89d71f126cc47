"""`fvr pseudo-target`: training pairs from degraded footage alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plurals import counted
from .clips import add_frame_rate, check_rate, frame_rate, seed, videos_among
from .faces import add_finding

if TYPE_CHECKING:
    from ..methods.pseudo_target.frame_selection import Choice, ChoiceOptions
    from ..methods.pseudo_target.generate import ChosenFace, TargetMaker
    from ..video import FrameSource


def add(commands: Any) -> None:
    p = commands.add_parser(
        "pseudo-target",
        help="generate fine-tuning targets for footage without ground truth",
        description="Restores some of a clip's faces, regenerates them with a diffusion prior that keeps their low frequencies, and writes inputs "
        "and targets as pairs for `fvr finetune --pairs`. Existing pairs in the folder are kept.",
    )
    p.set_defaults(command=pseudo_target)
    p.add_argument("input", help="a video file, a folder of images, or one image")
    p.add_argument("folder", type=Path, help="output folder: inputs, initial and targets, as PNG, and a list")
    p.add_argument(
        "--restorer",
        default="embedded codeformer",
        metavar="FILE",
        help='a checkpoint, or an embedded one such as "embedded keep" (default: embedded codeformer)',
    )
    p.add_argument("--prior", default="embedded face prior", metavar="FILE", help="a diffusion prior (default: embedded face prior)")
    p.add_argument("--preset", help="swinir, codeformer, ... as published, or embedded (default: embedded for the embedded prior, else codeformer)")
    p.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the preset, such as N=16 or anchored=off; may be repeated"
    )
    p.add_argument(
        "--count", type=int, default=20, metavar="PAIRS", help="maximum number of pairs, spread over the clip; 0 for no limit (default: 20)"
    )
    p.add_argument(
        "--choose",
        default="every",
        choices=["every", "diverse"],
        help="every: each n-th frame; diverse: the frames that differ most (default: every)",
    )
    p.add_argument("--every", type=int, default=5, metavar="N", help="n of --choose every (default: 5)")
    p.add_argument("--aligned", action="store_true", help="the input consists of aligned, square faces of one person")
    p.add_argument("--seed", type=seed, default=0)
    p.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    p.add_argument("--start", type=int, default=0, metavar="FRAME", help="first frame, counted from 0")
    p.add_argument("--frames", type=int, metavar="FRAMES", help="at most this many frames; their faces are kept in memory, 3 MB each")
    add_frame_rate(p)
    add_finding(p)


def pseudo_target(options: argparse.Namespace) -> int:
    from .. import host
    from ..methods.pseudo_target.dataset import PairFolder
    from ..methods.pseudo_target.frame_selection import ChoiceOptions
    from ..methods.pseudo_target.generate import make_pairs, parameters_of, summary
    from ..video import allow_playlist, open_source

    allow_playlist(options.input)
    if options.device:
        host.set_device(options.device)
    choosing = ChoiceOptions(mode=options.choose, every=options.every, count=options.count)
    maker = target_maker(options)
    held = PairFolder(options.folder, parameters_of(maker, options.seed))
    source = open_source(options.input, start=options.start, count=options.frames, rate=frame_rate(options.frame_rate))
    check_rate(options.frame_rate, *videos_among(source))
    chosen, choice, candidates = chosen_faces(options, source, choosing)
    if not chosen:
        raise ValueError(f"{options.input} shows {candidates} faces and none of them can be used; give footage that shows one")
    with host.progress(len(chosen) * maker.steps, "pseudo-targets") as tick:
        pairs = make_pairs(
            chosen, maker, seed=options.seed, folder=held, check_interrupt=host.check_interrupt, on_step=lambda done, preview: tick(done)
        )
        tick(pairs.found * maker.steps)
    print(summary(pairs, choice, candidates, maker))
    print(f"{counted(len(held), 'pair')} in {options.folder}; `fvr finetune --pairs {options.folder}` learns from them")
    return 0


def target_maker(options: argparse.Namespace) -> TargetMaker:
    """The restorer, prior and preset of the options. Raises ValueError or FileNotFoundError for missing or unknown ones."""
    from .. import host
    from ..assembly import named_weights
    from ..job_request import assignments
    from ..methods.pseudo_target.algorithm import PRESETS
    from ..methods.pseudo_target.generate import TargetMaker
    from ..methods.registry import restorer_from
    from ..models.checkpoints.load import load_network
    from ..models.device import on
    from ..models.embedded import FOLDER
    from ..options import parse_settings
    from ..priors.load import load_prior, prior_from_file

    device = host.device()
    prior_file = None if options.prior.startswith("gaussian") else named_weights(options.prior)
    name = options.preset or ("embedded" if prior_file is not None and prior_file.parent == FOLDER else "codeformer")
    if name not in PRESETS:
        raise ValueError(f"no preset for pseudo-targets is called {name!r}; choose one of {', '.join(PRESETS)}")
    numbers = parse_settings(PRESETS[name], assignments(options.set), "pseudo-target")
    weights = named_weights(options.restorer)
    if weights is None:
        raise ValueError("--restorer names what restores first, got none; give a checkpoint or one of the embedded restorers")
    loaded = load_network(weights)
    restorer = restorer_from(loaded, place=on(loaded.network, device))
    prior = load_prior(options.prior) if prior_file is None else prior_from_file(prior_file, placed=lambda network: on(network, device))
    return TargetMaker(restorer, prior, numbers, device=device)


def chosen_faces(options: argparse.Namespace, source: FrameSource, choosing: ChoiceOptions) -> tuple[list[ChosenFace], Choice, int]:
    """The chosen faces of a clip, how they were chosen, and the number of candidates."""
    import torch

    from .. import host
    from ..assembly import chosen_detector
    from ..faces.types import FaceClip
    from ..methods.pseudo_target.generate import faces_of, faces_of_frames
    from ..pipeline import CHUNK, aligned_crops, follow_faces

    if options.aligned:
        frames = torch.cat([piece.frames for piece in source.chunks(CHUNK)])
        return *faces_of_frames(frames, choosing), len(frames)
    with host.progress(source.expected, "find faces") as found:
        tracks = follow_faces(source, chosen_detector(options.detector, options.rotate), check_interrupt=host.check_interrupt, on_frame=found)
    crops: list[list[torch.Tensor]] = [[] for _ in tracks]
    for piece in source.chunks(CHUNK):
        for track, parts in zip(tracks, crops, strict=True):
            if track.start < piece.index + len(piece.frames) and piece.index < track.stop:
                parts.append(aligned_crops(piece, track, track.start))
    clips = [FaceClip(track, torch.cat(parts)) for track, parts in zip(tracks, crops, strict=True)]
    return *faces_of(clips, choosing), sum(len(clip.crops) for clip in clips)
