"""What the page is shown of a node's work: samples of before and after, the rate, everybody in a clip. Without a page nothing is written."""

from __future__ import annotations

from contextlib import nullcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.small_film import Remembering, make_film
from helpers.small_workflows import embedded_are_here
from PIL import Image

from fvr import host
from fvr.demo import moving_portrait, save
from fvr.film import plan
from fvr.nodes.compare import CompareVideos
from fvr.nodes.crops import CropsToFaces
from fvr.nodes.dicface import DicFaceRestore
from fvr.nodes.faces import FaceAlign, PasteBack
from fvr.nodes.flair import FlairSampler, LoadDiffusionPrior
from fvr.nodes.frames import RestoreFrames
from fvr.nodes.keep import KeepPropagate
from fvr.nodes.page.before_after import MAX_PAIRS, MAX_SIDE, Samples, Watched, evenly_spaced
from fvr.nodes.restore import RestoreVideo
from fvr.nodes.restorers import LoadFaceRestorer
from fvr.video import FrameTimes, open_source, read_frames


@pytest.fixture
def page(monkeypatch, tmp_path):
    """Somebody is looking."""
    monkeypatch.setattr(host, "on_page", lambda: True)
    with host.workspace(input=tmp_path, output=tmp_path / "output", temp=tmp_path):
        yield tmp_path


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("count", [1, 5, 16, 100, 1000])
def test_samples_of_a_stream_are_even_and_few_whatever_its_length(count, chunk):
    samples = Samples()
    frames = torch.arange(count).float()[:, None, None, None].expand(-1, 3, 2, 2)
    for first in range(0, count, chunk):
        samples.push(first, frames[first : first + chunk])
        assert len(samples.kept) < 2 * MAX_PAIRS
    assert list(samples.kept) == list(range(0, count, samples.every)) and len(samples.kept) >= min(count, MAX_PAIRS)
    assert all(float(frame.mean()) == number for number, frame in samples.kept.items())


def test_what_is_kept_of_large_frames_is_small():
    samples = Samples()
    samples.push(0, torch.rand(1, 3, 1080, 1920))
    assert max(samples.kept[0].shape) == MAX_SIDE


def test_frames_shown_are_those_that_changed():
    assert evenly_spaced(100) == [0, 14, 28, 42, 57, 71, 85, 99]
    assert evenly_spaced(100, torch.tensor([7, 8, 9])) == [7, 8, 9]
    assert evenly_spaced(3, torch.tensor([], dtype=torch.long)) == [0, 1, 2] and evenly_spaced(0) == []


def test_the_rate_is_that_of_each_pass_and_tells_the_time_left(monkeypatch):
    ticks, shown = [], []
    monkeypatch.setattr(host, "show_work", lambda *said: shown.append(said))
    watched = Watched(100, lambda count, preview=None: ticks.append(count))
    sink = watched.sink(type("Sink", (), {"write": lambda self, *given: None, "warnings": ["odd"]})())
    frames = torch.rand(10, 3, 4, 4)
    watched.said -= 1
    watched.on_found(100)
    watched.on_people([], [])
    sink.write(frames, (), ())
    watched.said -= 1
    watched.on_written(10)
    assert sink.warnings == ["odd"] and ticks == [100, 10]
    (finding, nothing), (waiting,), (writing, picture) = shown
    assert waiting == "restoring: 0 of 100 frames"
    assert finding.startswith("finding faces: 100 of 100 frames") and nothing is None
    assert writing.startswith("10 of 100 frames") and torch.equal(picture, frames[-1])
    assert watched.status(10, 5.0) == "10 of 100 frames, 2.00 frames/s, 0:45 left"
    assert watched.status(60, 5.0, kept=50) == "60 of 100 frames, 2.00 frames/s, 0:20 left", "what a job had before took no time now"
    watched.total = 0
    assert watched.status(10, 5.0) == "10 frames, 2.00 frames/s"


def test_faces_that_a_killed_job_had_found_took_no_time_now(monkeypatch):
    shown = []
    monkeypatch.setattr(host, "show_work", lambda text, picture: shown.append(text))
    watched = Watched(100, lambda count, preview=None: None)
    with watched.finds(60) as on_found:
        watched.began_finding -= 1000
        watched.said -= 1
        on_found(10)
    assert shown[-1].startswith("finding faces: 70 of 100 frames, 0.01 frames/s")


def picture_of(folder, file):
    """(3, H, W) of a file that a node shows."""
    return torch.from_numpy(np.array(Image.open(folder / file["subfolder"] / file["filename"]))).movedim(-1, 0) / 255


def compared(ui):
    ((a,), (b,)) = ui["a_images"], ui["b_images"]  # one list each: single files would be results of the node, to app mode
    assert len(a) == len(b) > 0
    return [len(a), len(b)]


def test_faces_that_nothing_restored_leave_the_frames_as_they_were(page):
    """Where the restorer between Face Align and Paste Back is bypassed: to the bit, and Paste Back says so."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    frames = moving_portrait(10).permute(0, 2, 3, 1).contiguous()
    faces, crops, *_ = FaceAlign.execute(frames=frames, detector="blazeface").result
    edited = CropsToFaces.execute(faces=faces, crops=crops.flip(-1)).result[0]
    restored, kept = (PasteBack.execute(frames=frames, faces=given) for given in (edited, faces))
    said = [one.ui["text"][0] for one in (restored, kept)]
    assert said == ["10 frames, 10 with a restored face, 0 unchanged", "10 frames, 0 with a restored face, 10 unchanged"]
    assert not torch.equal(restored.result[0], frames) and torch.equal(kept.result[0], frames) and not kept.result[1].any()


def test_nodes_show_before_and_after_and_everybody_where_somebody_looks(page):
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    frames = moving_portrait(10)
    save(page / "clip.mkv", frames, FrameTimes.constant(10, 25))
    images = frames.permute(0, 2, 3, 1).contiguous()
    aligned = FaceAlign.execute(frames=images, detector="blazeface")
    ((person,),) = aligned.ui["people"]
    assert person["person"] == 0 and person["chosen"] is True and (page / person["filename"]).stat().st_size > 1000
    grey = aligned.result[1].mean(-1, keepdim=True).expand_as(aligned.result[1]).contiguous()
    edited = CropsToFaces.execute(faces=aligned.result[0], crops=grey).result[0]
    assert compared(PasteBack.execute(frames=images, faces=edited).ui) == [8, 8]
    whole = RestoreVideo.execute(file="clip.mkv", detector="blazeface", max_frames=2)  # no restorer: auto
    assert compared(whole.ui) == [2, 2] and whole.ui["people"][0][0]["chosen"] is True and "2 frames, 1 person" in whole.result[1]
    short = RestoreFrames.execute(frames=images[:2], detector="blazeface").ui
    assert compared(short) == [2, 2] and len(short["people"][0]) == 1
    wiped = CompareVideos.execute(a=images, b=1 - images, mode={"mode": "side_by_side"}).ui
    for name in ("a_video", "b_video"):
        ((file,),) = wiped[name]
        assert open_source(page / file["subfolder"] / file["filename"]).expected == 10


def test_a_job_shows_its_frames_and_the_whole_film_before_and_after_also_when_it_goes_on(page, monkeypatch):
    """Two shots, each a segment; the second run finds one of them done, the third both."""
    shown, ticks = [], []
    monkeypatch.setattr(plan, "SEGMENT_SECONDS", 8 / 25)
    monkeypatch.setattr(Watched, "show", lambda self, what, count, began, kept=0: shown.append((what, count, kept, self.last)))
    make_film(page / "film.mkv", (8, 8), start=Fraction(2), codec="ffv1")
    tick = lambda count, preview=None: ticks.append(count)  # noqa: E731
    monkeypatch.setattr(host, "progress", lambda *given: nullcontext(tick))
    given = dict(restorer=Remembering(), file="film.mkv", detector="blazeface", job="work", codec="ffv1")
    truth = read_frames(page / "film.mkv")[0]
    for kept in (0, 8, 16):
        said = RestoreVideo.execute(**given)
        assert compared(said.ui) == [8, 8] and sum(ticks) == 32
        written = [(count, of, last) for what, count, of, last in shown if not what]
        assert [(count, of) for count, of, _ in written] == [(count, kept) for count in range(kept + 8, 17, 8)]
        for count, _, last in written:
            torch.testing.assert_close(last, truth[count - 1])
        for name in ("a_images", "b_images"):  # nobody is in it: the film's frames as they were
            pictures = torch.stack([picture_of(page, file) for file in said.ui[name][0]])
            torch.testing.assert_close(pictures, truth[evenly_spaced(16)], rtol=0, atol=0.01)
        shown.clear(), ticks.clear()
        if kept == 0:
            (page / "output" / "work" / "segments" / "00001.json").unlink()
            for film in (page / "output" / "video").iterdir():
                film.unlink()


@pytest.mark.skipif(not embedded_are_here(), reason="needs the embedded weights, which this checkout has not got")
def test_restoring_nodes_show_crops_before_and_after(page):
    crops = torch.linspace(0, 1, 512).expand(2, 512, 512)[..., None].repeat(1, 1, 1, 3)
    prior = LoadDiffusionPrior.execute(prior="gaussian (no weights)").result[0]
    keep, dicface = (LoadFaceRestorer.execute(model=f"embedded {name}").result[0] for name in ("keep", "dicface"))
    for said in (
        FlairSampler.execute(prior, frames=crops, preset={"preset": "default", "steps": 2}),
        KeepPropagate.execute(keep, frames=crops),
        DicFaceRestore.execute(dicface, {"mode": "restore"}, frames=crops),
    ):
        assert compared(said.ui) == [2, 2]


def test_without_a_page_nothing_is_written_for_it(tmp_path):
    frames = torch.rand(2, 32, 32, 3)
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path / "temp"):
        pasted, compared = PasteBack.execute(frames=frames, faces=[]), CompareVideos.execute(a=frames, b=frames, mode={"mode": "side_by_side"})
    assert set(pasted.ui) == set(compared.ui) == {"text"} and not any(path.is_file() for path in tmp_path.rglob("*"))


def test_auto_is_what_a_wired_auto_is(tmp_path):
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    save(tmp_path / "clip.mkv", moving_portrait(1), FrameTimes.constant(1, 25))
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path):
        auto = LoadFaceRestorer.execute(model="auto").result[0]
        given = dict(file="clip.mkv", detector="blazeface", codec="ffv1")
        clips = [RestoreVideo.execute(**given, **wired).result[0] for wired in ({}, {"restorer": auto})]
        first, second = (torch.cat([chunk.frames for chunk in open_source(clip.get_stream_source()).chunks()]) for clip in clips)
    assert torch.equal(first, second)
    assert RestoreVideo.fingerprint_inputs(file="clip.mkv") != RestoreVideo.fingerprint_inputs(file="clip.mkv", restorer=None)
