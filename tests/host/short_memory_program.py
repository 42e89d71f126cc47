"""A network under ComfyUI's memory management on a device with little memory, as test_host_in_comfyui.py reads it; the device is simulated."""

# ruff: noqa: E402

import json
import sys

from comfy.cli_args import args

args.cpu = True

import comfy.model_management as management
import torch
from helpers.second_device import DEVICE, SecondDevice

from fvr import host

GIB = 2**30
memory = {"free": 0}


def free_memory(device=None, torch_free_too=False):
    return (memory["free"], memory["free"]) if torch_free_too else memory["free"]


management.get_torch_device = lambda: DEVICE
management.get_free_memory = free_memory
management.is_device_cuda = lambda device: False  # the CPU has no queue to wait for
said = {}
crops = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
with SecondDevice():
    for state in ("NORMAL_VRAM", "LOW_VRAM", "NO_VRAM"):
        management.vram_state = getattr(management.VRAMState, state)
        for free in (24 * GIB, GIB // 4, 10**5):
            memory["free"] = free
            network = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.GroupNorm(8, 64), torch.nn.Conv2d(64, 3, 3)).requires_grad_(False)
            wanted, place = network(crops), host.managed(network)
            same = [torch.equal(network(crops.to(place(2**20))).cpu(), wanted) for _ in range(2)]
            loaded = [network.model_loaded_weight_memory == sum(weight.nbytes for weight in network.parameters())]
            management.unload_all_models()
            gone = [weight.device.type == "cpu" for weight in network.parameters()]
            again = [torch.equal(network(crops.to(place(2**20))).cpu(), wanted)]
            said[f"{state} {free}"] = all(same + loaded + gone + again)
            management.unload_all_models()
sys.stdout.write(json.dumps(said))
