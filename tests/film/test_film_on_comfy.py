"""A job on ComfyUI servers: the same bytes as here from a real one, and what happens where a server fails, from stand-ins that restore as it does."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from helpers.comfyui_host import Host, needs_host
from helpers.small_film import in_one_go, make_film, planned, tools_of

from fvr.cli import main
from fvr.demo import moving_portrait
from fvr.film import comfy_server
from fvr.film.bundle import unpack
from fvr.film.comfy_server import NODE
from fvr.film.executors import failed
from fvr.film.job import Job
from fvr.film.join import join_once
from fvr.film.on_comfy import FOLDER, work_on_comfy
from fvr.film.segment import restore_segment
from fvr.models.checkpoints.fetch import sha256_of
from fvr.video import FrameTimes, open_sink, read_frames

FAST = ["--method", "flair", "--weights", "none", "--set", "steps=2", "--set", "window=2", "--set", "overlap=1", "--codec", "ffv1"]


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    """Three shots with a face, of 3, 6 and 3 frames."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    path = tmp_path_factory.mktemp("portraits") / "my film.mkv"
    frames = moving_portrait(3)
    dark = 0.3 * frames.flip(-1).flip(1)
    frames = torch.cat([frames, dark, dark, frames.flip(1)])
    times = FrameTimes.constant(12, 25)
    with open_sink(path, None, size=(320, 320), codec="ffv1") as sink:
        sink.write(frames, times.starts, times.ends)
    return path


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    here = Host(tmp_path_factory.mktemp("comfyui"))
    here.start()
    yield here
    here.control("stop")


def segments(job: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((job / "segments").glob("*.mkv"))}


@needs_host[0]
@needs_host[1]
def test_a_real_server_gives_the_same_bytes(portraits, running, tmp_path, monkeypatch, capsys):
    """Beside one that is not there. The clip is uploaded once, and a plan of another version refused."""
    monkeypatch.setenv("FVR_MODELS", str(tmp_path / "none"))
    address = f"http://127.0.0.1:{running.port}"
    rest = [*FAST, "--detector", "blazeface", "--segment-seconds", "0.25"]
    assert main(["restore", str(portraits), str(tmp_path / "here.mkv"), "--job", str(tmp_path / "here"), *rest]) == 0
    command = ["restore", str(portraits), str(tmp_path / "there.mkv"), "--job", str(tmp_path / "there"), *rest]
    assert main([*command, "--comfy", f"{address},127.0.0.1:9"]) == 0, capsys.readouterr().err
    assert "one server less: http://127.0.0.1:9 does not answer (Connection refused)" in capsys.readouterr().err
    here, there = segments(tmp_path / "here"), segments(tmp_path / "there")
    assert len(here) == 3 and here == there
    (one, times), (other, other_times) = read_frames(tmp_path / "here.mkv"), read_frames(tmp_path / "there.mkv")
    assert torch.equal(one, other) and times.starts == other_times.starts and not torch.equal(one, read_frames(portraits)[0])
    assert {p.name for p in (tmp_path / "there").iterdir()} == {p.name for p in (tmp_path / "here").iterdir()}
    uploaded = list((running.base / "input" / FOLDER).iterdir())
    assert [path.read_bytes() for path in uploaded] == [portraits.read_bytes()]
    assert len(list((running.base / "temp" / FOLDER).rglob("*.mkv"))) == 1, "what was fetched goes"

    note = json.loads((tmp_path / "there" / "job.json").read_text())
    note["identity"]["version"] = "0.0.7"
    (tmp_path / "there" / "job.json").write_text(json.dumps(note))
    (tmp_path / "there" / "segments" / "00001.json").unlink()
    with pytest.raises(RuntimeError, match=r"no server is left .* was planned with version 0\.0\.7, got ") as refusal:
        work_on_comfy(Job.load(tmp_path / "there"), [address])
    assert str(running.folder) not in str(refusal.value)
    assert not list((tmp_path / "there" / "segments").glob("*.failed-*.json")), "a server's fault is no attempt of the segment"


class StandIn(ThreadingHTTPServer):
    """As much of ComfyUI as a job meets; segments are restored by the tools of these tests. `fault` says what goes wrong.

    Attributes:
        ran: the segments that were asked for, in order.
        uploads: names of the files that came.
    """

    daemon_threads = True

    def __init__(self, folder: Path, fault: str = "", limit: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.folder, self.fault, self.limit = folder, fault, limit
        self.ran: list[int] = []
        self.uploads: list[str] = []
        self.history: dict[str, dict] = {}
        self.dead = False
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def die(self) -> None:
        self.dead = True
        threading.Thread(target=self.shutdown).start()
        self.socket.close()

    def run(self, inputs: dict) -> dict:
        """The history of a prompt."""
        number = inputs["segment"]
        self.ran.append(number)
        if self.fault == "version" or (self.fault == "out of memory" and number >= 0):
            sentence = "was planned with version 2, got 1" if self.fault == "version" else "CUDA out of memory"
            return {"status": {"messages": [["execution_start", {}], ["execution_error", {"exception_message": sentence}]]}, "outputs": {}}
        if number < 0:
            return {"status": {"messages": []}, "outputs": {"1": {"text": ["fine"]}}}
        if self.fault == "nonsense":
            return {"status": {"messages": []}, "outputs": {"1": {"text": ["fine"]}}}
        bundle = self.folder / "temp" / inputs["job"].removesuffix(" [temp]")
        job = unpack(bundle, self.folder / "temp" / bundle.stem, self.folder / "input" / inputs["clip"])
        segment = job.segments[number]
        note = restore_segment(job, segment, tools_of(job))
        file = job.file(segment)
        shown = {"filename": file.name, "subfolder": f"{bundle.stem}/segments", "type": "temp"}
        digest = "0" * 64 if self.fault == "other bytes" else sha256_of(file)
        return {"status": {"messages": []}, "outputs": {"1": {"images": [shown], "report": [note], "sha256": [digest]}}}


class Answers(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def give(self, content: dict | bytes, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        if self.server.dead:
            self.close_connection = True
            return
        url = urlsplit(self.path)
        if url.path == "/view":
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            path = self.server.folder / query["type"] / query.get("subfolder", "") / query["filename"]
            data = path.read_bytes() if path.is_file() else b""
            part = self.headers.get("Range", "").removeprefix("bytes=").split("-")
            if len(part) == 2:
                self.give(data[int(part[0]) : int(part[1]) + 1], 206)
            else:
                self.give(data, 200 if path.is_file() else 404)
        elif url.path == "/features":
            self.give({} if self.server.limit is None else {"max_upload_size": self.server.limit})
        elif url.path.startswith("/object_info"):
            self.give({} if self.server.fault == "no pack" else {NODE: {}})
        elif url.path.startswith("/history"):
            number = url.path.rpartition("/")[2]
            self.give({number: self.server.history[number]} if number in self.server.history else {})
        else:
            self.give({})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/upload/image":
            if self.server.fault == "413" and b"my film" not in body and len(body) > 8000:
                return self.give(b"too large", 413)
            fields = dict(field.split(b"\r\n\r\n", 1) for field in body.split(body.split(b"\r\n")[0])[1:-1])
            named = {head.split(b'name="')[1].split(b'"')[0].decode(): (head, value.removesuffix(b"\r\n")) for head, value in fields.items()}
            name = named["image"][0].split(b'filename="')[1].split(b'"')[0].decode()
            path = self.server.folder / named["type"][1].decode() / named["subfolder"][1].decode() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(named["image"][1])
            self.server.uploads.append(name)
            self.give({"name": name})
        elif self.path == "/prompt":
            inputs = json.loads(body)["prompt"]["1"]["inputs"]
            number = f"number-{len(self.server.ran)}"
            if self.server.fault == "dies" and inputs["segment"] >= 0:
                self.server.ran.append(inputs["segment"])
                self.server.die()
                self.close_connection = True
                return None
            self.server.history[number] = self.server.run(inputs)
            self.give({"prompt_id": number})
        else:
            self.give({})
        return None


@pytest.fixture
def stand_in(tmp_path):
    made: list[StandIn] = []

    def make(fault: str = "", limit: int | None = None) -> StandIn:
        made.append(StandIn(tmp_path / f"server-{len(made)}", fault, limit))
        return made[-1]

    yield make
    for server in made:
        with suppress(OSError):
            server.shutdown()
        server.server_close()


@pytest.fixture
def film(tmp_path, monkeypatch):
    """A job of three segments."""
    monkeypatch.setattr(comfy_server, "SILENCE_TIMEOUT", 0.5)
    monkeypatch.setattr(comfy_server, "POLL_INTERVAL", 0.05)
    make_film(tmp_path / "in.mp4", (6, 5, 4))
    return planned(tmp_path / "job", tmp_path / "in.mp4", seconds=0.2)


def whole(job, tmp_path) -> bool:
    """Whether a job's film is the one restored in one go."""
    join_once(job, tmp_path / "out.mkv")
    in_one_go(tmp_path / "in.mp4", tmp_path / "whole.mkv")
    (frames, times), (others, other_times) = read_frames(tmp_path / "out.mkv"), read_frames(tmp_path / "whole.mkv")
    return torch.equal(frames, others) and times.starts == other_times.starts and not list(tmp_path.rglob("job/**/*.part"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("dies", "does not answer"),
        ("nonsense", "answers with what is no result of FVRRestoreSegment"),
        ("out of memory", "CUDA out of memory"),
        ("other bytes", "that are not the"),
        ("version", "one server less: http"),
        ("no pack", "has no node Restore Segment; install this pack there"),
        ("413", "start its ComfyUI with --max-upload-size 2, or copy the film into its input folder"),
    ],
)
def test_a_server_that_fails_costs_an_attempt_and_another_does_the_rest(fault, said, film, stand_in, tmp_path):
    bad, good = stand_in(fault), stand_in()
    lines, written = [], []
    work_on_comfy(film, [bad.address, good.address, bad.address + "/"], say=lines.append, on_written=written.append)
    assert (sum(written), failed(film)) == (15, []), "\n".join(lines)
    assert any(said in line and bad.address in line for line in lines), lines
    assert whole(film, tmp_path)
    assert len(list(film.parts.glob("*.failed-*.json"))) <= (3 if fault in ("nonsense", "out of memory", "other bytes") else fault == "dies")
    assert sorted(name.rpartition(".")[2] for name in good.uploads) == ["mp4", "zip"]


def test_a_film_that_lies_there_is_not_sent_and_a_larger_one_than_may_be_is_not_tried(film, stand_in, tmp_path):
    server = stand_in(limit=len((tmp_path / "in.mp4").read_bytes()))
    with pytest.raises(RuntimeError, match=r"no server is left .*only of 0 MB: start its ComfyUI with --max-upload-size 2, or copy"):
        work_on_comfy(film, [server.address])
    assert [name.endswith(".zip") for name in server.uploads] == [True] and server.ran == []
    place = server.folder / "input" / "in.mp4"
    place.parent.mkdir()
    data = bytearray((tmp_path / "in.mp4").read_bytes())
    place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RuntimeError, match="no server is left"):
        work_on_comfy(film, [server.address])
    place.write_bytes(data)
    longest_first = [segment.number for segment in film.to_do()]
    work_on_comfy(film, [server.address])
    assert len(server.uploads) == 1 and server.ran == [-1, *longest_first] and whole(film, tmp_path)


def test_without_a_server_it_says_what_is_wrong_with_each(film):
    with pytest.raises(RuntimeError, match=r"no server is left .*127\.0\.0\.1:9 does not answer \(Connection refused\); http://localhost:9 does not"):
        work_on_comfy(film, ["127.0.0.1:9", "localhost:9"])
    with pytest.raises(ValueError, match="an address such as http://host:8188, got 'ftp://host'"):
        work_on_comfy(film, ["ftp://host"])
    assert not list(film.parts.iterdir())


def test_who_stops_leaves_nothing_running(film, stand_in):
    """The segment goes back at once, and the server is told."""
    server = stand_in()
    began, told = threading.Event(), []

    def endless(inputs):
        if inputs["segment"] < 0:
            return {"status": {"messages": []}, "outputs": {"1": {}}}
        began.set()
        return None

    server.run = endless
    ask = comfy_server.ComfyServer.cancel
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy_server.ComfyServer, "is_queued", lambda self, number: True)
        patch.setattr(comfy_server.ComfyServer, "cancel", lambda self, number: (told.append(number), ask(self, number)))

        def interrupt():
            if began.is_set():
                raise KeyboardInterrupt

        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            work_on_comfy(film, [server.address], check_interrupt=interrupt)
    assert told and time.monotonic() - start < 8
    assert not list(film.parts.glob("*.lease")) and not list(film.parts.glob("*.failed-*"))
