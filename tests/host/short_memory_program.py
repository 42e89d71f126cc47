"""A network under ComfyUI's memory management on a device with little memory, as test_host_in_comfyui.py reads it; the device is simulated."""

# ruff: noqa: E402

import json
import sys
import tempfile
from pathlib import Path

from comfy.cli_args import args

args.cpu = True

import comfy.model_management as management
import torch
from helpers.second_device import DEVICE, SecondDevice

from fvr import host
from fvr.assembly import chosen_detector, chosen_parser
from fvr.faces import load_parser
from fvr.faces.detection.retinaface import RetinaFaceDetector, retinaface_network
from fvr.models.facexlib_networks import facexlib_class

GIB = 2**30
memory = {"free": 0}


def free_memory(device=None, torch_free_too=False):
    return (memory["free"], memory["free"]) if torch_free_too else memory["free"]


def parsenet():
    return facexlib_class("parsing.parsenet", "ParseNet")(in_size=512, out_size=512, parsing_ch=19)


def alike(found, wanted):
    """Masks, or faces of each frame."""
    if isinstance(found, torch.Tensor):
        return torch.equal(found, wanted)
    return bool(wanted[0]) and [face.box.tolist() for face in found[0]] == [face.box.tolist() for face in wanted[0]]


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
    weights = Path(tempfile.mkdtemp())
    for name, network in (("detection_Resnet50_Final.pth", retinaface_network), ("parsing_parsenet.pth", parsenet)):
        torch.manual_seed(0)
        torch.save(network().state_dict(), weights / name)
    host.model_folders = lambda: {"facedetection": [weights]}
    memory["free"] = 24 * GIB
    frames = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    face = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))
    here = RetinaFaceDetector(weights / "detection_Resnet50_Final.pth", threshold=0.5), load_parser(weights / "parsing_parsenet.pth")
    there = chosen_detector("retinaface"), chosen_parser()
    there[0].threshold = 0.5
    for title, given, wanted, found, network in (
        ("RetinaFace", frames, *(one[0] for one in (here, there)), there[0].net),
        ("ParseNet", face, *(one[1] for one in (here, there)), there[1].network),
    ):
        same = [alike(found(given), wanted(given)) for _ in range(2)]
        loaded = [weight.device.type == DEVICE.type for weight in network.parameters()]
        management.unload_all_models()
        gone = [weight.device.type == "cpu" for weight in network.parameters()]
        said[title] = all(same + loaded + gone)
sys.stdout.write(json.dumps(said))
