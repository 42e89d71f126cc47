"""A list of other files opens none of them, unless a person named it: what is uploaded must not show what lies elsewhere."""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path

import pytest
import torch

from fvr import host
from fvr.cli import main
from fvr.nodes import registry
from fvr.video import FrameTimes, VideoError, open_sink, open_source, playlists, probe, read_audio

LISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n{outside}\n#EXT-X-ENDLIST\n",
    "b.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n{outside}\n#EXT-X-ENDLIST\n",
    "c.ts": "ffconcat version 1.0\nfile '{outside}'\n",
    "d.mpd": '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1"><BaseURL>{outside}</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>',
    "e.mkv": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\ndata:video/mp4;base64,AAAA\n#EXTINF:0.5,\n{outside}\n#EXT-X-ENDLIST\n",
    "f.mp4": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


@pytest.fixture
def outside(tmp_path):
    """A clip outside the input folder, which none may open."""
    path = tmp_path / "outside" / "secret.ts"
    path.parent.mkdir()
    times = FrameTimes.constant(4, 25)
    with open_sink(tmp_path / "outside" / "secret.mp4", None, size=(32, 32)) as sink:
        sink.write(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), times.starts, times.ends)
    return tmp_path / "outside" / "secret.mp4"


def placed(folder, name, outside):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(LISTS[name].format(outside=outside))
    return path


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_refused_in_one_sentence(name, outside, tmp_path):
    path = placed(tmp_path / "input", name, outside)
    for place in (path, io.BytesIO(path.read_bytes())):
        for read in (open_source, probe, read_audio):
            with pytest.raises(VideoError) as caught:
                read(place)
            assert "\n" not in str(caught.value) and str(outside) not in str(caught.value)
    with pytest.raises(VideoError, match=f"{name} is a .*which leads to other files"):
        open_source(path)


@pytest.mark.parametrize("name", LISTS)
def test_a_node_is_given_no_list(name, outside, tmp_path):
    placed(tmp_path / "input", name, outside)
    with host.workspace(input=tmp_path / "input", output=tmp_path / "out"), pytest.raises(VideoError, match="leads to other files"):
        registry()["FVRLoadVideoFrames"].execute(file=name)


def test_the_case_that_people_met(outside, tmp_path):
    case = Path(__file__).parents[3] / "shared" / "cases" / "reads_outside.m3u8.in"
    if not case.exists():
        pytest.skip("needs ../shared/cases")
    (tmp_path / "reads_outside.m3u8").write_text(case.read_text().replace("@OUTSIDE@", str(outside)))
    with pytest.raises(VideoError, match="is a playlist"):
        open_source(tmp_path / "reads_outside.m3u8")


def test_no_list_reaches_the_network(tmp_path):
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        thread = threading.Thread(target=lambda: heard.append(_accepts(server)))
        thread.start()
        path = placed(tmp_path, "a.m3u8", f"http://127.0.0.1:{server.getsockname()[1]}/a.ts")
        for named in (False, True):
            if named:
                playlists.allow_playlist(path)
            with pytest.raises(VideoError):
                open_source(path)
        thread.join()
    assert heard == [False]


def _accepts(server):
    try:
        server.accept()[0].close()
        return True
    except TimeoutError:
        return False


def test_a_list_that_is_named_on_the_command_line_is_read(outside, tmp_path, monkeypatch):
    monkeypatch.setattr(playlists, "_allowed", set())
    path = placed(tmp_path, "a.m3u8", outside)
    assert main(["compare", str(path), str(outside), str(tmp_path / "out.mp4")]) == 0
    assert probe(tmp_path / "out.mp4").frame_estimate == 4
    monkeypatch.setattr(playlists, "_allowed", set())
    with pytest.raises(VideoError, match="is a playlist"):
        open_source(path)
