"""From degraded crops to pairs: what comes back at 512, folders that go on where they stopped, and what they refuse."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from helpers.code_networks import moving, small_codeformer, track
from helpers.seeded_weights import seed_weights
from helpers.tiny_seed_models import TinyUNet
from torch import Tensor
from torch.testing import assert_close

from fvr.faces.types import FaceClip
from fvr.methods.base import Restorer, Session
from fvr.methods.codeformer import CodeFormerOptions, CodeFormerRestorer
from fvr.methods.pseudo_target.algorithm import PseudoTargetOptions
from fvr.methods.pseudo_target.dataset import PairFolder, digest_of, read_png
from fvr.methods.pseudo_target.frame_selection import ChoiceOptions
from fvr.methods.pseudo_target.generate import (
    TargetMaker,
    at_side,
    back_project,
    consistent_enlargement,
    faces_of,
    faces_of_frames,
    make_pairs,
    parameters_of,
    summary,
)
from fvr.models.difface_unet import DifFaceConfig, DifFaceUNet
from fvr.models.flair.bicubic import BicubicConfig, BicubicUNet
from fvr.priors.flair_video import FlairPrior
from fvr.priors.image_ddpm import ImagePrior
from fvr.priors.pyramid import PyramidPrior

FEW = PseudoTargetOptions(N=4, K=60, L=20, steps=100, scaled=False)
CHOICE = ChoiceOptions(every=1, least=0.5)


class Sharpen(Restorer, Session):
    """A restorer that does one thing to every frame, counting its calls."""

    name = "sharpen"
    look_ahead = 0
    options = CodeFormerOptions()

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def open(self, track=None, *, seed=0, check_interrupt=lambda: None):
        self.seeds.append(seed)
        return self

    def push(self, crops: Tensor, masks: Tensor | None = None) -> Tensor:
        return at_side(1.4 * crops - 0.4 * crops.mean((2, 3), keepdim=True), 512)

    def close(self) -> Tensor:
        return torch.empty(0, 3, 512, 512)


def prior() -> ImagePrior:
    network = seed_weights(DifFaceUNet(DifFaceConfig(32, (1, 1), (1, 1), (), 32)), "small")
    return ImagePrior(network.requires_grad_(False), native_size=32)


def maker(options: PseudoTargetOptions = FEW) -> TargetMaker:
    return TargetMaker(Sharpen(), prior(), options)


@pytest.fixture(scope="module")
def chosen():
    return faces_of_frames(moving(5, side=64), CHOICE)[0]


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_what_the_prior_drew_is_the_average_of_the_target(side):
    y0 = torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    x = (at_side(y0, side) + 0.04 * torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))).clamp(0.2, 0.8)
    target = back_project(y0, x)
    assert ((target > 0) & (target < 1)).all()
    assert_close(at_side(target, side), x, atol=1e-5, rtol=0)
    assert_close(back_project(y0, at_side(y0, side)), y0, atol=1e-5, rtol=0)  # a prior that changes nothing
    assert consistent_enlargement(side, 512).abs().sum(1).max() < 2


def test_a_prior_of_512_or_more_gives_the_target_itself():
    x = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    assert torch.equal(back_project(torch.zeros(1, 3, 512, 512), x[..., :512, :512]), x[..., :512, :512])
    assert_close(back_project(torch.zeros(1, 3, 512, 512), x), torch.nn.functional.avg_pool2d(x, 2))


def test_a_pyramid_runs_at_its_networks_side_and_unconditionally(chosen):
    """FLAIR's image network, at the 32 pixels that it was trained for, each face of a batch for itself."""
    sizes = BicubicConfig(32, 32, (1, 1), 1, frozenset({1}), frozenset(), groups=32)
    network = seed_weights(BicubicUNet(sizes), "small").requires_grad_(False)
    flair = FlairPrior(network, background=1.0)  # type: ignore[arg-type]
    one = TargetMaker(Sharpen(), PyramidPrior(flair), PseudoTargetOptions(steps=100))  # type: ignore[arg-type]
    assert (
        one.prior is flair
        and (one.trajectory.side, one.trajectory.N) == (32, 2)
        and one.trajectory.entries[10] == flair.schedule.respaced(100).timesteps[10]
    )
    made = make_pairs(chosen[:2], one)
    assert_close(make_pairs(chosen[1:2], one).targets, made.targets[1:], atol=1e-4, rtol=0)
    together = TargetMaker(Sharpen(), PyramidPrior(flair), PseudoTargetOptions(steps=100, batch=2))  # type: ignore[arg-type]
    assert_close(make_pairs(chosen[:2], together).targets, made.targets, atol=1e-4, rtol=0)


def test_batches_change_rounding_only(chosen):
    alone, together = make_pairs(chosen, maker(), seed=3), make_pairs(chosen, maker(PseudoTargetOptions(4, 60, 20, 100, False, batch=3)), seed=3)
    assert_close(together.targets, alone.targets, atol=1e-4, rtol=0)
    assert torch.equal(together.initial, alone.initial)
    assert (alone.targets[0] - alone.initial[0]).abs().mean() > 0.005


def test_a_face_depends_on_itself_its_place_and_the_seed(chosen):
    whole = make_pairs(chosen, maker(), seed=3)
    assert_close(make_pairs(chosen[2:4], maker(), seed=3).targets, whole.targets[2:4], atol=1e-5, rtol=0)
    assert (make_pairs(chosen[:1], maker(), seed=4).targets[0] - whole.targets[0]).abs().mean() > 1e-3
    one = maker()
    make_pairs(chosen[1:3], one, seed=7)
    assert one.restorer.seeds == [8, 9]


def test_a_stopped_run_goes_on_and_gives_the_same(chosen, tmp_path):
    parameters = parameters_of(maker(), 3)
    straight = make_pairs(chosen, maker(), seed=3, folder=PairFolder(tmp_path / "straight", parameters))

    class Stop(KeyboardInterrupt):
        pass

    steps = 0

    def stop_in_the_third(faces: int, preview: Tensor) -> None:
        nonlocal steps
        steps += 1
        if steps == 2 * maker().steps + 3:
            raise Stop

    folder = PairFolder(tmp_path / "stopped", parameters)
    with pytest.raises(Stop):
        make_pairs(chosen, maker(), seed=3, folder=folder, on_step=stop_in_the_third)
    again = PairFolder(tmp_path / "stopped", parameters)
    assert [line.number for line in again.lines] == [0, 1]
    made = []
    resumed = make_pairs(chosen, maker(), seed=3, folder=again, on_step=lambda faces, preview: made.append(faces))
    assert resumed.found == 2 and len(made) == 3 * maker().steps
    for part in ("inputs", "initial", "targets"):
        assert torch.equal(getattr(resumed, part), getattr(straight, part))
        files = [sorted((tmp_path / name / part).iterdir()) for name in ("straight", "stopped")]
        assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]] and len(files[0]) == 5
    assert (resumed.sharper, resumed.drift) == (straight.sharper, straight.drift)
    rows = [(tmp_path / name / "pairs.jsonl").read_text() for name in ("straight", "stopped")]
    assert rows[0] == rows[1]
    third = json.loads(rows[0].splitlines()[2])
    assert (third["number"], third["source"], third["frame"], third["seed"], third["parameters"]) == (2, "frames", 2, 3, again.hash)
    untouched = make_pairs(chosen, maker(), seed=3, folder=again, on_step=lambda *_: pytest.fail("made again"))
    assert untouched.found == 5 and torch.equal(untouched.targets, straight.targets)


def test_another_clip_is_added_and_the_same_frame_with_other_pixels_too(chosen, tmp_path):
    parameters = parameters_of(maker(), 0)
    make_pairs(chosen[:1], maker(), folder=PairFolder(tmp_path, parameters))
    other = faces_of_frames(moving(1, side=64, first=9), CHOICE)[0]
    pairs = make_pairs(other, maker(), folder=PairFolder(tmp_path, parameters))
    assert pairs.found == 0 and len(PairFolder(tmp_path, parameters)) == 2
    assert_close(pairs.inputs[0], other[0].crop, atol=0.5 / 255 + 1e-6, rtol=0)


@pytest.mark.parametrize(
    ("made_with", "says"),
    [
        (lambda: parameters_of(maker(PseudoTargetOptions(N=4, K=70, L=20, steps=100, scaled=False)), 3), "K 60, now 70"),
        (lambda: parameters_of(maker(), 4), "seed 3, now 4"),
        (lambda: parameters_of(TargetMaker(Sharpen(), TinyUNet(), FEW), 3), "prior "),  # type: ignore[arg-type]
    ],
)
def test_other_parameters_are_refused_in_a_sentence(made_with, says, tmp_path):
    PairFolder(tmp_path, parameters_of(maker(), 3)).add("clip", 0, 3, *torch.zeros(3, 3, 8, 8))
    PairFolder(tmp_path, parameters_of(maker(PseudoTargetOptions(4, 60, 20, 100, False, batch=8)), 3))  # how many at once does not matter
    with pytest.raises(ValueError) as error:
        PairFolder(tmp_path, made_with())
    assert says in str(error.value) and "was begun with other parameters" in str(error.value) and "\n" not in str(error.value)


def test_weights_count_as_parameters():
    """Also those of what cleans the crops first."""

    def parameters(*salts: str) -> dict:
        restorer, *before = (CodeFormerRestorer(seed_weights(small_codeformer(), salt)) for salt in salts)  # type: ignore[arg-type]
        return parameters_of(TargetMaker(restorer.precleaned_by(*before) if before else restorer, prior(), FEW), 0)

    assert parameters("small") == parameters("small") != parameters("other")
    assert parameters("small") != parameters("small", "first") == parameters("small", "first") != parameters("small", "another")
    assert json.loads(json.dumps(parameters("small"))) == parameters("small")


def test_a_crash_in_the_middle_of_a_line_costs_that_line(chosen, tmp_path):
    parameters = parameters_of(maker(), 0)
    make_pairs(chosen[:2], maker(), folder=PairFolder(tmp_path, parameters))
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_text(manifest.read_text()[:-25])
    folder = PairFolder(tmp_path, parameters)
    assert len(folder) == 1 and manifest.read_text().count("\n") == 1
    assert make_pairs(chosen[:2], maker(), folder=folder).found == 1
    (tmp_path / "targets" / "000000.png").unlink()
    assert [line.number for line in PairFolder(tmp_path, parameters).lines] == [1]
    manifest.write_text("nonsense\n" + manifest.read_text())
    with pytest.raises(ValueError, match=r"line 1 of .*pairs.jsonl cannot be read"):
        PairFolder(tmp_path, parameters)


@pytest.mark.skipif(os.name != "posix", reason="needs limits of POSIX")
def test_a_full_disk_is_one_sentence_and_costs_one_pair(tmp_path):
    """The limit on the size of files stands for the full disk."""
    import resource

    folder = PairFolder(tmp_path, {"method": "any"})
    folder.add("clip", 0, 0, *torch.zeros(3, 3, 8, 8))
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
        with pytest.raises(OSError, match=r"000001\.png could not be written \(File too large\); the disk may be full: make room and start it again"):
            folder.add("clip", 1, 0, *torch.rand(3, 3, 32, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.rglob("*.part")) and len(PairFolder(tmp_path, {"method": "any"})) == 1
    assert folder.add("clip", 1, 0, *torch.rand(3, 3, 32, 32)).number == 1


def test_folders_of_others_are_refused(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(ValueError, match="nothing says what they were made with"):
        PairFolder(tmp_path, {"K": 1})
    (tmp_path / "parameters.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read; choose another folder name"):
        PairFolder(tmp_path, {"K": 1})
    with pytest.raises(ValueError, match="missing or damaged"):
        read_png(tmp_path / "none.png")


def test_people_are_told_apart(chosen):
    crops = moving(6, side=64)
    clips = [FaceClip(track(2, start=10, n=3), crops[:3]), FaceClip(track(0, start=40, n=3), crops[3:].flip(-1))]
    faces, choice = faces_of(clips, CHOICE)
    assert [(face.source, face.person, face.frame) for face in faces] == [
        *(("person 2", 2, 10 + i) for i in range(3)),
        *(("person 0", 0, 40 + i) for i in range(3)),
    ]
    assert torch.equal(faces[4].crop, clips[1].crops[1]) and choice.duplicates == choice.poor == 0
    pairs = make_pairs(faces[:2], maker())
    text = summary(pairs, choice, 6, maker())
    assert text.startswith("2 of 6 faces chosen. sharpen, then 6 diffusion steps at 32 x 32 from step")
    assert "its learnt variance" in text and "targets are sharper than the restorer's output" in text
    assert "DDPM's posterior variance, as this prior has learnt none" in TargetMaker(Sharpen(), TinyUNet(), FEW).describe()  # type: ignore[arg-type]


def test_digests_are_of_eight_bit_pixels():
    crop = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert digest_of(crop) == digest_of((crop * 255).round() / 255) != digest_of(crop.flip(-1))
