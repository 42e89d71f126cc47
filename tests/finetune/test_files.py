"""What fine-tuning reads and writes: places are tried first, pictures are hashed one by one, files say what they are, curves bear any figure."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest
import torch
from helpers.tiny_pairs import SIDE, base, noisy, pairs
from safetensors.torch import load_file

from fvr.finetune.checkpoint import check_writable, stored_dtype
from fvr.finetune.dataset import ImageFiles, Pairs
from fvr.finetune.options import FineTune, planned
from fvr.finetune.run import fine_tune, fingerprint
from fvr.models.checkpoints.state_dict import notes_of
from fvr.training.engine import Run
from fvr.training.sheet import HEIGHT, curve_png


def quick(steps: int = 2) -> FineTune:
    found = planned("short", "codes", steps=steps, rate=1e-3, batch=2)
    return replace(found, plan=replace(found.plan, ema=0.5))


def never(*_: object) -> None:
    raise AssertionError("something was learnt")


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    """A file where a folder should be."""
    (tmp_path / "taken").write_bytes(b"x")
    return tmp_path / "taken"


def test_an_unwritable_file_is_refused_before_training(tmp_path: Path, taken: Path) -> None:
    found, data = base(tmp_path), pairs()
    for out in (taken / "x.safetensors", taken / "below" / "x.safetensors"):
        with pytest.raises(ValueError, match=r"x\.safetensors cannot be written into .*taken.* so nothing was learnt; make that a folder"):
            fine_tune(found, data, quick(), Run(tmp_path / "w", precision=None), out, tick=never)
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"x\.safetensors is a folder"):
        fine_tune(found, data, quick(), Run(tmp_path / "w", precision=None), tmp_path / "x.safetensors", tick=never)
    assert not (tmp_path / "w").exists() and not list(tmp_path.rglob("*.part"))
    check_writable(tmp_path / "new" / "y.safetensors")
    assert list((tmp_path / "new").iterdir()) == []


def test_an_uncreatable_state_folder_raises_one_sentence(tmp_path: Path, taken: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder .*taken/w for states and pictures cannot be made \(Not a directory\); choose another"):
        fine_tune(base(tmp_path), pairs(), quick(), Run(taken / "w", precision=None), tmp_path / "x.safetensors", tick=never)


def test_weights_beyond_float16_are_saved_as_float32_without_retraining(tmp_path: Path) -> None:
    def tuned(half: bool, **more: object) -> None:
        found = base(tmp_path)
        with torch.no_grad():
            found.network.get_parameter("fuse_convs_dict.32.scale.0.bias").fill_(1e5)  # recipe codes does not train it
        fine_tune(found, pairs(), quick(), Run(tmp_path / "w", precision=None), tmp_path / "x.safetensors", half=half, **more)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="save as float32"):
        tuned(True)
    assert not (tmp_path / "x.safetensors").exists()
    tuned(False, tick=never)
    assert stored_dtype(tmp_path / "x.safetensors") == "float32"


@pytest.mark.parametrize("half", [False, True])
def test_metadata_hold_report_and_dtype(half: bool, tmp_path: Path) -> None:
    done = fine_tune(base(tmp_path), pairs(), quick(), Run(tmp_path / "w", precision=None), tmp_path / "x.safetensors", half=half)
    wanted = "float16" if half else "float32"
    assert notes_of(tmp_path / "x.safetensors")["report"] == done.text and f"pairs, {wanted}" in done.text
    assert stored_dtype(tmp_path / "x.safetensors") == wanted
    assert {str(value.dtype) for value in load_file(tmp_path / "x.safetensors").values()} == {f"torch.{wanted}"}


class Drawn(Sequence[torch.Tensor]):
    """Pictures that are nowhere until they are asked for."""

    def __init__(self, count: int, other: int | None = None) -> None:
        self.count, self.other = count, other

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if index >= self.count:
            raise IndexError
        return torch.full((3, 128, 128), 255 if index == self.other else index % 200, dtype=torch.uint8)


def written(folder: Path, count: int) -> list[Path]:
    """Noise as PNG files of about 50 kB."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        cv2.imwrite(str(path), draw.integers(0, 255, (128, 128, 3), np.uint8))
    return paths


def test_clean_faces_are_hashed_one_by_one_and_undecoded_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, data, run = base(tmp_path), pairs(), Run(tmp_path / "w", precision=None)
    paths = written(tmp_path / "reals", 40)
    monkeypatch.setattr("fvr.finetune.dataset.read_picture", never)

    def mark(reals: Sequence[torch.Tensor]) -> str:
        return fingerprint(found, data, quick(), run, reals)

    first = mark(Drawn(40)), mark(ImageFiles(paths, SIDE))
    tracemalloc.start()
    assert (mark(Drawn(40)), mark(ImageFiles(paths, SIDE))) == first
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000, peak  # all forty are two millions
    data_of_one = bytearray(paths[7].read_bytes())
    data_of_one[-20] ^= 1
    paths[7].write_bytes(bytes(data_of_one))
    assert mark(Drawn(40, other=7)) != first[0] and mark(ImageFiles(paths, SIDE)) != first[1]


def test_pairs_that_are_not_square_are_refused(tmp_path: Path) -> None:
    source, target = noisy(4, 64)
    with pytest.raises(ValueError, match=r"got pictures of 64 x 32 pixels, but crops of aligned faces are square; cut them out with Face Align"):
        Pairs.of_images(source[..., :32, :], target, SIDE)
    for part, crops in (("inputs", source), ("targets", target[..., :48])):
        (tmp_path / part).mkdir()
        for number, crop in enumerate(crops):
            cv2.imwrite(str(tmp_path / part / f"{number}.png"), (crop * 255).byte().permute(1, 2, 0).numpy())
    for memory in (1 << 30, 0):
        with pytest.raises(ValueError, match=r"targets.0\.png is 48 x 64 pixels, but crops of aligned faces are square"):
            Pairs.of_folder(tmp_path, SIDE, memory)
    whole = (tmp_path / "inputs" / "0.png").read_bytes()
    for broken in (b"no picture", claiming(whole, 100_000)):
        (tmp_path / "targets" / "0.png").write_bytes(broken)
        for memory in (1 << 30, 0):
            with pytest.raises(ValueError, match=r"0\.png is not a picture that can be read"):
                Pairs.of_folder(tmp_path, SIDE, memory)


def claiming(png: bytes, side: int) -> bytes:
    """A PNG file whose header claims another size, which its checksum confirms."""
    header = png[12:16] + 2 * side.to_bytes(4, "big") + png[24:29]
    return png[:12] + header + crc32(header).to_bytes(4, "big") + png[33:]


INKS = ((180, 119, 31), (14, 127, 255))
"""Blue and orange, as OpenCV has them."""


def columns(path: Path, ink: tuple[int, int, int]) -> set[int]:
    """Columns of a curve's page, but for its labels in the upper right corner, that hold an ink."""
    page = cv2.imread(str(path))[: HEIGHT - 40].astype(int)
    page[:70, 320:] = 255
    return set(np.nonzero((abs(page - np.array(ink)).sum(-1) < 30).any(0))[0].tolist())


def test_curves_leave_gaps_at_infinite_values(tmp_path: Path) -> None:
    inf, nan = float("inf"), float("nan")
    values = [(0, {"a": 1.0}), (1, {"a": 2.0}), (2, {"a": inf}), (3, {"a": nan}), (4, {"a": 1.0})]
    curve_png(values, tmp_path / "gap.png")
    curve_png([(step, {"a": min(figures["a"], 2.0) if step < 2 else 1.0}) for step, figures in values], tmp_path / "whole.png")
    gap, whole = (columns(tmp_path / name, INKS[0]) for name in ("gap.png", "whole.png"))
    assert len(whole) > 500 and len(gap) < 200 and len(gap - whole) <= 3  # one of four stretches, and a dot for the lone last value
    curve_png([(0, {"a": inf, "b": 1.0}), (5, {"a": nan, "b": 2.0})], tmp_path / "none.png")
    assert not columns(tmp_path / "none.png", INKS[0]) and columns(tmp_path / "none.png", INKS[1])
    curve_png([(0, {"a": 1.0})], tmp_path / "one.png")
    assert columns(tmp_path / "one.png", INKS[0])
