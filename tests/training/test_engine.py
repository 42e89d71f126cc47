"""The loop: resumed runs equal uninterrupted ones, stops are clean, and bad steps are not taken."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fvr.atomic import temporary_name
from fvr.training.engine import MAX_NONFINITE_STEPS, STATE, Batch, Run, Stage, Stopped, averaged_weights, train, write_weights
from fvr.training.plan import Plan


class Line(Stage):
    """Fits w x to 3 x; `poison` makes the loss undefined from that step on."""

    def __init__(self, name: str = "line", steps: int = 12, poison: int = 10**9, accumulate: int = 1) -> None:
        self.name, self.poison = name, poison
        self.plan = Plan(steps, 4, 0.05, 0.01, accumulate=accumulate, warmup=2, ema=0.5)
        self.revived = 0

    def start(self, network: nn.Module, done: Mapping[str, Path]) -> None:
        network.requires_grad_(True)

    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        nn.init.zeros_(network.weight)

    def batch(self, step: int, generator: torch.Generator) -> Batch:
        return {"x": torch.rand(4, 1, generator=generator)}

    def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        noise = 0.01 * torch.randn((), generator=generator)
        loss = (network(batch["x"]).float() - 3 * batch["x"] + noise).square().mean()
        return {"fit": loss * (float("nan") if step >= self.poison else 1)}

    def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor | None]:
        return {"w": float(network.weight)}, torch.rand(2, 3, 3, 8, 8)

    def extra(self) -> dict:
        return {"revived": self.revived}

    def restore(self, extra: dict) -> None:
        self.revived = extra["revived"]


def fresh() -> nn.Linear:
    return nn.Linear(1, 1, bias=False)


def run(folder: Path, **changes) -> Run:
    return Run(folder, precision=None, save_every=5, validate_every=4, **changes)


def stopper(at: int):
    """A tick that asks to stop by Ctrl-C after so many steps."""

    def tick(stage: str, done: int, steps: int, losses: dict) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGINT)

    return tick


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(fresh(), [Line("a"), Line("b")], run(tmp_path / "whole"), "r")
    for workers, folder in ((0, tmp_path / "parts"), (2, tmp_path / "threads")):
        for at in (3, 7):
            with pytest.raises(Stopped, match="goes on from there"):
                train(fresh(), [Line("a"), Line("b")], run(folder, workers=workers), "r", stopper(at))
        parts = train(fresh(), [Line("a"), Line("b")], run(folder, workers=workers), "r")
        assert torch.equal(parts.weight, whole.weight)
        assert torch.equal(load_file(folder / "a.safetensors")["weight"], load_file(tmp_path / "whole" / "a.safetensors")["weight"])
    assert [entry["step"] for entry in json.loads((tmp_path / "parts" / "b.json").read_text())] == [4, 8, 12]
    assert (tmp_path / "parts" / "b.png").stat().st_size > 100 and (tmp_path / "parts" / "b-curve.png").stat().st_size > 100
    assert not list(tmp_path.rglob("*.part"))


def test_partial_files_of_a_killed_run_are_removed_first(tmp_path: Path) -> None:
    left = temporary_name(tmp_path / STATE)
    left.touch()
    with pytest.raises(Stopped):
        train(fresh(), [Line()], run(tmp_path, minutes=1e-9), "r")
    assert not left.exists()


def test_training_reduces_the_loss_and_returns_averaged_weights(tmp_path: Path) -> None:
    network = train(fresh(), [Line(steps=150)], run(tmp_path), "r")
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert abs(network.weight.item() - 3) < 0.3 and not network.training
    assert torch.equal(network.weight, state["average"]["weight"]) and not torch.equal(network.weight, state["network"]["weight"])


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    class Fixed(Line):
        def batch(self, step: int, generator: torch.Generator) -> Batch:
            return {"x": torch.full((4, 1), 0.1 * (step + 1))}

        def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
            return {"fit": (network(batch["x"]) - 3 * batch["x"]).square().mean()}

    once, twice = (train(fresh(), [Fixed(accumulate=n)], run(tmp_path / str(n)), "r") for n in (1, 2))
    assert torch.allclose(once.weight, twice.weight)


def test_nan_losses_change_no_weights_and_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(fresh(), [Line(steps=100, poison=5)], run(tmp_path), "r")
    last = torch.load(tmp_path / STATE, weights_only=True)
    with pytest.raises(Stopped):
        train(fresh(), [Line(steps=100)], run(tmp_path / "healthy"), "r", stopper(5))
    assert 5 <= last["step"] <= 5 + MAX_NONFINITE_STEPS
    assert torch.equal(last["network"]["weight"], torch.load(tmp_path / "healthy" / STATE, weights_only=True)["network"]["weight"])


def test_the_time_limit_stops_cleanly(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="after 1 of 12 steps"):
        train(fresh(), [Line()], run(tmp_path, minutes=1e-9), "r")
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 1


def test_another_recipe_or_seed_is_refused(tmp_path: Path) -> None:
    train(fresh(), [Line()], run(tmp_path), "r")
    with pytest.raises(ValueError, match="another run"):
        train(fresh(), [Line()], run(tmp_path), "other")
    with pytest.raises(ValueError, match="another run"):
        train(fresh(), [Line()], run(tmp_path, seed=1), "r")


def test_a_damaged_state_is_one_sentence(tmp_path: Path) -> None:
    train(fresh(), [Line()], run(tmp_path), "r")
    whole = (tmp_path / STATE).read_bytes()
    for damaged in (b"", b"no state", whole[: len(whole) // 2]):
        (tmp_path / STATE).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"state\.pt cannot be read \(.+\); if it is damaged, remove it to start again"):
            train(fresh(), [Line()], run(tmp_path), "r")
        with pytest.raises(ValueError, match="cannot be read"):
            averaged_weights(tmp_path)
    (tmp_path / STATE).write_bytes(whole)
    assert averaged_weights(tmp_path).keys() == fresh().state_dict().keys()


@pytest.mark.skipif(os.name != "posix", reason="needs limits of POSIX")
def test_a_full_disk_raises_one_sentence_and_keeps_the_state(tmp_path: Path) -> None:
    """The limit on the size of files stands for the full disk: writing fails, and only then."""
    import resource

    train(fresh(), [Line(steps=4)], run(tmp_path), "r")
    whole = (tmp_path / STATE).read_bytes()
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 4, before[1]))
        with pytest.raises(OSError, match=r"state\.pt could not be written \(.+\); the disk may be full: make room and start it again"):
            train(fresh(), [Line(steps=9)], run(tmp_path), "r")
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, before[1]))
        with pytest.raises(OSError, match=r"new\.safetensors could not be written \(.+\); the disk may be full"):
            write_weights(fresh(), tmp_path / "new.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / STATE).read_bytes() == whole and not list(tmp_path.glob("*.part"))
    train(fresh(), [Line(steps=9)], run(tmp_path), "r")
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 9


def test_learning_rates_warm_up_decay_and_halve() -> None:
    plan = Plan(100, 1, 1.0, 0.1, warmup=10)
    assert plan.rate_at(0) == pytest.approx(0.1) and plan.rate_at(9) > 0.95 and plan.rate_at(99) == pytest.approx(0.1, abs=1e-2)
    halving = Plan(500, 1, 1.0, 1.0, milestones=(400, 450))
    assert [halving.rate_at(step) for step in (0, 399, 400, 450)] == [1, 1, 0.5, 0.25]
    with pytest.raises(ValueError, match="rates"):
        Plan(10, 1, 0.1, 0.2)


class Interruption(BaseException):
    """What a host raises from its progress bar."""


def test_an_interruption_saves_the_state(tmp_path: Path) -> None:
    whole = train(fresh(), [Line()], run(tmp_path / "whole"), "r")

    def tick(stage: str, done: int, steps: int, losses: dict) -> None:
        if done in (4, 7):
            raise Interruption

    for at in (4, 7):
        with pytest.raises(Interruption):
            train(fresh(), [Line()], run(tmp_path / "parts"), "r", tick)
        assert torch.load(tmp_path / "parts" / STATE, weights_only=True)["step"] == at
    assert torch.equal(train(fresh(), [Line()], run(tmp_path / "parts"), "r").weight, whole.weight)
    assert [entry["step"] for entry in json.loads((tmp_path / "parts" / "line.json").read_text())] == [4, 8, 12]


def test_early_stopping_survives_resuming(tmp_path: Path) -> None:
    class Short(Line):
        def finished(self) -> bool:
            return self.revived >= 2

        def validate(self, network: nn.Module) -> tuple[dict[str, float], Tensor | None]:
            self.revived += 1
            return super().validate(network)

    first = train(fresh(), [Short()], run(tmp_path), "r")
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 8
    again = train(fresh(), [Short()], run(tmp_path), "r")
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 8 and torch.equal(first.weight, again.weight)


def test_float16_trains_and_resumes_with_its_loss_scale(tmp_path: Path) -> None:
    class Tiny(Line):
        """A loss whose gradients are below float16's smallest number."""

        def losses(self, network: nn.Module, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
            return {"fit": (network(batch["x"]).float() - 3 * batch["x"]).square().mean() * 1e-8}

    half = Run(tmp_path / "a", precision=torch.float16, save_every=50, validate_every=0)
    network = train(fresh(), [Tiny(steps=150)], half, "r")
    assert network.weight.item() > 1  # unscaled, it stays 0
    parts = Run(tmp_path / "b", precision=torch.float16, save_every=50, validate_every=0)
    with pytest.raises(Stopped):
        train(fresh(), [Tiny(steps=150)], parts, "r", stopper(40))
    assert torch.equal(train(fresh(), [Tiny(steps=150)], parts, "r").weight, network.weight)
