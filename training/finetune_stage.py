"""What both recipes of fine-tuning share: batches, the held-out part, the best state, and when to stop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..faces.types import CROP
from ..methods.detail_fusion import merged
from ..metrics.fidelity import psnr
from .degradations import LARGE, NATIVE_128, Blind
from .engine import Batch, Plan, Stage
from .finetune_memory import checkpoint_blocks
from .finetune_networks import Use, chosen
from .finetune_options import FineTune
from .finetune_pairs import Pairs

NAME = "fine-tune"
BEST = "best.safetensors"
JUDGES = 32
"""At most so many held-out pairs are looked at in a validation, spread evenly."""
SHOWN = 4
LOSS, QUALITY = "held-out loss", "held-out dB"


class FineTuneStage(Stage):
    """One recipe on one network.

    Args:
        use: how the network is used once it is loaded.
        pairs: what is learnt.
        options: with the recipe of the class.
        folder: where the best state is kept.
        reduced: the dtype that the run computes in, None for float32.
        heartbeat: called before every pass; may raise.

    Attributes:
        before: the held-out figures of the network as it came.
        best: the lowest held-out loss so far; the network as it came is the first to have one.
        best_step: where it was, 0 for the network as it came.
        sheet: (rows, 4, 3, S, S) in [0, 1] of the last validation: input, as it came, now, target.
    """

    name = NAME

    def __init__(
        self,
        use: Use,
        pairs: Pairs,
        options: FineTune,
        folder: Path,
        device: torch.device,
        reduced: torch.dtype | None = None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self.use, self.pairs, self.options, self.folder, self.device, self.reduced = use, pairs, options, folder, device, reduced
        self.heartbeat = heartbeat
        self.learnt, held = options.held_out.split(len(pairs))
        every = -(-len(held) // JUDGES)
        self.judges = held[::every]
        self.before: dict[str, float] = {}
        self.best, self.best_step, self.best_figures, self.idle, self.step = float("inf"), 0, self.before, 0, 0
        self.sheet: Tensor | None = None
        self._as_it_came: Tensor | None = None

    @property
    def plan(self) -> Plan:  # type: ignore[override]
        return self.options.plan

    @abstractmethod
    def prepare(self, network: nn.Module) -> None:
        """Makes what the losses need from the network as it came."""

    @abstractmethod
    def terms(self, network: nn.Module, batch: Batch, *, draw: bool) -> tuple[dict[str, Tensor], Tensor | None]:
        """The weighted terms without the adversary's, and the picture if it was drawn anyway or `draw` asks for it."""

    def start(self, network: nn.Module, done: Mapping[str, Path]) -> None:
        chosen(network, self.options.recipe)
        self.prepare(network)
        if self.options.checkpointing:
            checkpoint_blocks(network)
        with torch.inference_mode(), torch.autocast(self.device.type, self.reduced, enabled=self.reduced is not None):
            self.before, self._as_it_came = self._judged(network)

    def first(self, network: nn.Module, generator: torch.Generator) -> None:
        self.best, self.best_step, self.best_figures, self.idle = self.before[LOSS], 0, self.before, 0
        self._keep(network)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """Pairs in [-1, 1], and "which": twice their number, plus 1 where they are mirrored."""
        options = self.options
        index = torch.randint(len(self.learnt), (self.plan.batch,), generator=generator).tolist()
        mirrored = (torch.rand(self.plan.batch, generator=generator) < 0.5 * options.mirror).tolist()
        rehearsed = (torch.rand(self.plan.batch, generator=generator) < options.rehearsal).tolist()
        sources, targets = [], []
        for number, mirror, known in zip((self.learnt[i] for i in index), mirrored, rehearsed, strict=True):
            source, target = self.pairs.pair(number)
            if known:
                source = blind_for(target.shape[-1]).draw(generator)(target, generator)
            sources.append(source.flip(-1) if mirror else source)
            targets.append(target.flip(-1) if mirror else target)
        which = torch.tensor([2 * self.learnt[i] + mirror for i, mirror in zip(index, mirrored, strict=True)])
        return {"source": torch.stack(sources) * 2 - 1, "target": torch.stack(targets) * 2 - 1, "which": which}

    def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.begin(step, generator)
        return self.terms(network, batch, draw=False)[0]

    def begin(self, step: int, generator: torch.Generator) -> None:
        """Before every pass: dropped paths and the like are then drawn from the run's seed and the step too."""
        self.heartbeat()
        self.step = step + 1
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))

    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        figures, pictures = self._judged(network)
        self.idle += 1
        if figures[LOSS] < self.best:
            self.best, self.best_step, self.best_figures, self.idle = figures[LOSS], self.step, figures, 0
            self._keep(network)
        assert self._as_it_came is not None
        rows = self.judges[:SHOWN]
        sources, targets = (torch.stack([self.pairs.pair(i)[part] for i in rows]) for part in (0, 1))
        self.sheet = torch.stack([sources, self._as_it_came[: len(rows)], pictures[: len(rows)], targets], 1)
        return figures, self.sheet

    def finished(self) -> bool:
        return bool(self.options.patience) and self.idle >= self.options.patience

    def extra(self) -> dict[str, Any]:
        return {"best": self.best, "best step": self.best_step, "best figures": self.best_figures, "idle": self.idle, "step": self.step}

    def restore(self, extra: dict[str, Any]) -> None:
        self.best, self.best_step, self.best_figures = extra["best"], extra["best step"], extra["best figures"]
        self.idle, self.step = extra["idle"], extra["step"]

    def _judged(self, network: nn.Module) -> tuple[dict[str, float], Tensor]:
        """The held-out loss and what restored held-out faces differ from their targets; and those faces, (n, 3, S, S) in [0, 1]."""
        sums: dict[str, float] = {}
        pictures: list[Tensor] = []
        size = max(1, self.plan.batch)
        for start in range(0, len(self.judges), size):
            self.heartbeat()
            part = self.judges[start : start + size]
            pairs = [self.pairs.pair(i) for i in part]
            batch = {name: torch.stack([pair[place] for pair in pairs]) for place, name in enumerate(("source", "target"))}
            placed = {name: (images * 2 - 1).to(self.device) for name, images in batch.items()}
            terms, picture = self.terms(network, {**placed, "which": torch.tensor([2 * i for i in part])}, draw=True)
            assert picture is not None
            shown = restored(picture, batch["source"])
            found = {LOSS: sum(float(term) for term in terms.values()), QUALITY: float(psnr(shown, batch["target"]).mean())}
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * len(part) / len(self.judges)
            if len(pictures) * size < SHOWN:
                pictures.append(shown)
        return sums, torch.cat(pictures)

    def _keep(self, network: nn.Module) -> None:
        state = {key: value.detach().cpu().clone().contiguous() for key, value in network.state_dict().items()}
        save_file(state, self.folder / f"{BEST}.part")
        (self.folder / f"{BEST}.part").replace(self.folder / BEST)


def restored(picture: Tensor, source: Tensor) -> Tensor:
    """A network's picture as its restorer would give it at the network's side, (n, 3, S, S) in [0, 1] on the CPU (methods/detail_fusion.py)."""
    image = (picture.detach().float().cpu() + 1) / 2
    return (merged(image.clamp(0, 1), source) if image.shape[-1] < CROP else image).clamp(0, 1)


def blind_for(side: int) -> Blind:
    """The degradation that restorers of this side are first trained on."""
    return NATIVE_128.at(side) if side < CROP else LARGE.at(side)
