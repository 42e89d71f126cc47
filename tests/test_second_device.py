"""`fvr restore` with its networks on a device that is not the CPU, as on a GPU: nothing mixes devices, and the picture is the CPU's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fvr.cli import main
from fvr.demo import moving_portrait, save
from fvr.host.devices import set_device
from fvr.methods.blind.restorer import BlindOptions, BlindRestorer
from fvr.metrics.identity import EmbeddedIdentity
from fvr.models.blind import BlindRestorers, BlindSizes
from fvr.models.device import on
from fvr.video import FrameTimes, open_source
from tests.helpers.second_device import SecondDevice

METHODS = {
    "auto": [],
    "codeformer": [],
    "dicface": ["--detector", "blazeface"],
    "keep": ["--scale", "2"],
    "flair": ["--set", "steps=2", "--set", "w=0.5", "--degradation", "bicubic(factor=4) + noise(sigma=0.02)"],
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "in.mkv"
    save(path, moving_portrait(24)[:2], FrameTimes.constant(2, 25), codec="ffv1")
    return path


def restored(clip: Path, out: Path, device: str, method: str, options: list[str]) -> np.ndarray:
    arguments = ["--debug", "restore", str(clip), str(out), "--method", method, "--device", device, "--codec", "ffv1", "--precision", "float32"]
    assert main([*arguments, *options]) == 0
    return torch.cat([chunk.frames for chunk in open_source(out).chunks(8)]).numpy()


@pytest.mark.parametrize("method", METHODS)
def test_networks_on_another_device_restore_the_same(method, clip, tmp_path):
    try:
        here = restored(clip, tmp_path / "here.mkv", "cpu", method, METHODS[method])
        with SecondDevice() as device:
            there = restored(clip, tmp_path / "there.mkv", "cuda", method, METHODS[method])
    finally:
        set_device(None)
    assert device.moved > 50, "nothing ran there"
    difference = 255 * np.abs(here - there)
    assert difference.max() <= 3 and difference.mean() < 0.1


def test_embeddings_come_from_another_device():
    faces = torch.rand(1, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    with SecondDevice():
        there = EmbeddedIdentity("cuda")(faces)
    torch.testing.assert_close(there, EmbeddedIdentity()(faces), rtol=0, atol=1e-4)


@pytest.mark.parametrize("detail", [0.0, 0.5])
def test_a_frame_of_blind_goes_there_and_comes_back_once(detail):
    """It and its two flows; what was restored is fetched once for all frames that were pushed, and only the question whether more of them need
    a self-ensemble waits for the device, every fourth frame."""
    torch.manual_seed(0)
    networks = BlindRestorers(BlindSizes((8, 12), (1, 1))).eval().requires_grad_(False)
    clip = torch.rand(6, 1, 512, 512).expand(-1, 3, -1, -1)  # colours with noise of their own are sent once more, without it
    with SecondDevice() as device:
        session = BlindRestorer(networks, BlindOptions(detail=detail), place=on(networks, "cuda")).open()
        session.push(clip[:2])
        before = device.sent, device.fetched, device.asked
        assert len(session.push(clip[2:])) == 4
        assert (device.sent - before[0], device.fetched - before[1], device.asked - before[2]) == (4 * 3, 1, 1)


def test_the_second_device_refuses_what_a_gpu_refuses():
    with SecondDevice():
        there = torch.ones(2, 3, device="cuda")
        for mixed in (
            lambda: there + torch.ones(3),
            lambda: torch.cat([torch.empty(0, 3), there]),
            lambda: torch.ones(4)[there > 0],
            lambda: torch.randn(3, generator=torch.Generator(), device="cuda"),
        ):
            with pytest.raises((RuntimeError, IndexError)):
                mixed()
        for unknown in (there.numpy, there.double, lambda: torch.ones(2, dtype=torch.float64, device="cuda")):
            with pytest.raises(TypeError):
                unknown()
        assert (there + torch.tensor(1.0)).device.type == "cuda" and float(there.cpu().sum()) == 6
