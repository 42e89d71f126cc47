"""The nodes called as ComfyUI calls them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from io import BytesIO

import pytest
import torch
from helpers.small_film import Remembering, make_film

from fvr import host
from fvr.demo import moving_portrait
from fvr.faces import FaceClip, aligned_track
from fvr.nodes.crops import CropsToFaces
from fvr.nodes.degradation import Degrade, DescribeDegradation
from fvr.nodes.faces import FaceAlign, PasteBack
from fvr.nodes.flair import FlairRestorerNode, FlairSampler, LoadDiffusionPrior
from fvr.nodes.restore import RestoreVideo
from fvr.nodes.video import LoadVideoFrames, RetimeFrames, SaveVideoFrames
from fvr.physics import Blur, GaussianNoise
from fvr.video import FrameTimes, SourceInfo, open_sink, probe

FAST = {"preset": {"preset": "default", "steps": 2}}


def call(node, **inputs):
    return node.execute(**inputs).result


@pytest.fixture
def prior():
    return call(LoadDiffusionPrior, prior="gaussian (no weights)")[0]


@pytest.fixture
def frames():
    """Four frames (4, 48, 64, 3) of nothing like a face."""
    return torch.linspace(0, 1, 64).expand(4, 48, 64)[..., None].repeat(1, 1, 1, 3).contiguous()


def test_a_clip_without_a_face_passes_through_to_the_bit(frames, prior, tmp_path):
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path):
        faces, crops, sheet, report = call(FaceAlign, frames=frames)
        restored, none = call(FlairSampler, prior=prior, faces=faces, **FAST)
        pasted, mask = call(PasteBack, frames=frames, faces=restored)
    assert faces == [] and host.is_nothing(crops) and host.is_nothing(none) and len(sheet) == 1
    assert "4 frames passed through (no face: 4)" in report
    assert torch.equal(pasted, frames) and not mask.any()


def test_paste_back_takes_gates_and_the_occlusion_mask(frames):
    """A face of eight pixels is faded away unless the gates say otherwise; what the mask takes for a hand stays."""
    grey = torch.full((4, 16, 16, 3), 0.5)
    whole = aligned_track(4)
    track = replace(whole, boxes=whole.boxes / 32, landmarks=whole.landmarks / 32, matrices=whole.matrices * 32, frame_size=(16, 16))
    faces = [FaceClip(track, torch.ones(4, 3, 512, 512))]
    shown, _ = call(PasteBack, frames=grey, faces=faces)
    opened, mask = call(PasteBack, frames=grey, faces=faces, gates="size=2-4")
    assert torch.equal(shown, grey) and float(mask.max()) > 0.9 and float(opened.max()) > 0.9
    faces[0].crops[:, 0, 100:400, 100:300] = 0.2
    drawn = [replace(faces[0], track=replace(faces[0].track, repainted=True))]
    for given, how, kept in ((faces, "on", True), (drawn, "auto", True), (faces, "auto", False), (drawn, "off", False)):
        masked = call(PasteBack, frames=grey, faces=given, gates="off", occlusion=how)[1][:, 6:9, 5:8]
        assert float(masked.max()) < 0.5 if kept else float(masked.min()) > 0.5
    with pytest.raises(ValueError, match="a gate is one of size, blur"):
        call(PasteBack, frames=grey, faces=faces, gates="age=1-2")


def test_face_align_cuts_out_what_is_displayed(frames, tmp_path):
    """With times of a clip of 16 : 11 pixels, a given box is turned into an upright, unsqueezed crop."""
    like = SourceInfo("tape.mpg", 64, 48, sample_aspect=Fraction(16, 11))
    times = replace(FrameTimes.constant(4, 25), source=like)
    box = [[{"x": 20, "y": 10, "width": 16, "height": 30}]] * 4
    with host.workspace(temp=tmp_path):
        shapes = [call(FaceAlign, frames=frames, boxes=box, **wired)[0][0].track.matrices[0, :, :2].norm(dim=0) for wired in ({}, {"times": times})]
    squeezed, shown = ((x / y).item() for x, y in shapes)
    assert squeezed == pytest.approx(1, abs=1e-4) and shown == pytest.approx(16 / 11, abs=1e-4)


def test_degrade_chains_into_the_operator_that_made_the_frames(frames):
    before = frames.clone()
    blurred, blur = call(Degrade, frames=frames, kind={"kind": "gaussian_blur", "sigma": 1.5, "factor": 2})
    noisy, both = call(Degrade, frames=blurred, kind={"kind": "noise", "sigma": 0.05}, seed=3, degradation=blur)
    assert torch.equal(frames, before)
    assert both.noise_level == pytest.approx(0.05) and both.factor == 2
    expected = Blur.gaussian(1.5, factor=2).forward(frames.permute(0, 3, 1, 2))
    torch.testing.assert_close(both.forward(frames.permute(0, 3, 1, 2)), expected)
    assert 0.03 < (noisy - blurred).std() < 0.06
    assert torch.equal(noisy, call(Degrade, frames=blurred, kind={"kind": "noise", "sigma": 0.05}, seed=3)[0])
    assert not torch.equal(noisy, call(Degrade, frames=blurred, kind={"kind": "noise", "sigma": 0.05}, seed=4)[0])


def test_described_is_what_degrade_does():
    blur, _ = call(DescribeDegradation, kind={"kind": "gaussian_blur", "sigma": 2.0})
    both, text = call(DescribeDegradation, kind={"kind": "noise", "sigma": 0.03}, degradation=blur)
    assert str(both) == str(GaussianNoise(0.03) @ Blur.gaussian(2.0)) == text


def test_the_sampler_takes_small_aligned_frames(prior):
    small = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    operator, _ = call(DescribeDegradation, kind={"kind": "bicubic", "factor": 8})
    faces, frames = call(FlairSampler, prior=prior, frames=small, degradation=operator, **FAST)
    assert frames.shape == (2, 512, 512, 3) and len(faces) == 1 and len(faces[0].track) == 2
    again = operator.forward(frames.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert (again - small).abs().mean() < 0.02


@pytest.mark.parametrize(("inputs", "got"), [({}, "neither"), ({"faces": [], "frames": torch.rand(1, 512, 512, 3)}, "both")])
def test_the_sampler_takes_one_of_its_two_sockets(prior, inputs, got):
    with pytest.raises(ValueError, match=f"got {got}"):
        call(FlairSampler, prior=prior, **inputs, **FAST)


def test_knobs_change_the_preset(prior):
    restorer = call(FlairRestorerNode, prior=prior, preset={"preset": "x8", "steps": 7, "noise_level": -1.0, "w": None}, data_consistency=False)[0]
    options = restorer.options
    assert (options.steps, options.rho, options.w, options.noise_level, options.data_consistency) == (7, 0.85, 0.85, None, False)


def test_saved_clips_keep_times_and_say_where_they_are(frames, tmp_path):
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path):
        video, path = call(SaveVideoFrames, frames=frames, filename_prefix="a/b", frame_rate=12.5)
        loaded, times, audio, rate, count = call(LoadVideoFrames, file=path, start_frame=1, every_nth=2)
        with pytest.raises(ValueError, match="4 frames but times for 2"):
            call(SaveVideoFrames, frames=frames, times=times)
    assert probe(path).rate == 12.5 and rate == pytest.approx(2 / (3 / 12.5)) and audio is None and count == len(loaded) == 2
    assert times.starts == FrameTimes.constant(4, 12.5)[1::2].starts
    assert (loaded - frames[1::2]).abs().max() < 0.05
    assert video.get_stream_source() == path


def test_sound_of_other_packs_is_saved(frames, tmp_path):
    """ComfyUI's waveforms have a batch dimension; packs that give what torchaudio read have none."""
    tone = 0.2 * torch.sin(torch.arange(7680) * 0.05).repeat(2, 1)
    heard = []
    with host.workspace(input=tmp_path, output=tmp_path):
        for waveform in (tone[None], tone):
            _, path = call(SaveVideoFrames, frames=frames, audio={"waveform": waveform, "sample_rate": 48000})
            heard.append(call(LoadVideoFrames, file=path)[2]["waveform"])
        with pytest.raises(ValueError, match="channels, samples"):
            call(SaveVideoFrames, frames=frames, audio={"waveform": tone[0], "sample_rate": 48000})
    assert heard[0].shape[:2] == (1, 2) and heard[0].std() > 0.1 and torch.equal(*heard)


def test_damage_is_shown_on_the_loader(tmp_path):
    """The frames there are come out, and the node says that there should be more."""
    whole = tmp_path / "whole.mkv"
    with open_sink(whole, None, size=(64, 64), codec="ffv1") as sink:
        times = FrameTimes.constant(12, 25)
        sink.write(torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(0)), times.starts, times.ends)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with host.workspace(input=tmp_path):
        fine, cut = (LoadVideoFrames.execute(file=name) for name in ("whole.mkv", "cut.mkv"))
    assert fine.ui is None and fine.result[-1] == 12 > cut.result[-1] > 0
    (sentence,) = cut.ui["text"]
    assert "cut.mkv" in sentence


def test_validation_names_what_is_missing(tmp_path):
    with host.workspace(input=tmp_path, output=tmp_path):
        assert "no clip is chosen" in LoadVideoFrames.validate_inputs(file="")
        assert "gone.mp4" in LoadVideoFrames.validate_inputs(file="gone.mp4")
        assert LoadVideoFrames.validate_inputs(file="", video=None) is True
        assert LoadVideoFrames.validate_inputs(file=None) is True, "a file that comes by a wire is not known yet"


def test_a_file_that_is_no_clip_and_an_encoding_that_does_not_exist_are_refused(tmp_path):
    """Before anything runs; what comes by a wire is None and known later."""
    (tmp_path / "notes.mp4").write_text("not a clip")
    with host.workspace(input=tmp_path, output=tmp_path / "out"):
        assert "notes.mp4" in LoadVideoFrames.validate_inputs(file="notes.mp4")
        assert "leads out of" in SaveVideoFrames.validate_inputs(filename_prefix="../x")
        assert "has no file name" in SaveVideoFrames.validate_inputs(filename_prefix="")
        assert "prores takes pixel formats" in SaveVideoFrames.validate_inputs(codec="prores", pixel_format="yuv420p")
        assert "crf must be 0 to 51" in SaveVideoFrames.validate_inputs(codec="h264", crf=60)
        assert SaveVideoFrames.validate_inputs(codec="av1", crf=60) is True
        assert SaveVideoFrames.validate_inputs(filename_prefix=None, codec=None, crf=None, pixel_format=None) is True
        assert "faces must be" in FaceAlign.validate_inputs(faces="the tall one")


def test_restoring_nodes_say_what_they_did(frames, prior, tmp_path):
    """First of all when no face came in."""
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path):
        nobody = FlairSampler.execute(prior=prior, faces=[], **FAST)
        somebody = FlairSampler.execute(prior=prior, frames=torch.rand(2, 512, 512, 3), **FAST)
        pasted = PasteBack.execute(frames=frames, faces=[])
    assert "nothing was restored" in nobody.ui["text"][0]
    assert somebody.ui["text"][0].splitlines()[0] == "1 person, 2 faces restored"
    assert pasted.ui["text"] == ("4 frames, 0 with a restored face, 4 unchanged",)


def test_priors_say_their_licence():
    (said,) = LoadDiffusionPrior.execute(prior="embedded face prior").ui["text"]
    assert "Apache-2.0" in said


def test_paste_back_refuses_other_frames(frames, prior):
    faces, _ = call(FlairSampler, prior=prior, frames=torch.rand(2, 512, 512, 3), **FAST)
    with pytest.raises(ValueError, match="wire the same frames"):
        call(PasteBack, frames=frames, faces=faces)


def test_retimed_frames_keep_length_and_sound(frames):
    times = FrameTimes.constant(4, 25)
    more, multiple = call(RetimeFrames, times=times, frames=torch.rand(10, 8, 8, 3))
    assert multiple == 3 and len(more) == 10 and more.end == times.end and more.starts[::3] == times.starts
    assert call(RetimeFrames, times=times, frames=frames)[0] == times
    with pytest.raises(ValueError, match=r"got 9 frames for the times of 4; .* for example 7"):
        call(RetimeFrames, times=times, frames=torch.rand(9, 8, 8, 3))
    with pytest.raises(ValueError, match="got 2 frames for the times of 1"):
        call(RetimeFrames, times=times[:1], frames=torch.rand(2, 8, 8, 3))


def test_crops_that_any_node_has_changed_go_back(tmp_path):
    """Nobody's crops are never asked for; unchanged ones and a difference of nothing change nothing."""
    frames = moving_portrait(3).permute(0, 2, 3, 1).contiguous()
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path):
        assert CropsToFaces.check_lazy_status(faces=[], crops=None, decoded=None) == []
        nobody = CropsToFaces.execute(faces=[], strength=1.0)
        faces, crops, _, _ = call(FaceAlign, frames=frames, detector="blazeface", context=2.0)
        assert CropsToFaces.check_lazy_status(faces=faces, crops=None) == ["crops"]
        assert CropsToFaces.check_lazy_status(faces=faces, crops=None, decoded=None) == ["crops", "decoded"]
        same = call(PasteBack, frames=frames, faces=call(CropsToFaces, faces=faces, crops=crops)[0])[0]
        through = (0.8 * crops + 0.1).repeat_interleave(2, 1).repeat_interleave(2, 2)
        back, shown = call(CropsToFaces, faces=faces, crops=through, decoded=through)
        none, mask = call(PasteBack, frames=frames, faces=back)
        with pytest.raises(ValueError, match="2 edited crops came for faces that have 3"):
            call(CropsToFaces, faces=faces, crops=crops[:2])
    assert nobody.result[0] == [] and host.is_nothing(nobody.result[1])
    assert faces[0].track.context == 2 and torch.equal(same, frames) and torch.equal(none, frames) and mask.max() == 0
    assert torch.equal(shown, crops)


def test_the_sheet_says_when_somebody_is_first_seen_where_times_fit(tmp_path):
    """The frame's number without times, or with those of another clip."""
    frames = moving_portrait(2)[:, :, ::4, ::4].permute(0, 2, 3, 1).contiguous()
    times = FrameTimes((Fraction(75), Fraction(76)), Fraction(77))
    with host.workspace(input=tmp_path, output=tmp_path, temp=tmp_path):
        plain, timed, others = (call(FaceAlign, frames=frames, detector="blazeface", times=some)[2] for some in (None, times, times[:1]))
    assert torch.equal(plain, others) and not torch.equal(plain, timed)


def test_gates_that_cannot_be_read_are_refused_before_the_faces_are_restored():
    assert PasteBack.validate_inputs(gates="yaw=90-70") is True and PasteBack.validate_inputs(gates=None) is True
    assert "got 'foo=1-2'" in PasteBack.validate_inputs(gates="foo=1-2")


class InMemory(BytesIO):
    """A VIDEO of ComfyUI whose file is in memory, as its API nodes give it."""

    def get_stream_source(self):
        return self

    def get_active_trim_window(self):
        return 0.0, 0.0


def test_a_job_takes_a_wired_video_that_is_a_whole_file(tmp_path):
    """The same film as by its name, which goes on with that job; one in memory is refused."""
    make_film(tmp_path / "in.mp4", (3, 3))
    whole, held = host.video_from_file(tmp_path / "in.mp4"), InMemory((tmp_path / "in.mp4").read_bytes())
    given = dict(restorer=Remembering(), job="film", codec="ffv1")
    with host.workspace(input=tmp_path, output=tmp_path / "out", temp=tmp_path):
        wired, _ = call(RestoreVideo, video=whole, **given)
        named, _ = call(RestoreVideo, file="in.mp4", **given)
        assert wired.path == named.path and probe(wired.path).frame_estimate == 6
        with pytest.raises(ValueError, match="the wired VIDEO is in memory; save it"):
            call(RestoreVideo, video=held, **given)
