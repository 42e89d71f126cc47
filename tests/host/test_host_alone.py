"""The seam without ComfyUI: devices, folders, numbering, progress, interruption, and what importing costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvr import host


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A current directory and model folder of its own for each test, and no leftover choices."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FVR_MODELS", str(tmp_path / "models"))
    yield
    host.set_device(None)
    host.clear_interrupt()


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


# ---------------------------------------------------------------- imports


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import fvr", "torch numpy cv2 av comfy comfy_api folder_paths tqdm"),
        ("import fvr.host", "cv2 av comfy comfy_api folder_paths PIL facexlib"),
        ("from fvr.headless.io import io", "cv2 av comfy folder_paths"),
    ],
)
def test_importing_is_cheap(statement, heavy):
    program = f"{statement}\nimport sys\nprint(*[name for name in {heavy.split()!r} if name in sys.modules])"
    env = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == []


def test_the_entry_point_is_the_only_way_in():
    """A NODE_CLASS_MAPPINGS beside it would silence comfy_entrypoint; the web folder is where ComfyUI looks for help pages."""
    import asyncio
    import inspect

    import fvr

    assert not hasattr(fvr, "NODE_CLASS_MAPPINGS") and fvr.WEB_DIRECTORY == "./web"
    assert inspect.iscoroutinefunction(fvr.comfy_entrypoint)
    assert callable(asyncio.run(fvr.comfy_entrypoint()).get_node_list)


# ---------------------------------------------------------------- devices


def test_the_device_chosen_is_the_device():
    host.set_device("cpu")
    assert host.device() == torch.device("cpu")
    host.set_device(None)
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert host.device().type == best


@pytest.mark.parametrize("name", ["warp-drive", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_and_changes_nothing(name):
    host.set_device("cpu")
    with pytest.raises(ValueError, match=re.escape(repr(name))) as caught:
        host.set_device(name)
    assert "\n" not in str(caught.value) and host.device() == torch.device("cpu")


def test_a_managed_network_runs_where_the_device_is():
    network = torch.nn.Conv2d(3, 3, 1)
    place = host.managed(network)
    assert place(2**20) == host.device() == network.weight.device
    host.set_device("meta")
    assert place(0) == torch.device("meta") == network.weight.device


# ---------------------------------------------------------------- progress and interruption


def test_a_tick_after_a_request_to_stop_raises_and_nothing_else_swallows_it():
    done = []
    with pytest.raises(host.Interrupted), host.progress(10, "work") as tick:
        for step in range(10):
            done.append(step)
            try:
                tick()
            except Exception:
                pytest.fail("an ordinary handler caught the interruption")
            if step == 3:
                stopper = threading.Thread(target=host.interrupt)
                stopper.start()
                stopper.join()
    assert done == [0, 1, 2, 3, 4]
    with pytest.raises(host.Interrupted):
        host.check_interrupt()
    host.clear_interrupt()
    host.check_interrupt()


def test_any_network_is_stopped_between_its_layers_and_no_other_thread_is(monkeypatch):
    """The hook sits on all modules, so it must go with the bar, and must not throw into another thread's network."""
    monkeypatch.setattr("fvr.host.progress_bar.CHECK_INTERVAL", 0.0)
    ran: list[int] = []
    layers = [torch.nn.Identity() for _ in range(6)]
    for index, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
    network = torch.nn.Sequential(*layers)

    def in_another_thread():
        thread = threading.Thread(target=lambda: network(torch.zeros(1)))
        thread.start()
        thread.join()

    with pytest.raises(host.Interrupted), host.progress(1, "work"):
        network[:3](torch.zeros(1))
        host.interrupt()
        in_another_thread()
        assert ran == [0, 1, 2, *range(6)]
        network(torch.zeros(1))
    assert len(ran) == 9
    network(torch.zeros(1))
    assert len(ran) == 15


@pytest.mark.parametrize("total", [0, None, 5])
def test_progress_counts_on_stderr_only(total, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with host.progress(total, "restore") as tick:
        tick(3)
        tick(0)
        tick(2, torch.rand(3, 8, 8))
    out, err = capsys.readouterr()
    assert out == "" and "restore" in err
    assert re.search(r"5/5" if total else r"5it", err)


@pytest.mark.parametrize(("total", "line"), [(1500, "restore: 1,200 of 1,500\n"), (None, "restore: 1,200\n")])
def test_progress_is_told_in_logs_every_so_often(total, line, monkeypatch, capsys):
    """A film under nohup or on a cluster takes hours, in which a log that says nothing looks like a program that hangs."""
    with host.progress(total, "restore") as tick:
        tick(1200)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("fvr.host.progress_bar.LOG_SECONDS", 0.0)
    with host.progress(total, "restore") as tick:
        tick(1200)
    assert capsys.readouterr().err == line


def test_the_time_left_does_not_count_what_was_done_before(monkeypatch, capsys):
    """A job that goes on after a night would otherwise claim to be over in seconds."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with host.progress(10_000, "restore", 9_000) as tick:
        time.sleep(0.2)
        tick(10)
    err = capsys.readouterr().err
    assert "9010/10000" in err
    minutes, seconds = re.findall(r"<(\d+):(\d+)", err)[-1]
    assert 60 * int(minutes) + int(seconds) >= 15  # at 50 a second or slower


# ---------------------------------------------------------------- model folders


def test_models_lie_flat_in_the_folder_that_was_named(tmp_path):
    touch(tmp_path / "models" / "keep.pth", tmp_path / "models" / "notes.txt", tmp_path / "models" / "loras" / "other.safetensors")
    assert host.model_folders()["face_video_restoration"] == [tmp_path / "models"]
    assert host.list_models() == ["keep.pth"]
    assert host.model_path("keep.pth") == tmp_path / "models" / "keep.pth"


def test_a_comfyui_models_folder_is_used_as_it_is(tmp_path):
    models = tmp_path / "models"
    touch(models / "face_video_restoration" / "sub" / "a.safetensors", models / "facedetection" / "d.PTH", models / "checkpoints" / "c.ckpt")
    folders = host.model_folders()
    assert folders["face_video_restoration"][0] == models / "face_video_restoration"
    assert host.list_models() == ["sub/a.safetensors"] and host.list_models("facedetection") == ["d.PTH"]
    assert host.model_path("c.ckpt", "checkpoints") == models / "checkpoints" / "c.ckpt"
    assert set(folders) == {"face_video_restoration", "facerestore_models", "facedetection", "upscale_models", "checkpoints", "detection"}


def test_without_a_variable_the_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("FVR_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert host.model_folders()["face_video_restoration"] == [tmp_path / "cache" / "face-video-restoration" / "models"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert host.model_folders()["face_video_restoration"] == [tmp_path / ".cache" / "face-video-restoration" / "models"]
    assert host.list_models() == []


def test_a_missing_model_is_named_with_its_folder(tmp_path):
    touch(tmp_path / "secret.pth", tmp_path / "models" / "other.pth")
    with pytest.raises(FileNotFoundError, match=rf"'keep\.pth' is not in {re.escape(str(tmp_path / 'models'))}"):
        host.model_path("keep.pth")
    with pytest.raises(FileNotFoundError):
        host.model_path("../secret.pth")
    with pytest.raises(ValueError, match="face_video_restoration"):
        host.list_models("loras")


@pytest.fixture
def linked(tmp_path) -> Path:
    """A ComfyUI models folder whose weights lie elsewhere: a linked file, a linked folder, a link to nothing, and one back to the folder."""
    touch(tmp_path / "disk" / "big.pth", tmp_path / "disk" / "more" / "small.safetensors")
    folder = tmp_path / "models" / "facerestore_models"
    folder.mkdir(parents=True)
    for name, target in (("codeformer.pth", "big.pth"), ("sub", "more"), ("gone.pth", "nothing.pth")):
        (folder / name).symlink_to(tmp_path / "disk" / target)
    (tmp_path / "disk" / "more" / "round").symlink_to(folder)
    return folder


def test_linked_weights_are_found_where_the_link_is(linked):
    assert host.list_models("facerestore_models") == ["codeformer.pth", "sub/small.safetensors"]
    assert host.model_path("codeformer.pth", "facerestore_models") == linked / "codeformer.pth"
    assert host.model_path("sub/small.safetensors", "facerestore_models") == linked / "sub" / "small.safetensors"
    for name in ("gone.pth", "sub/../../../disk/big.pth", str(linked.parents[1] / "disk" / "big.pth"), "a\0b.pth"):
        with pytest.raises(FileNotFoundError):
            host.model_path(name, "facerestore_models")


def test_no_menu_fails_over_a_linked_or_vanished_file(linked, monkeypatch):
    """One exception in a schema would keep ComfyUI from loading the package."""
    from fvr.nodes.restorers import LoadFaceRestorer

    there = host.list_models("facerestore_models")
    monkeypatch.setattr(host, "list_models", lambda folder: [*there, "just deleted.pth"] if folder == "facerestore_models" else [])
    offered = LoadFaceRestorer.define_schema().inputs[0].options
    assert {"codeformer.pth", "sub/small.safetensors"} <= set(offered) and "just deleted.pth" not in offered


# ---------------------------------------------------------------- files in


def test_workspaces_nest_and_end(tmp_path):
    assert (host.input_directory(), host.output_directory()) == (tmp_path, tmp_path / "output")
    with host.workspace(input="in", output=tmp_path / "out"):
        with host.workspace(output=tmp_path / "deeper"), pytest.raises(ZeroDivisionError), host.workspace(temp=tmp_path / "t"):
            assert (host.input_directory(), host.output_directory()) == (tmp_path / "in", tmp_path / "deeper")
            assert host.temp_directory() == tmp_path / "t" and (tmp_path / "t").is_dir()
            raise ZeroDivisionError
        assert host.output_directory() == tmp_path / "out" and host.temp_directory() != tmp_path / "t"
    assert host.input_directory() == tmp_path
    (tmp_path / "input").mkdir()
    assert host.input_directory() == tmp_path / "input"


def test_input_files_are_those_of_the_kind(tmp_path):
    touch(*(tmp_path / name for name in ["b.mp4", "a.MKV", "c.webm", "d.png", "e.wav", "f.txt", "sub/g.mp4"]))
    touch(*(tmp_path / f"old.{ending}" for ending in ("mts", "M2TS", "ts", "vob", "mxf", "3gp")))
    (tmp_path / "folder.mp4").mkdir()
    old = ["old.3gp", "old.M2TS", "old.mts", "old.mxf", "old.ts", "old.vob"]
    assert host.input_files("video") == ["a.MKV", "b.mp4", "c.webm", *old]
    assert host.input_files("image") == ["d.png"] and host.input_files("audio") == ["e.wav"]
    with host.workspace(input=tmp_path / "nowhere"):
        assert host.input_files() == []


def test_names_lead_to_their_directories(tmp_path):
    touch(
        tmp_path / "in" / "sub" / "a.mp4", tmp_path / "out" / "a.mp4", tmp_path / "t" / "a.mp4", tmp_path / "here.mp4", tmp_path / "in" / "x [1].mp4"
    )
    with host.workspace(input=tmp_path / "in", output=tmp_path / "out", temp=tmp_path / "t"):
        assert host.resolve_input("sub/a.mp4") == tmp_path / "in" / "sub" / "a.mp4"
        assert host.resolve_input("a.mp4 [output]") == tmp_path / "out" / "a.mp4"
        assert host.resolve_input("a.mp4[temp]") == tmp_path / "t" / "a.mp4"
        assert host.resolve_input("x [1].mp4 [input]") == host.resolve_input("x [1].mp4") == tmp_path / "in" / "x [1].mp4"
        assert host.resolve_input("here.mp4").samefile(tmp_path / "here.mp4")
        assert host.resolve_input(str(tmp_path / "here.mp4")) == tmp_path / "here.mp4"
        with pytest.raises(FileNotFoundError, match=r"'a\.mp4'"):
            host.resolve_input("a.mp4")
        with pytest.raises(FileNotFoundError):
            host.resolve_input("")
        with pytest.raises(ValueError, match="leads out"):
            host.resolve_input("../here.mp4 [output]")


def test_the_fingerprint_changes_with_the_file(tmp_path):
    touch(tmp_path / "a.mp4")
    first = host.file_fingerprint("a.mp4")
    assert first == host.file_fingerprint("a.mp4") is not None
    (tmp_path / "a.mp4").write_bytes(b"xy")
    assert host.file_fingerprint("a.mp4") != first
    assert host.file_fingerprint("gone.mp4") is host.file_fingerprint(None) is host.file_fingerprint("../x [temp]") is None


def test_a_folders_fingerprint_changes_with_its_files(tmp_path):
    """A picture written over in place leaves its folder's own time as it was."""
    frames = [tmp_path / "shot" / f"{n}.png" for n in range(3)]
    touch(*frames)
    seen = [host.file_fingerprint("shot")]
    assert seen[0] == host.file_fingerprint("shot")
    frames[1].write_bytes(b"xy")
    seen.append(host.file_fingerprint("shot"))
    os.utime(frames[2], ns=(1, 1))
    seen.append(host.file_fingerprint("shot"))
    frames[0].rename(tmp_path / "shot" / "9.png")
    seen.append(host.file_fingerprint("shot"))
    assert len(set(seen)) == 4 and None not in seen


# ---------------------------------------------------------------- files out


def test_numbers_go_up_and_never_meet_a_file(tmp_path):
    seen = []
    for _ in range(3):
        path, subfolder, name = host.next_output_path("video/restored", ".mp4")
        assert path == tmp_path / "output" / "video" / name and subfolder == "video" and not path.exists()
        touch(path)
        seen.append(name)
    assert seen == ["restored_00001_.mp4", "restored_00002_.mp4", "restored_00003_.mp4"]
    touch(tmp_path / "output" / "video" / "restored_00041_.png", tmp_path / "output" / "video" / "restored_more_00099_.mp4")
    assert host.next_output_path("video/restored", ".mkv")[2] == "restored_00042_.mkv"
    assert host.next_output_path("restored", ".mp4", kind="temp")[1] == ""


def test_words_in_a_prefix_are_filled_in():
    path, subfolder, name = host.next_output_path("%year%-%month%/clip_%width%x%height%", ".mp4", width=64, height=48)
    assert re.fullmatch(r"\d{4}-\d\d", subfolder) and name == "clip_64x48_00001_.mp4" and path.parent.is_dir()


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/etc/x", "", "  ", "a/..", ".", "video/"])
def test_a_prefix_stays_in_its_directory(prefix):
    with pytest.raises(ValueError, match=r"prefix"):
        host.next_output_path(prefix, ".mp4")


@settings(max_examples=60, deadline=None)
@given(prefix=st.text(st.sampled_from("ab./ _%\\"), max_size=12))
def test_whatever_the_prefix_the_file_is_below_the_directory(tmp_path_factory, prefix):
    root = tmp_path_factory.mktemp("out")
    with host.workspace(output=root):
        try:
            path, subfolder, name = host.next_output_path(prefix, ".mp4")
        except ValueError:
            return
        assert path.resolve().is_relative_to(root.resolve()) and path == root / subfolder / name and path.parent.is_dir()


# ---------------------------------------------------------------- VIDEO


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds at 12.5 frames per second, 64 x 48."""
    import av
    import numpy as np

    path = tmp_path_factory.mktemp("clip") / "c.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25, 2))
        stream.width, stream.height = 64, 48
        for i in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * i, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_video_value_tells_what_a_socket_needs(clip):
    video = host.video_from_file(clip)
    assert host.video_source(video) == (str(clip), (0.0, 0.0))
    assert host.video_components(video) is None


def test_an_older_hosts_window_is_found():
    """Before get_active_trim_window, ComfyUI kept the window in private attributes."""

    class VideoFromFile:
        def __init__(self):
            self.__start_time, self.__duration = 1.5, 2

        def get_stream_source(self):
            return "a.mp4"

        def touch(self):
            return self.__start_time, self.__duration

    assert host.video_source(VideoFromFile()) == ("a.mp4", (1.5, 2.0))
