"""Diffusion priors in files: recognised by their tensors, refused in one sentence."""

from __future__ import annotations

import pytest
import torch
from helpers.code_networks import small_codeformer
from helpers.flair_small import seeded
from helpers.seeded_weights import seed_weights
from safetensors.torch import save_file

from fvr.methods.flair.options import PRESETS
from fvr.methods.registry import build_restorer
from fvr.models.device import on
from fvr.models.difface_unet import DifFaceConfig, DifFaceUNet
from fvr.priors.flair_video import FlairPrior, flair_prior_from
from fvr.priors.image_ddpm import ImagePrior
from fvr.priors.load import TASKS, prior_from_file, task_of


def contiguous(network):
    return {name: value.clone().contiguous() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("priors")
    torch.save({"state_dict": contiguous(seeded("bicubic"))}, folder / "flair_x16_bicubic.pt")
    save_file(contiguous(seeded("blur")), folder / "mine.safetensors")
    image = seed_weights(DifFaceUNet(DifFaceConfig(32, (1, 1), (1, 1), (1,), 16, 3, 6)), "small")
    torch.save(contiguous(image), folder / "iddpm.pth")
    save_file(contiguous(small_codeformer()), folder / "codeformer.safetensors")
    return folder


def frames(count=2, side=32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "background", "upsampling"), [("flair_x16_bicubic.pt", 0.98, "bicubic"), ("mine.safetensors", 1.0, "area")])
@torch.inference_mode()
def test_flairs_networks_are_recognised(name, background, upsampling, files):
    prior = prior_from_file(files / name)
    assert isinstance(prior, FlairPrior) and (prior.background, prior.upsampling) == (background, upsampling)
    assert not any(value.is_inference() for value in prior.network.state_dict().values())
    direct = flair_prior_from(contiguous(seeded("bicubic" if upsampling == "bicubic" else "blur")), "x16" if upsampling == "bicubic" else None)
    assert torch.equal(prior.predict_x0(frames(), 500, frames()), direct.predict_x0(frames(), 500, frames()))


def test_difface_is_recognised_and_goes_where_it_is_placed(files):
    asked = []

    def placed(network):
        place = on(network, "cpu")

        def counted(working):
            asked.append(working)
            return place(working)

        return counted

    prior = prior_from_file(files / "iddpm.pth", placed=placed)
    assert isinstance(prior, ImagePrior) and not prior.temporal
    x0 = prior.predict_x0(frames(), 300)
    assert x0.abs().max() <= 1 and asked and min(asked) > 0


@pytest.mark.parametrize(
    ("path", "task"),
    [
        ("flair_x8_bicubic.pt", "x8"),
        ("a/b/FLAIR-X16.safetensors", "x16"),
        ("flair_x4_bicubic.pt", "x4"),
        ("flair_gaussian.pt", "gaussian"),
        ("flair_x4_motion.pt", "motion"),
        ("flair_jpeg.pt", "jpeg"),
        ("x86.pt", None),
        ("flair.pt", None),
    ],
)
def test_file_names_tell_the_task(path, task):
    assert task_of(path) == task and (task is None or task in TASKS)


def test_a_restorer_takes_the_preset_of_its_weights_unless_told(files):
    assert build_restorer("flair", weights=files / "flair_x16_bicubic.pt").options == PRESETS["x16"]
    assert build_restorer("flair", weights=files / "flair_x16_bicubic.pt", settings={"preset": "x8", "steps": "7"}).options.steps == 7
    restorer = build_restorer("flair", weights=files / "flair_x16_bicubic.pt", settings={"rho": "0.1"})
    assert restorer.options.rho == 0.1 and restorer.options.w == PRESETS["x16"].w


def test_half_precision_is_of_the_convolutions(files):
    prior = prior_from_file(files / "flair_x16_bicubic.pt", dtype=torch.bfloat16)
    kinds = {name: value.dtype for name, value in prior.network.state_dict().items()}
    assert torch.bfloat16 in kinds.values() and all(kind == torch.float32 for name, kind in kinds.items() if "spynet" in name)


@pytest.mark.parametrize(("builder", "name"), [("load.flair_prior_from", "mine.safetensors"), ("image_ddpm.DifFaceUNet.of", "iddpm.pth")])
def test_a_prior_that_memory_has_no_room_for_is_not_called_damaged(builder, name, files, monkeypatch):
    monkeypatch.setattr(f"fvr.priors.{builder}", lambda *args, **more: torch.empty(1 << 50))
    with pytest.raises(RuntimeError, match=f"not enough memory to load {name} .*; close other programs and try again"):
        prior_from_file(files / name)


def test_what_is_no_prior_is_named(files, tmp_path):
    with pytest.raises(ValueError, match=r"codeformer\.safetensors holds the face restorer CodeFormer, not a diffusion prior"):
        prior_from_file(files / "codeformer.safetensors")
    with pytest.raises(ValueError, match="not for 'jpeg'"):
        prior_from_file(files / "flair_x16_bicubic.pt", task="jpeg")
    state = contiguous(seeded("blur"))
    state.pop(next(name for name in state if name.startswith("middle_block")))
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match=r"cut\.safetensors is a diffusion network, but its tensors do not fit together"):
        prior_from_file(tmp_path / "cut.safetensors")
    save_file({"model.diffusion_model.x": torch.zeros(1), "model.diffusion_model.y": torch.zeros(1)}, tmp_path / "sd.safetensors")
    with pytest.raises(ValueError, match="Stable Diffusion"):
        prior_from_file(tmp_path / "sd.safetensors")
