"""Damage as footage has it: pairs show the same face at the same place in the same light, and are the same pairs again."""

import numpy as np
import pytest
import torch
from PIL import Image

from fvr.training.data.codecs import CODECS, from_yuv420, to_yuv420, transcoded
from fvr.training.data.faces import Faces
from fvr.training.data.footage import KINDS, Footage, blur_kernel
from fvr.training.data.pairs import FINE, FRAMES, WINDOW, Pairs, phone_processed, with_coarse_chroma


def picture(side: int = 512) -> np.ndarray:
    """(S, S, 3) in [0, 255]: soft shapes with some texture."""
    rng = np.random.default_rng(5)
    parts = [np.kron(rng.random((side // size, side // size, 3)), np.ones((size, size, 1))) for size in (64, 16, 4)]
    image = 0.5 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2]
    kernel = torch.ones(3, 1, 5, 5) / 25
    smooth = torch.nn.functional.conv2d(torch.from_numpy(image).float().permute(2, 0, 1)[None], kernel, padding=2, groups=3)[0]
    return (255 * smooth.permute(1, 2, 0).numpy()).astype(np.float32)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    image = picture()
    return np.stack([np.roll(image, shift, 1)[100:228, 100:260] for shift in range(4)])


def displacement(a: np.ndarray, b: np.ndarray) -> float:
    """How far, in pixels, b's luma lies from a's at most, along either axis: least squares over gradients."""
    a, b = a.mean(-1), b.mean(-1)
    inner = (..., slice(8, -8), slice(8, -8))
    gy, gx = np.gradient(a, axis=(-2, -1))
    design = np.stack([gx[inner].ravel(), gy[inner].ravel(), np.ones(gx[inner].size)], 1)
    return float(np.abs(np.linalg.lstsq(design, (a - b)[inner].ravel(), rcond=None)[0][:2]).max())


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_yuv420_conversion_neither_shifts_nor_darkens(clip, matrix):
    back = from_yuv420(to_yuv420(clip, matrix), matrix)
    assert back.shape == clip.shape and abs((back - clip).mean()) < 0.05 and displacement(clip, back) < 0.01


@pytest.mark.parametrize("codec", CODECS)
def test_codecs_lose_detail_with_quality_but_neither_shift_nor_darken(clip, codec):
    good, bad = CODECS[codec][2]
    errors = []
    for quality in (good, (good + bad) / 2):
        coded = transcoded(clip, codec, quality)
        assert coded.shape == clip.shape
        assert abs((coded - clip).mean()) < 1 and displacement(clip, coded) < 0.1
        errors.append(float(np.square(coded - clip).mean()))
    assert 0.01 < errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
def test_tiny_and_odd_clips_pass_a_codec(codec):
    clip = picture()[None, :37, :51].repeat(3, 0)
    assert np.abs(transcoded(clip, codec, 18 if codec == "h264" else 2) - clip).mean() < 4


@pytest.mark.parametrize("seed", range(20))
def test_blur_kernels_are_centred_and_sum_to_one(seed):
    rng = np.random.default_rng(seed)
    sigma = 0.3 + 3 * rng.random()
    kernel = blur_kernel(sigma, rng)
    at = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.shape[0] % 2 and kernel.min() >= 0 and abs(kernel.sum() - 1) < 1e-5
    assert abs((kernel.sum(0) * at).sum()) < 1e-3 and abs((kernel.sum(1) * at).sum()) < 1e-3


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Faces:
    folder = tmp_path_factory.mktemp("faces")
    for number in range(2):
        (folder / "train").mkdir(exist_ok=True)
        (folder / "val").mkdir(exist_ok=True)
        for split in ("train", "val"):
            Image.fromarray(np.roll(picture(), 31 * number, 0).astype(np.uint8)).save(folder / split / f"{split}{'ab'[number]}.png")
    return Faces(folder, "train", 512)


def test_pairs_are_deterministic_and_cached(faces, tmp_path):
    made = Pairs(faces, Footage(), 4, 7)[2]
    kept = Pairs(faces, Footage(), 4, 7, tmp_path)
    for pair in (kept[2], kept[2]):
        assert np.array_equal(pair.damaged, made.damaged) and np.array_equal(pair.clean, made.clean)
        assert (pair.corner, pair.kind, pair.scale) == (made.corner, made.kind, made.scale)
    assert made.damaged.shape == (FRAMES, WINDOW, WINDOW, 3) and [path.name for path in tmp_path.iterdir()] == ["000002.npz"]
    assert not np.array_equal(Pairs(faces, Footage(), 4, 8)[2].damaged, made.damaged)


def test_lightly_degraded_pairs_are_aligned_and_equally_bright(faces):
    close = Footage(clean=1.0, soft=0.0, scale=(0.999, 1.0))
    for pair in (Pairs(faces, close, 6, 1)[index] for index in range(6)):
        a, b = pair.clean.astype(np.float32), pair.damaged.astype(np.float32) / FINE
        assert pair.kind == KINDS.index("clean") and abs((a - b).mean()) < 0.5
        assert displacement(a, b) < 0.06
        assert 10 * np.log10(255**2 / np.square(a - b).mean()) > 30


def test_most_degraded_pairs_have_fractional_levels_and_some_are_rounded(faces):
    """Or of whole levels, as where faces come from files: a network that knew one of them only answered to the other's rounding."""
    levels = [pair.damaged[..., 1] / FINE % 1 for pair in (Pairs(faces, Footage(scale=(0.5, 0.6)), 24, 3)[index] for index in range(24))]
    whole = [bool((part == 0).all()) for part in levels]
    assert 0 < sum(whole) < 12 and all(part.std() > 0.2 for part, cut_out in zip(levels, np.invert(whole), strict=True) if cut_out)


def test_coarse_chroma_keeps_the_luma():
    clip = np.random.default_rng(0).uniform(60, 190, (2, 64, 64, 3)).astype(np.float32)
    coarse = with_coarse_chroma(clip, 0.5)
    light, before = (each @ np.array([0.299, 0.587, 0.114], np.float32) for each in (coarse, clip))
    assert np.abs(light - before).max() < 0.01
    assert (coarse - light[..., None]).std() < 0.6 * (clip - before[..., None]).std()


def test_a_telephone_smooths_skin_and_sharpens_edges():
    rng = np.random.default_rng(0)
    edge = np.where(np.arange(64) < 32, 90.0, 160.0)[None, :, None]
    skin = np.clip(edge + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.float32)
    (delivered,) = phone_processed(skin[None], rng)
    assert delivered[4:-4, 4:20].std() < 0.6 * skin[4:-4, 4:20].std()
    assert delivered[4:-4, 33:36].mean() - delivered[4:-4, 28:31].mean() > 72


def test_pairs_can_be_prepared_in_advance(faces, tmp_path):
    pairs = Pairs(faces, Footage(), 3, 0, tmp_path)
    pairs.prepare(2)
    assert len(list(tmp_path.glob("*.npz"))) == 3
    assert np.array_equal(pairs[1].damaged, Pairs(faces, Footage(), 3, 0)[1].damaged)
