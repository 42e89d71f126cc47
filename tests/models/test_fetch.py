"""Downloads against servers of every temper: resumed, verified, and under their name only when whole. Nothing leaves this machine."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fvr.cli import main
from fvr.models.checkpoints import catalogue
from fvr.models.checkpoints import fetch as fetching
from fvr.models.checkpoints.catalogue import OURS, Checkpoint
from fvr.models.checkpoints.fetch import fetch
from fvr.models.checkpoints.state_dict import read_state
from fvr.video import FrameTimes, open_sink

FILE = "tiny.pth"


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


WEIGHTS = {"conv.weight": torch.randn(300, 400, generator=torch.Generator().manual_seed(0))}
WHOLE = saved(WEIGHTS)
"""About 480 kB: several chunks."""


class Handler(BaseHTTPRequestHandler):
    """Serves `server.body` as `server.temper` says, and remembers the ranges it was asked for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        body, temper, asked = self.server.body, self.server.temper, self.headers.get("Range")
        self.server.asked.append(asked)
        if isinstance(temper, int):
            return self.send_error(temper)
        if "://" in temper and "/moved" not in self.path:
            self.send_response(302)
            self.send_header("Location", temper)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if temper == "slow":
            time.sleep(0.5)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and temper != "no ranges" else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            shown = 0 if temper == "wrong range" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
            start = shown
        self.send_header("Content-Type", "text/html" if temper == "page" else "application/octet-stream")
        if temper != "no length":
            self.send_header("Content-Length", str(len(body) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        end = min(len(body), start + 150_000) if temper == "cuts" else start if temper == "silent" else len(body)
        self.wfile.write(body[start:end])
        self.close_connection = True


@pytest.fixture
def server():
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.body, http.temper, http.asked = WHOLE, "kind", []
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def tiny(server):
    url = f"http://127.0.0.1:{server.server_address[1]}/{FILE}"
    return Checkpoint("tiny", FILE, url, "a test", "MIT", True, sha256=hashlib.sha256(WHOLE).hexdigest(), size=len(WHOLE))


def left(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir()}


@pytest.mark.parametrize("temper", ["kind", "no ranges", "no length", "cuts"])
@pytest.mark.parametrize("known", ["all", "prefix", "nothing"])
def test_a_file_arrives_whole(temper, known, server, tiny, tmp_path):
    server.temper = temper
    checkpoint = {"all": tiny, "prefix": replace(tiny, sha256=tiny.sha256[:8]), "nothing": replace(tiny, sha256="", size=None)}[known]
    info, beats = [], []
    path = fetch(checkpoint, tmp_path / "new" / "folder", lambda done, total: info.append((done, total)), lambda: beats.append(1))
    assert path == tmp_path / "new" / "folder" / FILE and left(path.parent) == {FILE: len(WHOLE)}
    assert torch.equal(read_state(path)["conv.weight"], WEIGHTS["conv.weight"])
    assert info[0][0] == 0 and info[-1][0] == len(WHOLE) and [done for done, _ in info] == sorted(done for done, _ in info)
    assert {total for _, total in info} == {None if temper == "no length" and known == "nothing" else len(WHOLE)}
    assert len(beats) > 2


def test_an_interrupted_download_goes_on_where_it_stopped(server, tiny, tmp_path):
    def stop(done, total):
        if done > 200_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tiny, tmp_path, stop)
    kept = left(tmp_path)[f"{FILE}.part"]
    assert 200_000 < kept < len(WHOLE)
    info = []
    fetch(tiny, tmp_path, lambda done, total: info.append(done))
    assert server.asked == [None, f"bytes={kept}-"] and info[0] == kept and left(tmp_path) == {FILE: len(WHOLE)}


@pytest.mark.parametrize("temper", ["no ranges", "wrong range"])
def test_a_server_that_does_not_resume_starts_the_file_anew(temper, server, tiny, tmp_path):
    server.temper = temper
    (tmp_path / f"{FILE}.part").write_bytes(b"something else of the same name" * 100)
    assert fetch(tiny, tmp_path).read_bytes() == WHOLE


def test_a_part_that_is_already_whole_is_only_verified(server, tiny, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(WHOLE)
    assert fetch(tiny, tmp_path).read_bytes() == WHOLE
    assert server.asked == [f"bytes={len(WHOLE)}-"]


def test_a_part_longer_than_the_file_is_dropped(server, tiny, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(WHOLE + b"more")
    assert fetch(tiny, tmp_path).read_bytes() == WHOLE
    assert server.asked == [f"bytes={len(WHOLE) + 4}-", None]


def test_wrong_bytes_are_refused_and_removed(server, tiny, tmp_path):
    server.body = bytes([*WHOLE[:1000], WHOLE[1000] ^ 1, *WHOLE[1001:]])
    with pytest.raises(ValueError, match=rf"did not give {FILE}: its SHA-256 begins \w{{8}} where {tiny.sha256[:8]} was published"):
        fetch(tiny, tmp_path)
    assert left(tmp_path) == {}


@pytest.mark.parametrize(("body", "words"), [(b"<html>log in</html>" * 9, "is a web page"), (WHOLE[:-50], "is cut short"), (b"", "is empty")])
def test_what_cannot_be_opened_is_refused_and_removed(body, words, server, tiny, tmp_path):
    server.body = body
    with pytest.raises(ValueError, match=f"did not give {FILE}: {FILE} {words}") as caught:
        fetch(replace(tiny, sha256="", size=None), tmp_path)
    assert left(tmp_path) == {} and "\n" not in str(caught.value)


def test_another_size_than_published_is_refused_before_the_download(server, tiny, tmp_path):
    with pytest.raises(ValueError, match=f"offers {len(WHOLE)} bytes where {FILE} has 7"):
        fetch(replace(tiny, size=7), tmp_path)
    assert left(tmp_path) == {}


@pytest.mark.parametrize(
    ("temper", "kind", "words"),
    [
        (404, OSError, r"is gone \(HTTP 404\)"),
        (403, OSError, r"refused .* \(HTTP 403"),
        (503, OSError, r"refused .* \(HTTP 503"),
        ("page", ValueError, "gives a page instead of tiny.pth"),
        ("silent", OSError, r"cannot be reached \(it ended early\); check the network"),
    ],
)
def test_a_server_that_refuses_is_quoted_in_one_sentence(temper, kind, words, server, tiny, tmp_path):
    server.temper = temper
    with pytest.raises(kind, match=words) as caught:
        fetch(tiny, tmp_path)
    assert "\n" not in str(caught.value) and tiny.url in str(caught.value) and FILE not in left(tmp_path)


def test_a_connection_that_stays_away_keeps_what_is_here(server, tiny, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(WHOLE[:200_000])
    server.temper = "silent"
    with pytest.raises(OSError, match=r"0\.2 MiB are kept, fetch it again to go on"):
        fetch(tiny, tmp_path)
    assert left(tmp_path) == {f"{FILE}.part": 200_000} and len(server.asked) == fetching.PATIENCE
    server.temper = "kind"
    assert fetch(tiny, tmp_path).read_bytes() == WHOLE


def test_no_server_at_all(tiny, tmp_path):
    with pytest.raises(OSError, match=r"cannot be reached \(.+\); check the network and fetch it again"):
        fetch(replace(tiny, url=f"http://127.0.0.1:1/{FILE}"), tmp_path)


def test_no_room_is_said_before_the_download(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(OSError, match=rf"no room for 0\.5 MiB more in {tmp_path}, where 0\.0 MiB are free"):
        fetch(tiny, tmp_path)
    assert left(tmp_path) == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
def test_a_disk_that_fills_up_is_said(tiny, tmp_path):
    (tmp_path / f"{FILE}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"^the disk is full; .* are kept: make room and fetch it again"):
        fetch(tiny, tmp_path)


def test_a_folder_that_cannot_be_made_is_said(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=rf"file/models cannot be made \(Not a directory\), and {FILE} goes there; choose another folder"):
        fetch(tiny, tmp_path / "file" / "models")


def test_without_a_direct_link_the_page_is_named(server, tiny, tmp_path):
    with pytest.raises(ValueError, match=rf"{FILE} has no direct link; open {tiny.url}, download it there and put it into {tmp_path}"):
        fetch(replace(tiny, direct=False), tmp_path)
    assert server.asked == []


def test_a_file_that_is_there_is_checked_and_left_alone(server, tiny, tmp_path):
    (tmp_path / FILE).write_bytes(WHOLE)
    assert fetch(tiny, tmp_path) == tmp_path / FILE
    (tmp_path / FILE).write_bytes(WHOLE[:-1])
    with pytest.raises(ValueError, match=f"is there, but it has {len(WHOLE) - 1} bytes where {len(WHOLE)} were published; move it away"):
        fetch(tiny, tmp_path)
    assert left(tmp_path) == {FILE: len(WHOLE) - 1} and server.asked == []


def test_two_at_once_of_one_file_fetch_it_once(server, tiny, tmp_path):
    """The second waits for the first; the lock of a process that was killed is gone with it."""
    server.temper = "slow"
    (tmp_path / f"{FILE}.part").write_bytes(WHOLE[:1000])
    with ThreadPoolExecutor(3) as pool:
        paths = [job.result(timeout=60) for job in [pool.submit(fetch, tiny, tmp_path) for _ in range(3)]]
    assert paths == [tmp_path / FILE] * 3 and server.asked == ["bytes=1000-"] and left(tmp_path) == {FILE: len(WHOLE)}


def test_waiting_for_another_can_be_stopped(server, tiny, tmp_path):
    server.temper, started = "slow", threading.Event()

    def stop():
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, tiny, tmp_path, lambda done, total: started.set())
        while not server.asked:
            time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            fetch(tiny, tmp_path, check_interrupt=stop)
        assert first.result(timeout=60) == tmp_path / FILE
    assert started.is_set()


def test_one_that_waited_for_a_failure_tries_itself(server, tiny, tmp_path):
    server.temper = 503
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(fetch, tiny, tmp_path) for _ in range(2)]:
            with pytest.raises(OSError, match="refused"):
                job.result(timeout=60)
    assert len(server.asked) == 2 and left(tmp_path) == {}


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/tiny.pth", "http://localhost:PORT/moved"])
def test_a_redirect_away_from_https_is_refused(place, server, tiny, tmp_path):
    server.temper = place.replace("PORT", str(server.server_address[1]))
    with pytest.raises(OSError, match=r"leads to .*, where anybody on the way could change the file") as caught:
        fetch(tiny, tmp_path)
    assert "\n" not in str(caught.value) and left(tmp_path) == {} and len(server.asked) == 1


def test_a_redirect_to_where_it_is_or_to_https_is_followed(server, tiny, tmp_path):
    server.temper = tiny.url.replace(FILE, "moved/" + FILE)
    assert fetch(tiny, tmp_path).read_bytes() == WHOLE
    redirects = fetching._Redirects()
    asked = urllib.request.Request("https://github.com/a/b.pth", headers={"Range": "bytes=5-"})
    followed = redirects.redirect_request(asked, None, 302, "Found", {}, "https://objects.example/b.pth")
    assert followed.full_url == "https://objects.example/b.pth" and followed.get_header("Range") == "bytes=5-"
    for place in ("http://github.com/a/b.pth", "ftp://github.com/a/b.pth", "HTTP://github.com/"):
        with pytest.raises(OSError, match="leads to"):
            redirects.redirect_request(asked, None, 302, "Found", {}, place)


# ---------------------------------------------------------------- the command line


@pytest.fixture
def shop(tiny, tmp_path, monkeypatch):
    """A catalogue of one file here and one missing, and an empty model folder."""
    other = replace(tiny, name="other", file="other.pth", size=None, sha256="", commercial_use=False, licence="S-Lab License 1.0")
    monkeypatch.setattr(catalogue, "CATALOGUE", (tiny, other))
    monkeypatch.setenv("FVR_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("fvr.host.comfyui.inside_comfyui", lambda: False)
    return SimpleNamespace(models=tmp_path / "models", tiny=tiny)


def test_models_are_fetched_and_listed(shop, capsys):
    assert main(["models", "fetch", "tiny"]) == 0
    out = capsys.readouterr().out
    assert out.index("licence: MIT: commercial use allowed") < out.index(str(shop.models / FILE))
    assert main(["models"]) == 0
    listed, folders = capsys.readouterr().out.split("\nmodel folders:\n")
    about = {entry.split()[0]: entry for entry in re.split(r"\n(?=\S)", listed)}
    assert re.match(rf"tiny +here +0 MiB +{FILE}\n", about["tiny"]) and str(shop.models / FILE) in about["tiny"]
    assert "MIT: commercial use allowed; verified by its SHA-256" in about["tiny"]
    assert re.match(r"other +missing +size unknown +other\.pth\n", about["other"])
    assert "S-Lab License 1.0: not for commercial use; not verified, no checksum is known" in " ".join(about["other"].split())
    assert any(line.split() == [OURS, str(shop.models)] for line in folders.splitlines())


def test_every_line_of_the_real_list_fits(tmp_path, monkeypatch, capsys):
    """But for the paths of people's own folders, which are not cut."""
    monkeypatch.setenv("FVR_MODELS", "/m")
    monkeypatch.setattr("fvr.host.comfyui.inside_comfyui", lambda: False)
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if len(line) > 100] == []
    assert len(re.findall("verified by|not verified, no checksum is known", " ".join(out.split()))) == len(catalogue.CATALOGUE)


def test_what_is_not_verified_is_said_when_it_is_fetched(shop, server, monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "CATALOGUE", (replace(shop.tiny, sha256="", size=None),))
    assert main(["models", "fetch", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "not verified, no checksum is known: its SHA-256 is " + hashlib.sha256(WHOLE).hexdigest() in out


def test_the_page_says_how_many_are_not_verified():
    page = " ".join((Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8").split())
    direct = [checkpoint for checkpoint in catalogue.CATALOGUE if checkpoint.direct]
    assert f"{sum(not checkpoint.sha256 for checkpoint in direct)} of the {len(direct)} files" in page


@pytest.mark.parametrize("there", [False, True])
def test_a_published_name_that_is_no_file_is_answered_with_how_to_get_it(there, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if there:
        shop.models.mkdir()
        (shop.models / FILE).write_bytes(WHOLE)
    with open_sink(tmp_path / "in.mp4", None, size=(32, 32)) as sink:
        times = FrameTimes.constant(1, 25)
        sink.write(torch.zeros(1, 3, 32, 32), times.starts, times.ends)
    assert main(["restore", "in.mp4", "out.mp4", "--weights", FILE]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"--weights {FILE} is no file here" in line
    assert (str(shop.models / FILE) if there else "`fvr models fetch tiny` downloads it") in line


def test_models_can_be_fetched_elsewhere(shop, tmp_path, capsys):
    assert main(["models", "fetch", "tiny", "--folder", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / FILE).read_bytes() == WHOLE and not shop.models.exists()


def test_a_wrong_name_is_answered_with_the_right_ones(shop, capsys):
    assert main(["models", "fetch", "tidy"]) == 1
    assert "no checkpoint is called 'tidy'; there are tiny, other" in capsys.readouterr().err
