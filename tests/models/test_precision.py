"""The precision that is chosen where nobody says one."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from fvr import assembly
from fvr.assembly import UNCHANGED, resolved_precision, weights_for
from fvr.cli import build_parser
from fvr.cli.tools import request_of
from fvr.demo import moving_portrait
from fvr.job_request import restorer_for
from fvr.methods.base import restore_frames
from fvr.methods.registry import build_restorer
from fvr.metrics.fidelity import psnr
from fvr.models.checkpoints.load import load_network
from fvr.models.device import fast_in_bfloat16
from fvr.models.embedded import BLIND, CODEBOOK, FOLDER, PRIOR
from fvr.physics import parse


def test_bfloat16_is_chosen_where_it_is_fast(monkeypatch):
    for fast, name in ((True, UNCHANGED), (False, "float32")):
        monkeypatch.setattr(assembly, "fast_in_bfloat16", lambda device, fast=fast: fast)
        assert resolved_precision("auto", torch.device("cpu")) == name and resolved_precision("float16", torch.device("cpu")) == "float16"


def test_it_is_kept_to_networks_whose_pictures_stay_the_same():
    """None stands for it; what lies beneath a network follows."""
    blind, codebook = (load_network(FOLDER / name, None).network for name in (BLIND, CODEBOOK))
    assert blind.faithful.tail.weight.dtype == torch.bfloat16 and {part.dtype for part in codebook.parameters()} == {torch.float32}
    for precision, precleaner in ((None, torch.bfloat16), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)):
        restorer = build_restorer("codeformer", weights=FOLDER / CODEBOOK, precision=precision)
        assert restorer.precleaner.network.faithful.tail.weight.dtype == precleaner


@pytest.mark.parametrize("name", [PRIOR, "another.safetensors"])
def test_of_priors_only_the_embedded_one_is_computed_in_it(tmp_path, name):
    """Nobody measured the published ones."""
    path = FOLDER / PRIOR
    if name != PRIOR:
        path = tmp_path / name
        shutil.copy(FOLDER / PRIOR, path)
    prior = build_restorer("flair", weights=path, precision=None).prior
    assert prior.network.dtype == (torch.bfloat16 if name == PRIOR else torch.float32)


def test_workers_keep_to_what_was_decided(monkeypatch):
    monkeypatch.setattr(assembly, "fast_in_bfloat16", lambda device: True)
    options = build_parser().parse_args(["restore", "in.mp4", "out.mp4", "--method", "blind"])
    request = json.loads(json.dumps(request_of(options, "blind", False)))
    monkeypatch.setattr(assembly, "fast_in_bfloat16", lambda device: False)
    assert restorer_for(request).network.faithful.tail.weight.dtype == torch.bfloat16


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="only Linux tells what its CPU can")
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this PyTorch does not tell what the CPU can")
def test_a_cpu_with_units_for_it_is_fast_in_it():
    flags = Path("/proc/cpuinfo").read_text()
    assert fast_in_bfloat16("cpu") == ("amx_bf16" in flags or "avx512_bf16" in flags)
    assert not fast_in_bfloat16("meta")


@pytest.mark.parametrize(
    ("said", "fast"),
    [({"amx_bf16": True, "avx512_bf16": True}, True), ({"amx_bf16": False, "avx512_bf16": True}, True), ({"avx512_f": True}, False), (None, False)],
)
def test_a_cpu_is_fast_in_it_by_what_pytorch_says(monkeypatch, said, fast):
    """Older versions say nothing, or do not name every unit."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    if said is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: said, raising=False)
    assert fast_in_bfloat16("cpu") == fast


def test_bfloat16_restores_as_well():
    """Which the record of the network says of it."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    truth = torch.nn.functional.interpolate(moving_portrait(2)[..., 20:276, 32:288], size=(512, 512), mode="bicubic", antialias=True).clamp(0, 1)
    damaged = parse("gaussian_blur(sigma=1.5) + noise(sigma=0.04)").observe(truth, torch.Generator().manual_seed(0)).clamp(0, 1)
    exact, half = (
        float(psnr(restore_frames(build_restorer("blind", weights=weights_for("blind", {}), precision=dtype), damaged), truth).mean())
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert exact > float(psnr(damaged, truth).mean()) + 1 and abs(half - exact) < 0.02
