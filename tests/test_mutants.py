"""Small files with random damage, drawn from fixed seeds: each gives a result or one sentence, soon, and nothing is written elsewhere.

One law for everything that people hand over: clips and pictures, checkpoints, prompts. A mutant that breaks it once becomes a case of its own
in the tests of the room that mends it.
"""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.code_networks import small_codeformer
from safetensors.torch import save_file

from fvr import headless, host
from fvr.models.checkpoints.load import load_network, peek
from fvr.models.checkpoints.state_dict import names_of, notes_of, read_state
from fvr.nodes import registry
from fvr.video import AudioTrack, FrameTimes, open_sink, open_source, read_audio, read_frames

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs timers of POSIX")
ROUNDS = int(os.environ.get("FVR_MUTANTS", "1"))
"""How many times as many mutants as usual."""
PATIENCE = 20
"""Seconds for one mutant, many times what any needs, as other work may share the machine."""
REFUSALS = (ValueError, OSError, headless.NodeFailed)
"""What the command line prints as one sentence, without those that only happen to be caught there."""
SIDE = 64


# ---------------------------------------------------------------- the law

_watch: dict[str, Path | None] = {"root": None}
_strays: list[str] = []


def _heard(event, arguments):
    """An audit hook: hooks stay, so it looks only while a root is set."""
    root = _watch["root"]
    if root is None or event not in ("open", "os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink", "os.truncate", "socket.connect"):
        return
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if not writes or not isinstance(path, (str, bytes, os.PathLike)) or os.fspath(path) in (os.devnull, b"/dev/null"):
            return
        places = [path]
    else:
        places = [place for place in arguments if isinstance(place, (str, bytes, os.PathLike))][: 2 if event in ("os.rename", "os.link") else 1]
    for place in places:
        if event == "socket.connect" or not Path(os.path.abspath(os.fsdecode(place))).is_relative_to(root):  # noqa: PTH100
            _strays.append(f"{event} {os.fsdecode(place)}")


sys.addaudithook(_heard)


@pytest.fixture
def law(tmp_path, monkeypatch):
    """Calls one piece of work under the law; says whether it gave a result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FVR_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("fvr.host.comfyui.inside_comfyui", lambda: False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def late(number, frame):
        raise AssertionError(f"still at work after {PATIENCE} s")

    def obeyed(work, what):
        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            work()
            return True
        except REFUSALS as error:
            sentence = str(error)
            one = (
                bool(sentence.strip())
                and len(sentence.splitlines()) == 1
                and len(sentence) < (4000 if isinstance(error, headless.PromptRefused) else 700)
            )
            assert one, f"{type(error).__name__}: {sentence[:700]!r}"
            return False
        except AssertionError as error:
            raise AssertionError(f"{what}: {str(error)[:900]}") from error
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:900]}") from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    _strays.clear()
    _watch["root"] = tmp_path
    try:
        yield obeyed
    finally:
        _watch["root"] = None
        torch.set_num_threads(threads)
    assert _strays == []


# ---------------------------------------------------------------- damage


def mutant(data, draw):
    """`data` with one to three damages of the kinds that disks, networks and people do."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(max(1, min(len(data), 1 << draw.randint(3, 20))))  # headers are at the beginning, and matter most
        length = draw.choice([1, 4, 8, 40, 300])
        kind = draw.randrange(8)
        if kind == 0:
            del data[at + 1 :]
        elif kind == 1 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            data[at : at + length] = draw.randbytes(len(data[at : at + length]))
        elif kind == 3:
            data[at : at + length] = bytes(len(data[at : at + length]))
        elif kind == 4:
            del data[at : at + length]
        elif kind == 5:
            data[at:at] = data[at : at + length] * draw.randint(1, 3)
        elif kind == 6:
            data[at : at + 4] = draw.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00"])
        else:
            data[at : at + length] = reversed(data[at : at + length])
    return bytes(data)


# ---------------------------------------------------------------- clips and pictures


def clips(folder):
    """Four frames of 64 x 64 in each container, with sound where it may be; and pictures."""
    frames = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    times = FrameTimes.constant(4, 25)
    tone = AudioTrack(torch.sin(torch.arange(1280) * 0.2)[None] * 0.3, 8000)
    for name, codec in (("a.mp4", "h264"), ("b.mkv", "ffv1"), ("c.webm", "vp9"), ("d.mov", "prores"), ("e.mkv", "h265")):
        with open_sink(folder / name, None, size=(SIDE, SIDE), codec=codec, audio=tone) as sink:
            sink.write(frames, times.starts, times.ends)
    pixels = (frames[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        (folder / f"f{suffix}").write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
def test_damaged_clips(seed, law, tmp_path):
    draw = random.Random(f"clips {seed}")
    (tmp_path / "seeds").mkdir()
    seeds, copy_of = clips(tmp_path / "seeds"), tmp_path / "copy.mkv"
    kept = 0
    for number in range(90):
        name = draw.choice(list(seeds))
        path = tmp_path / f"m{number}-{name}"
        path.write_bytes(mutant(seeds[name], draw))

        def work(path=path):
            source = open_source(path, count=40)
            frames, times = read_frames(source)
            assert len(frames) == len(times) > 0 and bool(torch.isfinite(frames).all())
            assert all(b > a for a, b in zip(times.starts, times.starts[1:], strict=False)) and times.end > times.starts[-1]
            sound = read_audio(path, times)
            assert sound is None or sound.waveform.shape[-1] < 100 * 48_000
            with open_sink(copy_of, source.info, codec="ffv1", audio=source, overwrite=True) as sink:
                sink.write(frames, times.starts, times.ends)
            assert len(read_frames(copy_of)[1]) == len(times) and copy_of.stat().st_size < 100 << 20

        kept += law(work, f"clip {number} of seed {seed} ({name})")
        path.unlink()
    assert 20 < kept < 88, "damage that nothing notices, or that nothing survives, tests nothing"


# ---------------------------------------------------------------- checkpoints


def checkpoints(folder, state):
    save_file(state, folder / "a.safetensors", metadata={"licence": "MIT", "adain": "off"})
    torch.save({"params_ema": state, "iter": 3}, folder / "b.pth")
    torch.save({"state_dict": state}, folder / "c.pth", _use_new_zipfile_serialization=False)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
def test_damaged_checkpoints(seed, law, tmp_path):
    draw = random.Random(f"checkpoints {seed}")
    (tmp_path / "seeds").mkdir()
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 3, 3, bias=False))
    seeds = checkpoints(tmp_path / "seeds", layers.state_dict())
    kept = 0
    for number in range(400):
        name = draw.choice(list(seeds))
        path = tmp_path / f"m{number}-{name}"
        path.write_bytes(mutant(seeds[name], draw))

        def work(path=path):
            state = read_state(path)
            assert state and all(isinstance(value, torch.Tensor) and value.numel() < 1 << 20 for value in state.values())
            assert all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point())
            assert list(state) == names_of(path) and isinstance(notes_of(path), dict)

        kept += law(work, f"checkpoint {number} of seed {seed} ({name})")
        path.unlink()
    assert 20 < kept < 390


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_damaged_restorers(seed, law, tmp_path):
    """Through recognition, building and the first picture."""
    draw = random.Random(f"restorers {seed}")
    (tmp_path / "seeds").mkdir()
    seeds = checkpoints(tmp_path / "seeds", small_codeformer().state_dict())
    kept = 0
    for number in range(60):
        name = draw.choice(list(seeds))
        path = tmp_path / f"m{number}-{name}"
        path.write_bytes(mutant(seeds[name], draw))

        def work(path=path):
            kind = peek(path)
            loaded = load_network(path)
            assert loaded.kind == kind
            if kind == "codeformer":
                side = loaded.network.config.side
                with torch.inference_mode():
                    assert bool(torch.isfinite(loaded.network(torch.full((1, 3, side, side), 0.3))).all())

        kept += law(work, f"restorer {number} of seed {seed} ({name})")
        path.unlink()
    assert 0 < kept < 60


# ---------------------------------------------------------------- prompts

ODD = [
    None, True, False, 0, -1, 2**70, 1e400, -1e400, float("nan"), 0.5, "", "x", "\0", "../../x", "/tmp/x", "a\nb", "\ud800", "x" * 5000, "nan",
    [], {}, [[]], ["1", 0], ["1", -1], ["1", 99], ["1", True], [1, 0], ["9", 0], {"__value__": {}}, {"__value__": [1]}, {"class_type": "SaveImage"},
]  # fmt: skip


def places(value, trail=()):
    """Every place in nested lists and objects."""
    yield trail
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*trail, key))


def misshapen(prompt, draw):
    """A prompt with one to four values replaced, dropped, moved or wrapped."""
    prompt = copy.deepcopy(prompt)
    for _ in range(draw.randint(1, 2)):
        trail = draw.choice([trail for trail in places(prompt) if trail])
        parent = prompt
        for key in trail[:-1]:
            parent = parent[key]
        kind = draw.randrange(5)
        if kind == 0 and isinstance(parent, dict):
            del parent[trail[-1]]
        elif kind == 1 and isinstance(parent, dict):
            parent[draw.choice(["", "inputs", "class_type", "_meta", "x" * 300, "1"])] = parent.pop(trail[-1])
        elif kind == 2:
            parent[trail[-1]] = [parent[trail[-1]]] * draw.randint(0, 3)
        else:
            parent[trail[-1]] = copy.deepcopy(draw.choice(ODD))
    return prompt


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_misshapen_bundled_prompts_are_checked(seed, law, tmp_path):
    draw = random.Random(f"bundled {seed}")
    nodes = registry()
    bundled = [json.loads(path.read_text()) for path in sorted((Path(__file__).parents[1] / "workflows" / "api").glob("*.json"))]
    kept = 0
    for number in range(240):
        prompt = draw.choice(bundled)
        text = json.dumps(misshapen(prompt, draw)) if draw.random() < 0.6 else mutant(json.dumps(prompt).encode(), draw).decode("latin-1")
        path = tmp_path / "p.json"
        path.write_text(text, encoding="utf-8")

        def work(path=path, overrides=["1.seed=3"] if number % 2 else []):
            prompt = headless.apply_overrides(headless.load_prompt(path), overrides, nodes)
            errors = headless.validate(prompt, nodes)
            assert all(len(str(error).splitlines()) == 1 for error in errors)
            json.dumps(prompt)

        kept += law(work, f"bundled prompt {number} of seed {seed}: {text[:200]!r}")
    assert 20 < kept < 235


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_misshapen_prompts_are_run(seed, law, tmp_path):
    """For real: a clip and a picture in, a clip and a picture out, into the output folder and nowhere else."""
    draw = random.Random(f"run {seed}")
    for folder in ("input", "output"):
        (tmp_path / folder).mkdir()
    times = FrameTimes.constant(2, 25)
    with open_sink(tmp_path / "input" / "a.mp4", None, size=(SIDE, SIDE)) as sink:
        sink.write(torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), times.starts, times.ends)
    cv2.imwrite(str(tmp_path / "input" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    prompt = {
        "1": {
            "class_type": "FVRLoadVideoFrames",
            "inputs": {"file": "a.mp4", "start_frame": 0, "max_frames": 0, "every_nth": 1},
            "_meta": {"title": "in"},
        },
        "2": {
            "class_type": "FVRSaveVideoFrames",
            "inputs": {
                "frames": ["1", 0],
                "times": ["1", 1],
                "filename_prefix": "v/out",
                "frame_rate": 25.0,
                "codec": "h264",
                "crf": 30,
                "pixel_format": "auto",
            },
        },
        "3": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "i/out"}},
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["1", 4]}},
    }
    nodes, kept, files = registry(), 0, 0
    for number in range(200):
        misshaped = misshapen(prompt, draw)
        path = tmp_path / "p.json"
        path.write_text(json.dumps(misshaped), encoding="utf-8")

        def work(path=path):
            nonlocal files
            with host.workspace(input=tmp_path / "input", output=tmp_path / "output", temp=tmp_path / "temp"):
                result = headless.run_prompt(headless.load_prompt(path), nodes)
            assert all(file.is_file() and file.resolve().is_relative_to(tmp_path / "output") for file in result.files)
            files += len(result.files)

        kept += law(work, f"prompt {number} of seed {seed}: {json.dumps(misshaped)[:300]}")
    assert 3 < kept < 195 and files > 3
    assert {path.name for path in tmp_path.iterdir()} <= {"input", "output", "temp", "p.json"}
    assert sorted(path.name for path in (tmp_path / "input").iterdir()) == ["a.mp4", "a.png"]
