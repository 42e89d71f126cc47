"""Asks the seam everything, inside ComfyUI, below the folder given as argument; test_host_in_comfyui.py reads the answers."""

# ruff: noqa: E402

import json
import os
import sys
from fractions import Fraction
from pathlib import Path

import folder_paths

root = Path(sys.argv[1])
os.environ["FVR_MODELS"] = str(root / "cache")
folder_paths.models_dir = str(root / "models")
for kind in ("input", "output", "temp"):
    (root / kind).mkdir()
    getattr(folder_paths, f"set_{kind}_directory")(str(root / kind))
shared = str(root / "shared_models")
folder_paths.add_model_folder_path("face_video_restoration", shared)  # as extra_model_paths.yaml does
said = {}

from fvr import host
from fvr.headless.io import io, newer, ui
from fvr.host import images

said["heavy before use"] = [name for name in ("comfy.model_management", "nodes", "execution", "server") if name in sys.modules]
said["inside"] = [host.comfy_api() is not None, host.inside_comfyui(), newer(category="x", not_an_argument=1)]

folders = host.model_folders()
again = host.model_folders()
said["own folders"] = [str(path.relative_to(root)) for path in folders["face_video_restoration"]]
said["stable"] = folders == again
said["made"] = (root / "models" / "face_video_restoration").is_dir()
said["others"] = sorted(folders)
fetched = Path(os.environ["FVR_MODELS"]) / "fetched.pth"  # where `fvr models fetch` puts a file
fetched.parent.mkdir()
fetched.write_bytes(b"x")
(fetched.parent / "sub").mkdir()
(fetched.parent / "sub" / "of another program.pth").write_bytes(b"x")
for name in ("a.pth", "readme.txt"):
    (root / "models" / "face_video_restoration" / name).write_bytes(b"x")
(root / "shared_models").mkdir()
(root / "shared_models" / "b.safetensors").write_bytes(b"x")
said["listed"] = [host.list_models(), folder_paths.get_filename_list("face_video_restoration")]
said["fetched"] = [host.model_path("fetched.pth") == fetched, [p.name for p in host.model_folders()["facedetection"]]]
said["found"] = host.model_path("b.safetensors") == Path(folder_paths.get_full_path("face_video_restoration", "b.safetensors"))

import torch

said["device"] = [str(host.device()), str(host.intermediate_device()), str(host.intermediate_dtype())]
from comfy.cli_args import args

args.fp16_intermediates = True
said["half"] = str(images.to_image(torch.rand(1, 3, 4, 4)).dtype)
args.fp16_intermediates = False

for name in ("a.mp4", "b.png", "sub/c.mp4"):
    (root / "input" / name).parent.mkdir(exist_ok=True)
    (root / "input" / name).write_bytes(b"x")
(root / "outside.mp4").write_bytes(b"x")
(root / "output" / "d.mp4").write_bytes(b"x")
(root / "input" / "link.mp4").symlink_to(root / "outside.mp4")
said["files"] = host.input_files()


def same(name):
    return str(host.resolve_input(name)) == folder_paths.get_annotated_filepath(name)


said["resolved"] = [same("a.mp4"), same("sub/c.mp4"), same("d.mp4 [output]")]
refused = {}
for name in ("../outside.mp4", str(root / "outside.mp4"), "link.mp4", "gone.mp4", "../outside.mp4 [output]"):
    try:
        host.resolve_input(name)
    except (ValueError, FileNotFoundError) as error:
        refused[name.replace(str(root), "")] = type(error).__name__
said["refused"] = refused

(root / "output" / "video").mkdir()
(root / "output" / "video" / "restored_00007_.mp4").write_bytes(b"x")
path, subfolder, name = host.next_output_path("video/restored", ".mp4")
said["next"] = [str(path.relative_to(root)), subfolder, name]
from fvr.host import local_paths


def numbers_agree(prefix):
    theirs = folder_paths.get_save_image_path(prefix, str(root / "output"), 3, 4)
    return local_paths.next_number(prefix, root / "output", 3, 4)[1:] == tuple(theirs[1:4])


said["numbers agree"] = [numbers_agree(prefix) for prefix in ("video/restored", "video/other", "x", "%year%/%month%_%width%x%height%", "a/./b//c")]
for prefix in ("../x", "/x"):
    try:
        host.next_output_path(prefix, ".mp4")
    except ValueError:
        said.setdefault("escapes", []).append(prefix)
with host.workspace(output=root / "elsewhere"):
    there = root / "elsewhere"
    said["workspace"] = [folder_paths.get_output_directory() == str(there), host.next_output_path("x", ".mp4")[0].parent == there]
said["workspace ended"] = folder_paths.get_output_directory() == str(root / "output")

import av
import numpy

clip = str(root / "clip.mp4")
with av.open(clip, "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height = 64, 48
    for i in range(20):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((48, 64, 3), 9 * i, numpy.uint8), format="rgb24")))
    container.mux(stream.encode())
theirs = host.video_from_file(clip)
from comfy_api.latest import InputImpl, Types

held = InputImpl.VideoFromComponents(Types.VideoComponents(images=torch.rand(3, 16, 16, 3), frame_rate=Fraction(5)))
said["held"] = [host.video_components(theirs) is None, list(host.video_components(held).images.shape)]

import comfy.model_management
import comfy.utils

seen = []


def hook(value, total, preview, node_id=None):
    seen.append([value, total, preview and [preview[0], list(preview[1].size)]])


comfy.utils.set_progress_bar_global_hook(hook)
with host.progress(4, "x") as tick:
    tick()
    tick(2, torch.rand(3, 8, 10))
    tick()
said["progress"] = seen[:]
steps = 0
try:
    with host.progress(10_000) as tick:
        for steps in range(10_000):
            if steps == 5:
                comfy.model_management.interrupt_current_processing()
            tick()
except comfy.model_management.InterruptProcessingException:
    said["interrupted at"] = steps
host.check_interrupt()

from fvr.headless import ui_shim


def shown(api):
    saved = [api.SavedResult("a", "b", io.FolderType.temp)]
    return [api.PreviewVideo(saved).as_dict(), sorted(api.PreviewImage(torch.rand(2, 8, 8, 3)).as_dict())]


said["ui"] = [ours == theirs for ours, theirs in zip(shown(ui_shim), shown(ui), strict=True)]
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 3, 3).to(torch.bfloat16)).requires_grad_(False)
place = host.managed(network)
before = network.state_dict()["0.weight"].clone()
at = [place(2**20), place(2**20)]
known = [loaded.model is network for loaded in comfy.model_management.loaded_models()]
patcher = comfy.model_management.loaded_models()[0]
said["managed"] = [at[0] == at[1] == host.device(), known, host.managed(patcher)(2**20) == patcher.load_device]
comfy.model_management.unload_all_models()
said["managed"].append([place(0) == host.device(), torch.equal(network.state_dict()["0.weight"].cpu(), before), str(network[1].weight.dtype)])
sys.stdout.write(json.dumps(said))
