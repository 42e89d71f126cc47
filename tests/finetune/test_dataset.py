"""Pairs and the held-out part: partners match, neighbours never leak, folders and batches give the same."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from helpers.tiny_pairs import noisy
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr.finetune.dataset import ImageFiles, Pairs
from fvr.finetune.options import HeldOut


@settings(deadline=None)
@given(st.integers(4, 3000), st.floats(0.01, 0.5), st.integers(0, 40), st.one_of(st.none(), st.integers(0, 5)))
def test_neighbours_of_held_out_pairs_are_not_trained_on(count: int, share: float, block: int, guard: int | None) -> None:
    try:
        learnt, held = HeldOut(share, block, guard).split(count)
    except ValueError as error:
        assert f"of {count} pairs" in str(error)
        return
    distance = max(1, round(0.02 * count)) if guard is None else guard
    judges = set(held)
    assert learnt and held and judges.isdisjoint(learnt)
    assert all(judges.isdisjoint(range(i - distance, i + distance + 1)) for i in learnt)
    rest = set(range(count)) - judges - set(learnt)
    assert all(any(abs(i - j) <= distance for j in held) for i in rest)
    if not block:
        assert held == list(range(held[0], count)) and len(held) == max(1, round(share * count))


def test_held_out_blocks_spread_over_the_footage() -> None:
    _, held = HeldOut(0.25, 5, 1).split(60)
    assert held == [*range(15, 20), *range(35, 40), *range(55, 60)]


@pytest.mark.parametrize(("given", "said"), [((0.0,), "above 0"), ((0.6,), "not above 0.5"), ((0.1, -1), "from 0 up")])
def test_held_out_shares_out_of_range_are_refused(given: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HeldOut(*given)


def write(folder: Path, part: str, images: torch.Tensor) -> None:
    (folder / part).mkdir(parents=True)
    for number, image in enumerate(images):
        pixels = (image * 255 + 0.5).byte().permute(1, 2, 0).numpy()[..., ::-1]
        cv2.imwrite(str(folder / part / f"{number:06}.png"), pixels)


def test_pairs_from_a_folder_equal_pairs_from_a_batch(tmp_path: Path) -> None:
    source, target = noisy(5, 64)
    write(tmp_path, "inputs", source)
    write(tmp_path, "targets", target)
    whole = Pairs.of_images(source, target, 32)
    for memory in (1 << 30, 0):
        read = Pairs.of_folder(tmp_path, 32, memory)
        assert isinstance(read.inputs, ImageFiles) == (memory == 0)
        for i in range(5):
            for ours, theirs in zip(read.pair(i), whole.pair(i), strict=True):
                assert (ours - theirs).abs().max() <= 1 / 255 + 1e-6
    before = Pairs.of_folder(tmp_path, 32).digest
    write(tmp_path / "more", "x", source[:1])
    (tmp_path / "more" / "x" / "000000.png").replace(tmp_path / "targets" / "000003.png")
    assert Pairs.of_folder(tmp_path, 32).digest != before
    (tmp_path / "targets" / "000002.png").unlink()
    with pytest.raises(ValueError, match=r"1 pictures without a partner \(000002 first\)"):
        Pairs.of_folder(tmp_path, 32)
    with pytest.raises(ValueError, match=r"inputs is not a folder"):
        Pairs.of_folder(tmp_path / "nothing", 32)


def test_unpaired_inputs_are_refused_and_the_digest_follows_the_pixels() -> None:
    source, target = noisy(5)
    with pytest.raises(ValueError, match="got 5 inputs and 4 targets"):
        Pairs.of_images(source, target[:4], 32)
    with pytest.raises(ValueError, match="at least 4 pairs"):
        Pairs.of_images(source[:3], target[:3], 32)
    changed = source.clone()
    changed[2, 0, 0, 0] = 1 - changed[2, 0, 0, 0].round()
    assert Pairs.of_images(source, target, 32).digest == Pairs.of_images(source.clone(), target, 32).digest
    assert Pairs.of_images(changed, target, 32).digest != Pairs.of_images(source, target, 32).digest
