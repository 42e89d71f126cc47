"""FLAIR's sampler update against the official code's trajectories, number by number."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from fvr.diffusion.schedule import add_noise, bicubic_schedule, linear_schedule
from fvr.methods.flair.options import PRESETS, enhancement_weights, gammas
from fvr.methods.flair.sampler import flair_step

PARITY = Path(__file__).resolve().parents[2].parent / "shared" / "parity"

CASES = {
    "gaussian": (linear_schedule(), replace(PRESETS["gaussian-demo"], steps=5, tau=2), "nearest"),
    "x8_bicubic": (bicubic_schedule(), replace(PRESETS["x8-demo"], steps=5, tau=2), "bicubic"),
}


@pytest.fixture(params=CASES)
def trajectory(request):
    path = PARITY / f"flair_trajectory_{request.param}.safetensors"
    if not path.exists():
        pytest.skip(f"the official trajectory {path.name} is not beside this checkout")
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        numbers = {key: json.loads(text) for key, text in file.metadata().items() if key != "note"}
    return (*CASES[request.param], tensors, numbers)


def test_tables(trajectory):
    """Timesteps, alpha_bar, gamma_t and the weight 1 - w_t of the data-consistent frame."""
    schedule, options, _, tensors, numbers = trajectory
    short = schedule.respaced(5)
    assert list(short.timesteps) == numbers["timesteps"]
    assert (options.rho, options.w, options.zeta) == (numbers["hp"]["rho"], numbers["hp"]["w"], numbers["hp"]["zeta"])
    torch.testing.assert_close(short.alphas_cumprod, tensors["abar"], rtol=1e-12, atol=0)
    gamma = gammas(options, short, numbers["hp"]["noise_level"])
    torch.testing.assert_close(torch.tensor(gamma, dtype=torch.float64), tensors["gamma"].double(), rtol=0, atol=1e-7)
    weights = 1 - torch.tensor(enhancement_weights(options, 5), dtype=torch.float64)
    torch.testing.assert_close(weights, tensors["enhance_dc_weight"].double(), rtol=0, atol=1e-7)


def test_first_state(trajectory):
    """x_T = sqrt(alpha_bar_T) c + sqrt(1 - alpha_bar_T) n: the condition leaves a trace."""
    schedule, _, upsampling, tensors, _ = trajectory
    c = F.interpolate(tensors["lq"][0], size=(64, 64), mode=upsampling).clamp(-1, 1)
    x_T = add_noise(c, tensors["x_T_noise"], schedule.respaced(5).alpha_bar(4))
    torch.testing.assert_close(x_T, tensors["x_T"], rtol=0, atol=1e-5)


def test_every_step(trajectory):
    schedule, options, _, tensors, _ = trajectory
    short = schedule.respaced(5)
    x_t = tensors["x_T"]
    for i, t in enumerate(range(4, -1, -1)):
        level = short.alpha_bar(t), short.alpha_bar(t - 1)
        step = flair_step(x_t, tensors[f"step{i}_x0"], None, None, level, tensors[f"noise{i}"], gamma=1.0, rho=options.rho)
        torch.testing.assert_close(step.x_prev, tensors[f"step{i}_x_prev"], rtol=0, atol=1e-5)
        x_t = step.x_prev
    torch.testing.assert_close(x_t, tensors["step4_x0"], rtol=0, atol=1e-6)
