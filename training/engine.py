"""The training loop: stages that can be resumed from disk with the same result, and that write curves, sample sheets and weights."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..atomic import remove_abandoned, resumable_file, write_tensors
from ..models.checkpoints.load import channels_last
from .plan import Plan
from .sheet import curve_png, sheet_png

Batch = dict[str, Tensor]
STATE = "state.pt"
MAX_NONFINITE_STEPS = 20


Net = TypeVar("Net", bound=nn.Module)


class Stage(ABC, Generic[Net]):
    """One stage of a recipe.

    Attributes:
        name: prefix of its files.
        recipe: its hyperparameters.
        adversary: the discriminator with its loss, whose state is saved with the stage's; None without one.
    """

    name: str
    recipe: Any
    adversary: Any = None

    @cached_property
    def plan(self) -> Plan:
        """Its schedule: the recipe's attribute with the name of the stage, or else `recipe.plan`."""
        plan: Plan = getattr(self.recipe, self.name, None) or self.recipe.plan
        return plan

    @abstractmethod
    def start(self, network: Net, done: Mapping[str, Path]) -> None:
        """Sets requires_grad and reads the weights of earlier stages, by name in `done`; called on every start, also when resuming."""

    def groups(self, network: Net) -> list[dict[str, Any]]:
        """The trained parameters as an optimiser's groups; "scale" in a group multiplies the plan's learning rate."""
        return [{"params": [parameter for parameter in network.parameters() if parameter.requires_grad]}]

    @abstractmethod
    def batch(self, step: int, generator: torch.Generator) -> Batch:
        """One batch on the CPU, a function of the arguments alone. Called from other threads."""

    @abstractmethod
    def losses(self, network: Net, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of the loss, weighted; their sum is what is minimised."""

    def initialise(self, network: Net, generator: torch.Generator) -> None:
        """Called once before the stage's first step, not when resuming."""

    def before_step(self, network: Net, step: int, generator: torch.Generator) -> bool:
        """May change the network between steps, in the run's precision. Returns whether the averaged weights must be set to the changed ones."""
        return False

    def validate(self, network: Net) -> tuple[dict[str, float], Tensor | None]:
        """Validation figures by name, and a sample sheet (rows, columns, 3, S, S) in [0, 1]."""
        return {}, None

    def finished(self) -> bool:
        """Called after every validation; True ends the stage early."""
        return False

    def extra(self) -> dict[str, Any]:
        """Further state to save."""
        return {} if self.adversary is None else self.adversary.state()

    def restore(self, extra: dict[str, Any]) -> None:
        """Restores the state from `extra`."""
        if self.adversary is not None:
            self.adversary.restore(extra)


@dataclass(frozen=True)
class Run:
    """How a recipe is run.

    Attributes:
        folder: where all files are written; a run that finds its state there is resumed.
        seed: of all random numbers.
        device: where the network is trained.
        precision: dtype of convolutions and products (torch.autocast), None for float32; weights, averages and losses stay float32. With float16,
            for accelerators without bfloat16, the loss is scaled so that small gradients survive.
        save_every: steps between states on disk.
        validate_every: steps between validations; 0 for the end of each stage only.
        minutes: stop cleanly after this time; 0 for never.
        workers: threads that prepare batches; 0 prepares them between steps.
    """

    folder: Path
    seed: int = 0
    device: str = "cpu"
    precision: torch.dtype | None = torch.bfloat16
    save_every: int = 50
    validate_every: int = 200
    minutes: float = 0.0
    workers: int = 0


class Stopped(Exception):
    """Training was stopped on request before its end; its state is on disk."""


def train(
    network: nn.Module, stages: Sequence[Stage[Any]], run: Run, recipe: str, tick: Callable[[str, int, int, dict[str, float]], None] | None = None
) -> nn.Module:
    """Runs the stages that are not finished and returns the network with its averaged weights, in eval mode.

    Every stage starts from the averaged weights of the one before and writes `<name>.safetensors`, `<name>.json` (losses, figures) and
    `<name>.png` (sheet) to the folder. Batches and random numbers depend on seed, stage and step only, so a resumed run equals an uninterrupted one
    up to rounding.

    Args:
        recipe: text that identifies everything that must not change when a run is resumed.
        tick: called after every step with the stage's name, the steps done, all steps, and the losses.

    Raises:
        Stopped: after Ctrl-C, a termination signal or `run.minutes`.
        ValueError: if the folder holds another recipe's state.
        FloatingPointError: if the loss stays infinite or undefined.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(run.folder, 0)
    device = torch.device(run.device)
    network = network.to(device)
    channels_last(network)
    if device.type == "cpu" and run.precision is torch.bfloat16:
        for module in network.modules():
            if isinstance(module, nn.GroupNorm):  # in bfloat16 its backward pass takes as long as all convolutions
                module.register_forward_pre_hook(_in_float32)
    state = _saved_state(run.folder / STATE, recipe, run.seed)
    done = {stage.name: run.folder / f"{stage.name}.safetensors" for stage in stages}
    first = 0 if state is None else [stage.name for stage in stages].index(state["stage"])
    if state is None and first == 0:
        torch.manual_seed(run.seed)
    started = time.monotonic()
    with _stop_requests() as asked:

        def stop_requested() -> bool:
            return bool(asked) or bool(run.minutes and time.monotonic() - started > 60 * run.minutes)

        for stage in stages[first:]:
            _StageRun(network, stage, run, recipe, done).work(state if state and state["stage"] == stage.name else None, stop_requested, tick)
            network.load_state_dict(load_file(done[stage.name]))
    return network.eval()


def averaged_weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a run from its state on disk. Raises FileNotFoundError if the folder holds no run."""
    if not (folder / STATE).is_file():
        raise FileNotFoundError(f"{folder} holds no {STATE}; train there first")
    return _read_state(folder / STATE)["average"]


class _StageRun:
    """A stage in training: network, average, optimiser and history."""

    def __init__(self, network: nn.Module, stage: Stage[Any], run: Run, recipe: str, done: Mapping[str, Path]) -> None:
        self.network, self.stage, self.run, self.recipe = network, stage, run, recipe
        self.device = torch.device(run.device)
        stage.start(network, done)
        self.averaged = AveragedModel(network, avg_fn=_ema_with_warm_up(stage.plan.ema)).eval().requires_grad_(False)
        self.average: nn.Module = self.averaged.module
        self.trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(stage.groups(network), stage.plan.rate, stage.plan.betas, weight_decay=stage.plan.decay, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=run.precision is torch.float16)
        self.history: list[dict[str, Any]] = []
        self.nonfinite = 0

    def work(self, state: dict[str, Any] | None, stop_requested: Callable[[], bool], tick: Callable[..., None] | None) -> None:
        plan, name = self.stage.plan, self.stage.name
        if state is None:
            self.stage.initialise(self.network, self._generator("first", 0))
            self.average.load_state_dict(self.network.state_dict())
            begun = 0
        else:
            begun = self._resume(state)
        self.network.train()
        recent: deque[dict[str, float]] = deque(maxlen=50)
        done = begun
        if begun and self._due(begun) and not (self.history and self.history[-1]["step"] == begun):
            self._validate(begun, recent)  # it was interrupted before
        ended = state is not None and self.stage.finished()
        for step, batches in self._batches(begun, begun if ended else plan.steps):
            with self._autocast():
                changed = self.stage.before_step(self.network, step, self._generator("before", step))
            if changed:
                self.average.load_state_dict(self.network.state_dict())
            try:
                losses = self._step(step, batches)
                done = step + 1
                recent.append(losses)
                if tick is not None:
                    tick(name, done, plan.steps, losses)
                last, halt = done == plan.steps, stop_requested()
                if self._due(done):
                    self._validate(done, recent)
                    last = last or self.stage.finished()
            except FloatingPointError:
                raise
            except BaseException:  # an interruption by the host, or out of memory: save the training so far
                self._save(done)
                raise
            if last or halt or done % self.run.save_every == 0:
                self._save(done)
            if halt and not last:
                raise Stopped(f"stopped in stage {name} after {done} of {plan.steps} steps; the same command goes on from there")
            if last:
                break
        write_weights(self.average, self.run.folder / f"{name}.safetensors")

    def _step(self, step: int, batches: list[Batch]) -> dict[str, float]:
        plan = self.stage.plan
        for group in self.optimiser.param_groups:
            group["lr"] = plan.rate_at(step) * group.get("scale", 1.0)
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for number, batch in enumerate(batches):
            batch = {key: _to_device(value, self.device) for key, value in batch.items()}
            with self._autocast():
                terms = self.stage.losses(self.network, batch, step, self._generator("step", step, number))
            total = torch.stack([term.float() for term in terms.values()]).sum() / len(batches)
            self.scaler.scale(total).backward()
            for key, term in terms.items():
                sums[key] = sums.get(key, 0.0) + float(term.detach()) / len(batches)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.trained, plan.clip or float("inf"))
        if not (math.isfinite(sum(sums.values())) and math.isfinite(float(norm))):
            self.nonfinite += 1
            self.scaler.update()
            if self.nonfinite >= MAX_NONFINITE_STEPS:
                raise FloatingPointError(
                    f"the loss of stage {self.stage.name} was infinite or undefined {self.nonfinite} times in a row at step {step}; the state on "
                    "disk is from before: lower the learning rate, or turn bfloat16 off"
                )
            return sums
        self.nonfinite = 0
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.averaged.n_averaged.fill_(1 + step)
        self.averaged.update_parameters(self.network)
        return sums

    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, list[Batch]]]:
        """The batches of each step, prepared ahead by `run.workers` threads."""
        plan = self.stage.plan

        def prepared(step: int) -> list[Batch]:
            return [self.stage.batch(step, self._generator("batch", step, number)) for number in range(plan.accumulate)]

        if not self.run.workers:
            for step in range(start, stop):
                yield step, prepared(step)
            return
        with ThreadPoolExecutor(self.run.workers) as pool:
            waiting: deque[Future[list[Batch]]] = deque(pool.submit(prepared, step) for step in range(start, min(stop, start + 2 * self.run.workers)))
            for step in range(start, stop):
                batches = waiting.popleft().result()
                if step + 2 * self.run.workers < stop:
                    waiting.append(pool.submit(prepared, step + 2 * self.run.workers))
                yield step, batches

    def _due(self, done: int) -> bool:
        """Whether there is a validation after this many steps."""
        return done == self.stage.plan.steps or (bool(self.run.validate_every) and done % self.run.validate_every == 0)

    def _validate(self, done: int, recent: Sequence[Mapping[str, float]]) -> None:
        with torch.inference_mode(), self._autocast():
            figures, sheet = self.stage.validate(self.average)
        means = {key: sum(losses.get(key, 0.0) for losses in recent) / len(recent) for key in (recent[-1] if recent else ())}
        self.history.append({"step": done, "losses": means, "figures": figures})
        log = self.run.folder / f"{self.stage.name}.json"
        log.write_text(json.dumps(self.history, indent=1))
        curve_png([(entry["step"], entry["figures"]) for entry in self.history], self.run.folder / f"{self.stage.name}-curve.png")
        if sheet is not None:
            sheet_png(sheet.float().cpu(), self.run.folder / f"{self.stage.name}.png")

    def _save(self, done: int) -> None:
        state = {
            "recipe": self.recipe,
            "seed": self.run.seed,
            "stage": self.stage.name,
            "step": done,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": json.dumps(self.history),
            "extra": self.stage.extra(),
        }
        with resumable_file(self.run.folder / STATE) as part:  # a crash while writing leaves the state before
            torch.save(state, part)

    def _resume(self, state: dict[str, Any]) -> int:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state.get("scaler", {}))  # does nothing unless in float16
        self.history = json.loads(state["history"])
        self.stage.restore(state["extra"])
        return state["step"]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.run.precision, enabled=self.run.precision is not None)

    def _generator(self, *what: object) -> torch.Generator:
        return generator_for(self.run.seed, self.stage.name, *what)


def generator_for(*what: object) -> torch.Generator:
    """A generator seeded by all that is given."""
    digest = hashlib.sha256("/".join(map(str, what)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _saved_state(path: Path, recipe: str, seed: int) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    state = _read_state(path)
    if (state["recipe"], state["seed"]) != (recipe, seed):
        raise ValueError(
            f"{path} is the state of another run (seed {state['seed']}, recipe {state['recipe']}), and this one has seed {seed}, recipe {recipe}; "
            "give another --work folder, or remove that one to start again"
        )
    return state


def _read_state(path: Path) -> dict[str, Any]:
    """What a run left. Raises ValueError if that is damaged."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except (EOFError, RuntimeError, UnpicklingError) as error:
        what = str(error).strip().split("\n")[0] or "it is empty"
        raise ValueError(f"{path} cannot be read ({what}); if it is damaged, remove it to start again") from error


def _ema_with_warm_up(ema: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average of weights whose decay grows from 0.1 to `ema` (min(ema, n / (9 + n))), so that it forgets the start."""

    def step(average: Tensor, now: Tensor, steps: Tensor | int) -> Tensor:
        return average.lerp(now, 1 - min(ema, float(steps) / (9 + float(steps))))

    return step


def _in_float32(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)


def _to_device(value: Tensor, device: torch.device) -> Tensor:
    value = value.to(device, non_blocking=True)
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def write_weights(network: nn.Module, path: Path) -> None:
    """A network's tensors as a .safetensors file, whole or not at all."""
    # copies: a module that several layers share (SPyNet) has several names, and the file holds every tensor under each of them
    write_tensors({key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in network.state_dict().items()}, path)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Ctrl-C and termination, collected instead of raised; the second one acts at once."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's business
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
