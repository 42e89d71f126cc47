"""Seed-Space MAP Optimize between two KSamplers on the same model, inside ComfyUI; test_seed_map_node.py reads the answers."""

# ruff: noqa: E402, I001, T201

import json
import logging
import threading
import time

from helpers.tiny_sd import tiny_conditioning, tiny_model, tiny_vae, without_sound

without_sound()

from fvr.nodes.seed_map import SeedMapOptimize
from fvr.physics import AveragePool, TemporalBlur
from fvr import host

host.comfy("comfy.model_management")

import comfy.model_management as management
import comfy.utils
import nodes
import torch
from helpers.flair_small import seeded

from fvr.priors.pyramid import PyramidPrior
from fvr.priors.flair_video import FlairPrior
from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet

said = {}
OPERATOR = AveragePool(2) @ TemporalBlur(3, "circular")


class Line(logging.Handler):
    """What the package says, among the steps of the progress bar."""

    def emit(self, record):
        course.append(record.getMessage())


course = []
logging.getLogger("fvr").addHandler(Line())
logging.getLogger("fvr").setLevel(logging.INFO)
comfy.utils.set_progress_bar_global_hook(lambda value, total, preview=None, node_id=None: course.append((value, preview is not None)))


def stopped_after(seconds, **given):
    """The exception that a stop from another thread ends the node with, and how long that took."""
    asked = [0.0]

    def stop():
        asked[0] = time.monotonic()
        management.interrupt_current_processing()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        SeedMapOptimize.execute(**given)
    except BaseException as stopped:
        return type(stopped).__name__, time.monotonic() - asked[0]
    timer.cancel()
    return "nothing", -1.0


def sampled(model, vae, conditioning):
    (out,) = nodes.common_ksampler(model, 7, 3, 2.0, "euler", "normal", conditioning, conditioning, {"samples": torch.zeros(1, 4, 8, 8)})
    return vae.decode(out["samples"])


with torch.inference_mode():
    model, vae, conditioning = tiny_model(), tiny_vae(), tiny_conditioning()
    before = sampled(model, vae, conditioning)
    ramp = torch.linspace(0.2, 0.8, 64).expand(3, 64, 64)
    clip = torch.stack([ramp.roll(2 * n, -1) for n in range(4)])
    y = OPERATOR.forward(clip).permute(0, 2, 3, 1).contiguous()
    given = dict(frames=y, degradation=OPERATOR, model=model, vae=vae, positive=conditioning, iterations=12, rank=4, warp_start=0.5, warp_every=4)
    course.clear()
    frames, plot, report = SeedMapOptimize.execute(**given).result
    report = json.loads(report)
    steps = [n for n, entry in enumerate(course) if isinstance(entry, tuple)]
    said["told before the first step"] = [entry for entry in course[: steps[0]] if "12 iterations: about" in entry] != []
    said["course"] = [course[steps[-1]][0], any(course[n][1] for n in steps)]
    said["frames"] = [list(frames.shape), bool(frames.isfinite().all()), frames.requires_grad, str(frames.device)]
    said["plot"] = [plot.ndim, float(plot.min()) < 0.3]
    said["losses fall"] = report["terms"]["data"][-1] < 0.9 * report["terms"]["data"][0]
    said["warping"] = [report["warped_from"], report["terms"]["warp"][5], report["terms"]["warp"][6] is not None]
    said["reported"] = [report["operator"], report["seed"], len(report["frames"]["data_residual_rms"]), report["options"]["steps"]]
    said["expected"] = report["expected"]
    again = SeedMapOptimize.execute(**given).result[0]
    said["same seed, same pixels"] = torch.equal(again, frames)
    said["another seed"] = not torch.equal(SeedMapOptimize.execute(**{**given, "iterations": 1}, seed=1).result[0], frames)
    said["same image after"] = torch.equal(sampled(model, vae, conditioning), before)

    # Stopped by the user from another thread: soon, and as before.
    said["stopped"], said["stopped after"] = stopped_after(6.0, **{**given, "iterations": 100_000})
    said["same image after stopping"] = torch.equal(sampled(model, vae, conditioning), before)
    said["inference mode"] = torch.is_inference_mode_enabled()

    # A mask alone, of another size; no prompt.
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:8] = 1
    hole = SeedMapOptimize.execute(frames=clip.permute(0, 2, 3, 1), mask=mask, model=model, vae=vae, iterations=2, warp_weight=0.0)
    said["mask"] = [list(hole.result[0].shape), json.loads(hole.result[2])["operator"]]

    # A pixel prior whose weights are made and moved under inference mode, used by others before and after.
    config = BicubicConfig(64, 32, (1, 2, 2), 1, frozenset({1}), frozenset(), 5, 32)
    network = seeded("bicubic", sizes={"bicubic": (BicubicUNet, config)})
    prior = PyramidPrior(FlairPrior(network, background=1.0, place=host.managed(network)))
    noisy, condition = torch.randn(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    first = prior.predict_x0(noisy, 500, condition)
    tensors = [(id(t), t.is_inference()) for t in network.state_dict(keep_vars=True).values()]
    face = dict(frames=y, degradation=OPERATOR, prior=prior, rank=4)
    report = json.loads(SeedMapOptimize.execute(**face, iterations=3).result[2])
    said["prior"] = [any(inference for _, inference in tensors), len(report["terms"]["data"]), report["skipped_iterations"]]
    said["prior stopped"], said["prior stopped after"] = stopped_after(4.0, **face, iterations=100_000)
    said["same prior after stopping"] = [
        [(id(t), t.is_inference()) for t in network.state_dict(keep_vars=True).values()] == tensors,
        torch.equal(prior.predict_x0(noisy, 500, condition), first),
        any(module._forward_hooks for module in network.modules()),
    ]

    # RAFT, as ComfyUI's loader wraps it.
    import comfy.model_patcher
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    raft = comfy.model_patcher.ModelPatcher(raft_small(weights=None, progress=False).eval(), management.get_torch_device(), torch.device("cpu"))
    guided = SeedMapOptimize.execute(**{**given, "iterations": 3, "warp_start": 0.0}, optical_flow=raft)
    said["raft"] = json.loads(guided.result[2])["warped_from"]

    refused = {}
    for name, change in {
        "flow": {"model": tiny_model("flow")},
        "half": {"vae": None},
        "both": {"prior": object()},
        "nothing": {"degradation": None},
    }.items():
        try:
            SeedMapOptimize.execute(**{**given, "iterations": 1, **change})
            refused[name] = "accepted"
        except ValueError as error:
            refused[name] = str(error)
    said["refused"] = refused
print(json.dumps(said))
