"""How some of the footage is held out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeldOut:
    """Which pairs only judge. Neighbours in a clip are nearly the same picture, so pairs next to those that judge are not learnt from either.

    Attributes:
        share: of the pairs, above 0 and at most 0.5.
        block: 0 holds out the last pairs; n cuts the footage into blocks of n pairs and holds out every k-th of them, k = 1 / share.
        guard: pairs between the two kinds that are used for neither; None takes 2 % of all, at least one.
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
        """The pairs to learn from and those that judge, both in order.

        Raises:
            ValueError: if nothing is left of one of them.
        """
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
