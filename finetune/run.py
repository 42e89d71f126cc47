"""Fine-tunes a face restorer on pairs from new footage (pseudo-targets, section 3.4) and writes the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..models.checkpoints.load import LoadedNetwork, load_network
from ..models.checkpoints.origin import weights_digest
from ..models.tuning import published, recipe_for
from ..training.engine import STATE, Run, train
from ..training.sheet import curve_png
from .base_model import UNKNOWN, Base
from .checkpoint import check_writable, write_fine_tuned
from .dataset import Pairs, digest_of
from .options import PRECISIONS, RECIPES, FineTune, FineTuneRecipe, planned
from .stage import BEST, NAME, QUALITY, CodeFineTuneStage, FineTuneStage, ImageFineTuneStage

Tick = Callable[[str, int, int, dict[str, float]], None]
CURVES, SHEET = "curves.png", "before-after.png"
WARN_BELOW_DB = 0.5
"""Loss of held-out quality, in dB, from which the report warns."""


@dataclass(frozen=True)
class FineTuned:
    """The result of fine-tuning.

    Attributes:
        loaded: the written file, loaded as by Load Face Restorer.
        before, after: held-out figures of the base and of the written weights.
        best_step: the step of the written weights; 0 if nothing beat the base, which is then written unchanged.
        steps: number of steps taken.
        curves, sheet: pictures of losses and held-out figures over steps, and of held-out faces (input, before, after, target).
        text: report in words, also in the file's metadata as "report".
    """

    loaded: LoadedNetwork
    before: dict[str, float]
    after: dict[str, float]
    best_step: int
    steps: int
    curves: Path
    sheet: Path
    text: str


def precision_for(precision: str, device: torch.device | str) -> torch.dtype | None:
    """The `precision` of a `Run` for one of PRECISIONS; "auto" is bfloat16 on accelerators that have it, else float16, and float32 on CPUs.

    Raises:
        ValueError: for another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"the precision of fine-tuning is one of {', '.join(PRECISIONS)}, got {precision!r}")
    kind = torch.device(device).type
    if precision == "auto":
        has = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if has else "float16" if kind == "cuda" else "float32"
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)


def options_for(base: Base, *, plan: str = "short", recipe: str = "auto", steps: int = 0, rate: float = 0.0, batch: int = 0) -> FineTune:
    """The options of a plan for a base; numbers that are 0 are the plan's own.

    Raises:
        ValueError: for an unknown plan or recipe, or a number out of range.
    """
    if recipe not in RECIPES:
        raise ValueError(f"the recipe of fine-tuning is one of {', '.join(RECIPES)}, got {recipe!r}")
    wanted: FineTuneRecipe = "codes" if (recipe_for(base.network, base.use) if recipe == "auto" else recipe) == "codes" else "image"
    return planned(plan, wanted, steps=steps, rate=rate, batch=batch)


def fingerprint(base: Base, pairs: Pairs, options: FineTune, run: Run, reals: Sequence[Tensor] | Tensor | None = None) -> str:
    """16 hex digits over everything that determines the result; a saved state is resumed only if they agree.

    The dtype of the file is not part of it: a run whose weights do not fit into float16 can still be saved as float32.
    """
    clean = "" if reals is None else digest_of(reals)
    weights = base.sha256 if base.file != UNKNOWN else weights_digest(base.network)
    said = [weights, base.side, base.use, pairs.digest, options, run.seed, str(run.precision), clean]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def fine_tune(
    base: Base,
    pairs: Pairs,
    options: FineTune,
    run: Run,
    out: Path,
    *,
    half: bool = False,
    reals: Sequence[Tensor] | Tensor | None = None,
    mark: str | None = None,
    tick: Tick | None = None,
    check_interrupt: Callable[[], None] = lambda: None,
    on_stage: Callable[[FineTuneStage], None] = lambda stage: None,
) -> FineTuned:
    """Trains on the pairs and writes the weights with the best held-out figures; a run that finds its state in `run.folder` is resumed.

    Args:
        base: its network is trained in place.
        pairs: at the base's side.
        run: where and how; its validate_every is the options'.
        out: the file to write, .safetensors.
        half: whether it is written in float16.
        reals: clean faces (3, S, S) uint8 for the adversary; None takes the targets.
        mark: the run's `fingerprint`, if it is known already.
        tick: called after every step.
        check_interrupt: called before every pass; may raise, after which the same call resumes.
        on_stage: called with the stage before it starts, for previews.

    Raises:
        Stopped: after Ctrl-C or when the run's minutes are up.
        ValueError: as `train`, and if the file or the run's folder cannot be written.
        FloatingPointError: as `train`.
    """
    check_writable(out)
    mark = mark or fingerprint(base, pairs, options, run, reals)
    run = replace(run, validate_every=options.validate_every)
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder {run.folder} for states and pictures cannot be made ({error.strerror}); choose another") from error
    kind = CodeFineTuneStage if options.recipe == "codes" else ImageFineTuneStage
    stage = kind(base.use, pairs, options, run.folder, torch.device(run.device), run.precision, check_interrupt)
    stage.reals = reals
    on_stage(stage)
    train(base.network, [stage], run, f"fine-tune {mark}", tick)
    history = json.loads((run.folder / f"{NAME}.json").read_text())
    losses = [{f"loss: {name}": value for name, value in entry["losses"].items()} for entry in history]
    points = [(0, stage.before), *((entry["step"], entry["figures"] | terms) for entry, terms in zip(history, losses, strict=True))]
    curve_png(points, run.folder / CURVES)
    if (run.folder / f"{NAME}.png").is_file():
        (run.folder / f"{NAME}.png").replace(run.folder / SHEET)
    taken = history[-1]["step"]
    text = _text(base, pairs, options, stage, taken, half)
    best = load_file(run.folder / BEST)
    state = {key.removeprefix("network."): value for key, value in best.items()} if published(base.network) is not base.network else best
    write_fine_tuned(
        state, out, _notes(base, pairs, options, run, stage, mark, text), base.notes, half=half
    )  # last: the pictures exist before the file
    for name in (STATE, BEST, f"{NAME}.safetensors", f"{NAME}-curve.png"):
        (run.folder / name).unlink(missing_ok=True)
    return FineTuned(load_network(out), stage.before, stage.best_figures, stage.best_step, taken, run.folder / CURVES, run.folder / SHEET, text)


def _notes(base: Base, pairs: Pairs, options: FineTune, run: Run, stage: FineTuneStage, mark: str, text: str) -> dict[str, str]:
    """The metadata of the file: its origin."""
    compared = f", perceptual distance by {stage.compared}" if stage.compared else ""
    return {
        "title": f"Fine-tuned {base.notes.get('title', base.kind)}",
        "licence": base.licence,
        "base_file": base.file,
        "base_sha256": base.sha256,
        "recipe": f"pseudo-target fine-tuning by {options.recipe}{compared}; {options}",
        "pairs": f"{len(pairs)}, of which {len(stage.train_pairs)} learnt",
        "pairs_sha256": pairs.digest,
        "steps": str(stage.best_step),
        "seed": str(run.seed),
        "run": mark,
        "held_out": json.dumps({"before": stage.before, "after": stage.best_figures}),
        "report": text,
    }


def _text(base: Base, pairs: Pairs, options: FineTune, stage: FineTuneStage, taken: int, half: bool) -> str:
    gain = stage.best_figures[QUALITY] - stage.before[QUALITY]
    lines = [
        f"{base.file} ({base.kind}) fine-tuned by {options.recipe} on {len(stage.train_pairs)} of {len(pairs)} pairs, "
        f"{'float16' if half else 'float32'}; {base.licence}",
        f"{taken} of {options.plan.steps} steps of {options.plan.batch * options.plan.accumulate} pairs; the best held-out state is that of "
        f"step {stage.best_step}",
    ]
    lines += [f"{name}: {value:.4g} before, {stage.best_figures[name]:.4g} after" for name, value in stage.before.items()]
    if stage.compared and options.perceptual:
        named = {"encoder": "the restorer's own first features", "off": "none", "lpips": "LPIPS"}[stage.compared]
        lines.append(f"perceptual distance: {named}")
    if stage.best_step == 0:
        lines.append("nothing beat the base on the held-out pairs, so the file holds its weights; give more pairs, or a smaller learning rate")
    elif gain < -WARN_BELOW_DB:
        lines.append(f"held-out pictures are {-gain:.1f} dB further from their targets than the base's: look at the before and after pictures")
    return "\n".join(lines)
