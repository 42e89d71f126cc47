"""Progress bars of training, on stderr."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm


class Bars:
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

    def write(self, text: str, file: TextIO | None = None) -> None:
        self.close()
        tqdm.write(text, file=file or sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
