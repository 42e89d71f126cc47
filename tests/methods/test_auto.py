"""FLAIR where the footage shows its blur, another restorer elsewhere; decided once per clip, from its first crops alone."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from fvr.assembly import EMBEDDED
from fvr.demo import moving_portrait
from fvr.faces import Paster, aligned_track, crop_clip
from fvr.faces.geometry import TEMPLATE, similarity
from fvr.faces.types import FaceTrack
from fvr.methods.base import Restorer, Session, restore_frames
from fvr.methods.estimating import ESTIMATION_FRAMES
from fvr.methods.registry import build_restorer, with_estimates
from fvr.metrics.fidelity import psnr
from fvr.models import embedded
from fvr.models.device import on
from fvr.nodes.restoring import restore_people
from fvr.physics import parse
from fvr.pipeline import Walk
from fvr.video import FrameChunk


class Echo(Restorer):
    """Gives crops back."""

    name = "echo"

    def open(self, track=None, *, seed=0, check_interrupt=None):
        return EchoSession()


class EchoSession(Session):
    def push(self, crops, masks=None):
        return crops

    def close(self):
        return torch.empty(0, 3, 512, 512)


@pytest.fixture(scope="module")
def auto() -> Restorer:
    return with_estimates(Echo(), device=torch.device("cpu"), precision=torch.float32, placed=lambda network: on(network, "cpu"))


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    enlarged = torch.nn.functional.interpolate(moving_portrait(3)[..., 20:276, 32:288], size=(512, 512), mode="bicubic", antialias=True)
    return (enlarged.clamp(0, 1) * 255).round() / 255


def seen(face: torch.Tensor, damage: str) -> torch.Tensor:
    return (parse(damage).observe(face, torch.Generator().manual_seed(0)).clamp(0, 1) * 255).round() / 255


def test_a_blur_that_the_footage_shows_is_undone(auto, face):
    damaged, notes = seen(face, "gaussian_blur(sigma=2.5)")[:1], []
    done = restore_frames(auto, damaged, on_note=notes.append)
    inner = (..., slice(64, 448), slice(64, 448))
    before, after = (float(psnr(clip[inner], face[:1][inner]).mean()) for clip in (damaged, done))
    assert torch.equal(restore_frames(auto.flair, damaged), done)  # which estimates by itself
    assert after > before + 1 and "restored with flair" in notes[0] and "a blur of 2." in notes[0]


def test_coded_footage_is_left_to_the_other(auto, face):
    damaged, notes = seen(face, "h264(crf=30)"), []
    assert torch.equal(restore_frames(auto, damaged, on_note=notes.append), damaged) and "restored with echo" in notes[0]


def test_an_enlargement_is_said(auto, face):
    notes = []
    restore_frames(auto, face, on_note=notes.append)
    assert notes[0].startswith("enlarged 2.0 times, detail up to") and "restored with echo" in notes[0]


def test_blocks_are_seen_in_the_frames_own_pixels(auto):
    """The face is turned and enlarged, which hides them in its crops. The walk, however its chunks are cut, and the nodes say the same."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    frames = seen(moving_portrait(9), "jpeg(quality=40)")
    turned = TEMPLATE.float() / 512 * 200 @ torch.tensor([[0.9, -0.4], [0.4, 0.9]]) + torch.tensor([10.0, 80.0])
    size = (frames.shape[-2], frames.shape[-1])
    track = replace(aligned_track(9), landmarks=turned.expand(9, 5, 2), matrices=similarity(turned).float().repeat(9, 1, 1), frame_size=size)

    def walked(chunk: int) -> str:
        walk = Walk([track], auto, Paster(grain="off"))
        times = [Fraction(number, 25) for number in range(10)]
        for first in range(0, 9, chunk):
            stop = min(first + chunk, 9)
            list(walk.push(FrameChunk(first, frames[first:stop].clone(), tuple(times[first:stop]), tuple(times[first + 1 : stop + 1]))))
        return walk.notes[0].split(": ", 1)[1]

    said = walked(9)
    assert said.startswith("blocks of 8 pixels, ") and said.endswith("restored with echo")
    assert walked(1) == walked(4) == said
    assert restore_people(auto, [crop_clip(frames, track)], None)[0][0].note == said


@pytest.mark.parametrize("damage", ["gaussian_blur(sigma=1.5) + h264(crf=26)", "h264(crf=26)"])
def test_small_faces_get_from_codes_what_is_coarse_and_missing(face, damage):
    """Over what the blind restorer makes of them: soft ones much, sharp ones nothing that harms; large ones are the blind restorer's."""
    blind = build_restorer("blind", weights=embedded.FOLDER / embedded.listed(embedded.RESTORERS)[EMBEDDED["blind"]])
    auto = with_estimates(blind, device=torch.device("cpu"), precision=torch.float32, placed=lambda network: on(network, "cpu"))
    truth = torch.nn.functional.avg_pool2d(face, 4)
    crops = torch.nn.functional.interpolate(seen(truth, damage), (512, 512), mode="bicubic").clamp(0, 1)
    gains, notes = [], []
    for restorer in (blind, auto):
        done = restore_frames(restorer, crops, enlarged(len(crops), 4.0), on_note=notes.append)
        gains.append(float((psnr(torch.nn.functional.avg_pool2d(done, 4), truth) - psnr(torch.nn.functional.avg_pool2d(crops, 4), truth)).mean()))
    assert "restored with keep" in notes[-1]
    assert gains[1] > gains[0] + (0.4 if "blur" in damage else -0.1) and gains[1] > 0
    restore_frames(auto, crops, enlarged(len(crops), 1.5), on_note=notes.append)
    assert "restored with blind" in notes[-1]
    tracks = [enlarged(len(crops), 4.0), enlarged(len(crops), 1.5)]
    drawn = {track.scale: track.repainted for _, track in Walk(tracks, auto, Paster()).upcoming}
    assert drawn == {4.0: True, 1.5: False}  # a hand before the small face is looked for, of the others nothing is painted over


def enlarged(frames: int, scale: float) -> FaceTrack:
    """A track of crops that are `scale` times as large as in their frames."""
    flags, matrix = torch.ones(frames), scale * torch.eye(2, 3).repeat(frames, 1, 1)
    return FaceTrack(0, 0, torch.zeros(frames, 4), torch.zeros(frames, 5, 2), matrix, flags, flags.bool(), flags, (480, 640))


def test_how_a_clip_is_cut_does_not_matter(auto, face):
    """The choice waits for its crops, is made for the whole clip, and all frames come out."""
    coded = seen(face, "h264(crf=30)").repeat(4, 1, 1, 1)
    blurred = seen(face, "gaussian_blur(sigma=2.5)").repeat(4, 1, 1, 1)
    clip = torch.cat([coded[:ESTIMATION_FRAMES], blurred[ESTIMATION_FRAMES:]])
    for chunk in (1, 7, len(clip)):
        assert torch.equal(restore_frames(auto, clip, chunk=chunk), clip)


def test_a_description_that_the_footage_contradicts_is_warned_about(face):
    flair = build_restorer(
        "flair", weights=embedded.FOLDER / embedded.listed(embedded.PRIORS)[EMBEDDED["flair"]], degradation=parse("gaussian_blur(sigma=9)")
    )
    session = flair.open()
    session.push(face[:1])
    assert "warning" in session.note and "taken away" in session.note
