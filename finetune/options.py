"""Options of fine-tuning: the paper's schedule, and a short one for small networks and few pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from ..training.plan import Plan

FineTuneRecipe = Literal["codes", "image"]
Perceptual = Literal["auto", "lpips", "encoder", "off"]
RECIPES = ("auto", *get_args(FineTuneRecipe))
PERCEPTUAL = get_args(Perceptual)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class HeldOut:
    """Which pairs are held out for validation. Neighbouring frames are nearly identical, so pairs next to held-out ones are not trained on either.

    Attributes:
        share: of the pairs that are held out, above 0 and at most 0.5.
        block: 0 holds out the last pairs; n cuts the footage into blocks of n pairs and holds out every k-th of them, k = 1 / share.
        guard: pairs between training and held-out pairs that are used for neither; None takes 2 % of all, at least one.
    """

    share: float = 0.15
    block: int = 0
    guard: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 0.5:
            raise ValueError(f"the held-out share must lie above 0 and not above 0.5, got {self.share}; 0.15 is usual")
        if self.block < 0 or (self.guard is not None and self.guard < 0):
            raise ValueError(f"block and guard are numbers of pairs from 0 up, got {self.block} and {self.guard}")

    def split(self, count: int) -> tuple[list[int], list[int]]:
        """Indices of the training and of the validation pairs. Raises ValueError if there are none of either."""
        if self.block:
            every = round(1 / self.share)
            held = [i for i in range(count) if (i // self.block) % every == every - 1]
        else:
            held = list(range(count - max(1, round(self.share * count)), count))
        guard = max(1, round(0.02 * count)) if self.guard is None else self.guard
        near = {i + offset for i in held for offset in range(-guard, guard + 1)}
        learnt = [i for i in range(count) if i not in near]
        if not held or not learnt:
            raise ValueError(
                f"of {count} pairs {len(learnt)} are left to learn from and {len(held)} to judge (share {self.share:g}, blocks of {self.block}, "
                f"guard {guard}); give more pairs, or smaller blocks"
            )
        return learnt, held


@dataclass(frozen=True)
class FineTune:
    """How a restorer is fine-tuned.

    Attributes:
        recipe: "codes": encoder, transformer and heads learn the codes that the frozen network finds in the target; "image": the picture
            itself is compared.
        plan: the schedule.
        tokens, features: weights of the cross-entropy of codes and of the distance to them; in the recipe "image" of networks with codes too.
        pixels: weight of mean |output - target| of images in [0, 1], recipe "image".
        perceptual: weight of the perceptual distance, recipe "image".
        perceptual_by: "lpips" (needs its weights on this machine), "encoder" for the distance in the restorer's own early features, "auto" for the
            first of the two that is available, "off".
        adversary: weight of a discriminator, trained from scratch alongside, recipe "image"; 0 for none.
        rehearsal: share of the inputs that are replaced by the target under the base's own training degradation, against forgetting.
        mirror: whether half of the pairs are flipped horizontally.
        patience: validations without progress after which training ends; 0 for never.
        checkpointing: whether gradient checkpointing is used: less memory, one more forward pass.
        held_out: which pairs validate.
    """

    recipe: FineTuneRecipe
    plan: Plan
    tokens: float = 0.5
    features: float = 1.0
    pixels: float = 1.0
    perceptual: float = 0.1
    perceptual_by: Perceptual = "auto"
    adversary: float = 0.0
    rehearsal: float = 0.0
    mirror: bool = True
    patience: int = 0
    checkpointing: bool = False
    held_out: HeldOut = field(default_factory=HeldOut)

    @property
    def validate_every(self) -> int:
        """Steps between validations: a twentieth of the plan, at least 5 and at most 500."""
        return min(500, max(5, self.plan.steps // 20))


# The paper's (section 4.1 and appendix C.2; batches and the end of the cosine from its configuration files, which start SwinIR at 2e-5
# where the paper says 1e-4). Neither rehearses, and neither stops early.
PAPER: dict[FineTuneRecipe, FineTune] = {
    "codes": FineTune("codes", Plan(40_000, 8, 1e-4, 1e-4, milestones=(35_000, 38_000), ema=0.995)),
    "image": FineTune("image", Plan(20_000, 4, 1e-4, 5e-6, accumulate=4, ema=0.0, betas=(0.9, 0.999)), adversary=0.1, mirror=False),
}

# Ours, for small networks and dozens to hundreds of pictures: a few hundred steps with averaged weights, rehearsal and early stopping. No
# adversary: it learns nothing in that time.
SHORT: dict[FineTuneRecipe, FineTune] = {
    "codes": FineTune("codes", Plan(300, 4, 1e-4, 1e-5, warmup=20, ema=0.98, clip=1.0), rehearsal=0.25, patience=8),
    "image": FineTune("image", Plan(300, 4, 2e-4, 1e-5, warmup=20, ema=0.98, clip=1.0), tokens=0.01, features=0.02, rehearsal=0.25, patience=8),
}
PLANS = {"short": SHORT, "paper": PAPER}


def planned(plan: str, recipe: FineTuneRecipe, *, steps: int = 0, rate: float = 0.0, batch: int = 0) -> FineTune:
    """One of PLANS with other steps, learning rate or batch size; 0 keeps the plan's own.

    Milestones scale with the steps, and accumulation keeps the effective batch size.

    Raises:
        ValueError: for an unknown plan, or a value out of range.
    """
    if plan not in PLANS:
        raise ValueError(f"no plan of fine-tuning is called {plan!r}; choose one of {', '.join(PLANS)}")
    if steps < 0 or rate < 0 or batch < 0:
        raise ValueError(f"steps, learning rate and batch are positive, or 0 for the plan's own, got {steps}, {rate} and {batch}")
    chosen = PLANS[plan][recipe]
    own = chosen.plan
    if steps:
        moved = tuple(round(milestone * steps / own.steps) for milestone in own.milestones)
        own = replace(own, steps=steps, milestones=moved, warmup=min(own.warmup, steps // 4))
    if rate:
        own = replace(own, rate=rate, final_rate=own.final_rate * rate / own.rate)
    if batch:
        own = own.with_batch(batch)
    return replace(chosen, plan=own)
