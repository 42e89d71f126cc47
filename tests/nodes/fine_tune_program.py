"""Pseudo-Target Fine-tune inside ComfyUI, in inference mode; test_fine_tune_node.py reads the answers. BASE and FOLDER are given."""

# ruff: noqa: E402, T201, F821

import json
import shutil
import threading
import time
from pathlib import Path

from helpers.tiny_sd import without_sound

without_sound()

from fvr import host

host.comfy("comfy.model_management")

import comfy.model_management as management
import folder_paths
import torch
from safetensors.torch import load_file

from fvr.nodes.fine_tune import PseudoTargetFineTune
from fvr.nodes.restorers import LoadFaceRestorer

said = {}
folder = Path(FOLDER)
folder_paths.models_dir = str(folder / "models")
own = folder / "models" / "face_video_restoration"
own.mkdir(parents=True)
folder_paths.folder_names_and_paths["face_video_restoration"] = ([str(own)], set(folder_paths.supported_pt_extensions))
folder_paths.set_output_directory(str(folder / "output"))
folder_paths.set_temp_directory(str(folder / "temp"))
shutil.copy(BASE, own / "base.safetensors")

with torch.inference_mode():
    (restorer, _) = LoadFaceRestorer.execute(model="base.safetensors").result
    draw = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 32).expand(32, 32)
    targets = torch.stack([torch.stack([ramp.roll(n, 1), ramp.T.roll(2 * n, 0), ramp.flip(0)], -1) for n in range(14)])
    inputs = (targets + 0.2 * torch.randn(targets.shape, generator=draw)).clamp(0, 1)
    said["made in inference mode"] = inputs.is_inference()
    before = restorer.network.state_dict()
    kept = {key: value.clone() for key, value in before.items()}
    given = dict(restorer=restorer, inputs=inputs, targets=targets, file_name="camera", steps=6, learning_rate=1e-3, batch=2)
    tuned, curves, sheet, report = PseudoTargetFineTune.execute(**given).result
    state = load_file(own / "camera.safetensors")
    said["file"] = (own / "camera.safetensors").is_file()
    said["changed"] = sorted({key.split(".")[0] for key in kept if not torch.equal(kept[key], state[key])})
    loaded = LoadFaceRestorer.execute(model="camera.safetensors").result[0]
    theirs = loaded.network.state_dict()
    said["same as loaded"] = all(torch.equal(value, theirs[key]) for key, value in tuned.network.state_dict().items())
    after = restorer.network.state_dict()
    said["base untouched"] = [
        all(torch.equal(kept[key], after[key]) and before[key].data_ptr() == after[key].data_ptr() for key in kept),
        not any(parameter.requires_grad for parameter in restorer.network.parameters()),
    ]
    said["inference mode"] = torch.is_inference_mode_enabled()
    said["pictures"] = [[curves.shape[0], curves.shape[-1]], [sheet.shape[0], sheet.shape[-1]]]
    said["trainable again"] = not any(value.is_inference() for value in tuned.network.parameters())

    asked = [0.0]

    def stop():
        asked[0] = time.monotonic()
        management.interrupt_current_processing()

    slow = {**given, "file_name": "stopped", "steps": 4000, "held_out": 0.1}
    threading.Timer(6.0, stop).start()
    try:
        PseudoTargetFineTune.execute(**slow)
        said["stopped"] = "no"
    except BaseException as stopped:
        said["stopped"] = type(stopped).__name__
        said["stopped after"] = time.monotonic() - asked[0]
    (work,) = [path for path in (folder / "output" / "fine-tune").iterdir() if path.name.startswith("stopped")]
    said["state"] = (work / "state.pt").is_file()
    done = torch.load(work / "state.pt", weights_only=True)["step"]
    steps = []
    import fvr.finetune.stage as stage

    real = stage.FineTuneStage.begin

    def begin(self, step, generator):
        steps.append(step)
        if len(steps) == 2:
            management.interrupt_current_processing()
        real(self, step, generator)

    stage.FineTuneStage.begin = begin
    try:
        PseudoTargetFineTune.execute(**slow)
    except BaseException:
        said["went on"] = bool(done > 0 and steps[0] == done)
print(json.dumps(said))
