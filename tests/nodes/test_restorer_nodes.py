"""Load Face Restorer and the nodes that take what it gives, with small networks in real files."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from helpers.code_networks import moving, small_codeformer, small_dicface, track
from helpers.small_keep import small_keep
from helpers.small_workflows import embedded_are_here
from safetensors.torch import save_file

from fvr.assembly import restorer_files
from fvr.faces import FaceClip
from fvr.methods.auto import AutoRestorer
from fvr.methods.base import restore_frames
from fvr.methods.flair.sampler import FlairRestorer
from fvr.methods.registry import with_estimates
from fvr.models import embedded
from fvr.models.device import on
from fvr.nodes.dicface import DicFaceRestore
from fvr.nodes.keep import KeepPropagate
from fvr.nodes.restorers import LoadFaceRestorer, RestoreFaces, RestorerSettings
from fvr.priors.wiener import GaussianPrior

FILES = {"codeformer.safetensors": small_codeformer, "KEEP-b76feb75.safetensors": small_keep, "my own dicface.safetensors": small_dicface}


def save(network, path):
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    """A ComfyUI models folder with three restorers, a detector beside them, and a checkpoint that is none."""
    root = tmp_path_factory.mktemp("models")
    for folder in ("facerestore_models", "checkpoints"):
        (root / folder).mkdir()
    for name, make in FILES.items():
        save(make(), root / "facerestore_models" / name)
    (root / "facerestore_models" / "detection_Resnet50_Final.pth").write_bytes(b"x")
    (root / "checkpoints" / "sd15.safetensors").write_bytes(b"x")
    save(small_codeformer(), root / "checkpoints" / "CodeFormer-v2.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FVR_MODELS", str(root))
        yield root


def call(node, **inputs):
    return node.execute(**inputs).result


@lru_cache
def load(name):
    return call(LoadFaceRestorer, model=name)[0]


def images(n, first=0):
    return moving(n, first=first).permute(0, 2, 3, 1).contiguous()


def people():
    """Two people in one clip, the second from frame 2 on."""
    return [FaceClip(track(0, 0, 5), moving(5)), FaceClip(track(1, 2, 4), moving(4, first=40))]


def test_the_combo_offers_what_may_restore_faces():
    assert list(restorer_files()) == [
        *embedded.listed(embedded.RESTORERS),
        "CodeFormer-v2.safetensors",
        "codeformer.safetensors",
        "KEEP-b76feb75.safetensors",
        "my own dicface.safetensors",
    ]


def test_the_loader_says_what_the_file_is_and_what_it_allows():
    restorer, about = call(LoadFaceRestorer, model="KEEP-b76feb75.safetensors")
    assert restorer.name == "keep" and "64 x 64, 64 codes" in about
    assert "S-Lab License 1.0: not for commercial use" in about
    assert "licence unknown" in call(LoadFaceRestorer, model="my own dicface.safetensors")[1]


def test_a_missing_restorer_says_how_to_get_one():
    with pytest.raises(ValueError, match="fvr models fetch codeformer"):
        call(LoadFaceRestorer, model="none.pth")


def test_the_fingerprint_is_the_files(models):
    name = "codeformer.safetensors"
    before = LoadFaceRestorer.fingerprint_inputs(model=name)
    assert before == LoadFaceRestorer.fingerprint_inputs(model=name)
    save_file(small_codeformer().state_dict() | {"position_emb": torch.zeros(256, 128)}, models / "facerestore_models" / name)
    assert before != LoadFaceRestorer.fingerprint_inputs(model=name)
    save_file(small_codeformer().state_dict(), models / "facerestore_models" / name)


@pytest.mark.parametrize("name", FILES)
def test_people_in_one_batch_share_nothing(name):
    restorer = load(name)
    together, frames = call(RestoreFaces, restorer=restorer, faces=people())
    assert all(clip.track.repainted for clip in together)  # which Paste Back goes by
    alone = [call(RestoreFaces, restorer=restorer, faces=[person])[0][0] for person in people()]
    for both, one in zip(together, alone, strict=True):
        assert torch.equal(both.crops, one.crops) and both.track.person == one.track.person
    assert torch.equal(frames.permute(0, 3, 1, 2), torch.cat([one.crops for one in alone]))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_draws_nearly_the_same(precision):
    full, half = (
        call(RestoreFaces, restorer=call(LoadFaceRestorer, model="codeformer.safetensors", precision=p)[0], frames=images(1))[1]
        for p in ("float32", precision)
    )
    assert 0 < (full - half).abs().mean() < 0.02


def test_fidelity_is_the_restorers_unless_given():
    restorer = load("codeformer.safetensors")
    own, half, other = (call(RestoreFaces, restorer=restorer, frames=images(1), fidelity=w)[1] for w in (-1.0, 0.5, 0.9))
    assert torch.equal(own, half) and not torch.equal(own, other)
    with pytest.raises(ValueError, match="fidelity is a setting of CodeFormer and DicFace, and the wired restorer is keep"):
        call(RestoreFaces, restorer=load("KEEP-b76feb75.safetensors"), frames=images(1), fidelity=0.5)


def test_settings_reach_the_restorer_and_leave_the_loaded_one_alone():
    loaded = load("codeformer.safetensors")
    changed = call(RestorerSettings, restorer=loaded, method={"method": "codeformer", "fidelity": 0.8, "smoothing": 2, "mode": None})[0]
    assert (changed.options.fidelity, changed.options.smoothing, changed.look_ahead) == (0.8, 2, 2)
    assert loaded.options.fidelity is None and loaded.network is changed.network
    assert call(RestorerSettings, restorer=loaded, method={"method": "codeformer", "fidelity": -1.0})[0].options.fidelity is None
    with pytest.raises(ValueError, match="these are settings of keep, and the wired restorer is codeformer"):
        call(RestorerSettings, restorer=loaded, method={"method": "keep", "reset_every": 3})
    flair = FlairRestorer(GaussianPrior())
    with pytest.raises(ValueError, match="these are settings of keep, and the wired restorer is flair; its own node sets it"):
        call(RestorerSettings, restorer=flair, method={"method": "keep", "reset_every": 3})


@pytest.mark.skipif(not embedded_are_here(), reason="needs the embedded weights, which this checkout has not got")
def test_settings_reach_the_restorer_behind_auto():
    """What it takes where no estimate explains the damage; embedded KEEP goes over that only where it carries over time."""
    loaded = with_estimates(load("embedded blind"), device=torch.device("cpu"), precision=torch.float32, placed=lambda network: on(network, "cpu"))
    assert isinstance(loaded, AutoRestorer) and loaded.small is not loaded.otherwise
    changed = call(RestorerSettings, restorer=loaded, method={"method": "blind", "detail": 0.25})[0]
    assert changed.otherwise.options.detail == changed.small.first.options.detail == changed.options.detail == 0.25 != loaded.options.detail
    assert (changed.flair, changed.small.then) == (loaded.flair, loaded.small.then)
    alone = call(RestorerSettings, restorer=loaded, method={"method": "blind", "carry": False})[0]
    assert alone.small is alone.otherwise
    with pytest.raises(ValueError, match=r"the wired restorer is auto \(flair or blind\); choose blind as the method"):
        call(RestorerSettings, restorer=loaded, method={"method": "keep", "reset_every": 3})


def test_keep_takes_its_settings_and_another_flow():
    restorer = load("KEEP-b76feb75.safetensors")
    one, again, reset, dis = (
        call(KeepPropagate, restorer=restorer, frames=images(5), **more)[1] for more in ({}, {"reset_every": 0}, {"reset_every": 2}, {"flow": "dis"})
    )
    assert torch.equal(one, again)
    assert torch.equal(one[0], reset[0]) and not torch.equal(one[2:], reset[2:])
    assert torch.equal(reset[2:4], call(KeepPropagate, restorer=restorer, frames=images(2, first=2))[1])
    assert torch.equal(one[0], dis[0]) and not torch.equal(one[1:], dis[1:])
    with pytest.raises(ValueError, match="needs a KEEP checkpoint, and the wired restorer is codeformer"):
        call(KeepPropagate, restorer=load("codeformer.safetensors"), frames=images(1))


def test_keep_follows_the_optical_flow_that_is_wired():
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)

    class Patcher:
        """What ComfyUI's loader gives, as far as a session without ComfyUI touches it."""

        model = raft_small(weights=None).eval()
        load_device = torch.device("cpu")

    restorer = load("KEEP-b76feb75.safetensors")
    own, raft = (call(KeepPropagate, restorer=restorer, frames=images(3), **more)[1] for more in ({}, {"optical_flow": Patcher()}))
    assert torch.equal(own[0], raft[0]) and not torch.equal(own[1:], raft[1:])


def test_dicface_restores_and_shows_where_it_invents():
    restorer = load("my own dicface.safetensors")
    faces, frames, uncertainty = call(DicFaceRestore, restorer=restorer, mode={"mode": "restore"}, faces=people())
    assert torch.equal(frames, call(RestoreFaces, restorer=restorer, faces=people())[1])
    assert uncertainty.shape == (9, 512, 512) and 0 <= uncertainty.min() < uncertainty.max() <= 1
    drawn = [call(DicFaceRestore, restorer=restorer, mode={"mode": "restore"}, dirichlet="sample", seed=s, frames=images(2))[1] for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert len(faces) == 2


def test_dicface_fills_what_the_mask_says_and_keeps_the_rest():
    restorer = load("my own dicface.safetensors")
    frames = torch.nn.functional.interpolate(moving(3), (512, 512)).permute(0, 2, 3, 1)
    mask = torch.zeros(512, 512)
    mask[100:200, 150:300] = 1
    for given in (mask, mask.expand(3, -1, -1)):
        filled = call(DicFaceRestore, restorer=restorer, mode={"mode": "inpaint"}, frames=frames, mask=given)[1]
        known = mask == 0
        assert torch.equal(filled[:, known], frames[:, known])
        assert (filled[:, ~known] - frames[:, ~known]).abs().mean() > 0.05


def test_an_empty_mask_is_named():
    frames = torch.nn.functional.interpolate(moving(1), (512, 512)).permute(0, 2, 3, 1)
    out = DicFaceRestore.execute(restorer=load("my own dicface.safetensors"), mode={"mode": "inpaint"}, frames=frames, mask=torch.zeros(1, 64, 64))
    assert torch.equal(out.result[1], frames) and "nothing is filled" in out.ui["text"][0]


def test_masks_of_whole_frames_follow_the_faces():
    restorer = load("my own dicface.safetensors")
    clips = [FaceClip(track(0, 1, 3), torch.nn.functional.interpolate(moving(3), (512, 512)))]  # this track cuts out the frames' upper left corner
    mask = torch.zeros(4, 64, 64)
    mask[:, :32] = 1
    crops = call(DicFaceRestore, restorer=restorer, mode={"mode": "inpaint"}, faces=clips, mask=mask)[0][0].crops
    changed = (crops - clips[0].crops).abs().amax((0, 1))
    assert changed[:31, :64].mean() > 0.05 and changed[33:, :].max() == 0


def test_a_mask_for_other_frames_is_refused():
    with pytest.raises(ValueError, match="2 masks came for 3 frames"):
        mask = torch.zeros(2, 128, 128)
        call(DicFaceRestore, restorer=load("my own dicface.safetensors"), mode={"mode": "inpaint"}, frames=images(3), mask=mask)


def test_a_mask_that_nothing_needs_is_left_aside():
    """Load Image gives 64 x 64 zeros for a picture without alpha, whatever the picture's size; a drawn mask is named."""
    restorer = load("my own dicface.safetensors")
    plain, *masked = (
        DicFaceRestore.execute(restorer=restorer, mode={"mode": "restore"}, frames=images(2), **more)
        for more in ({}, {"mask": torch.zeros(1, 64, 64)}, {"mask": torch.ones(1, 64, 64)}, {"mask": torch.zeros(5, 7, 9)})
    )
    assert all(torch.equal(plain.result[1], other.result[1]) for other in masked)
    assert ["left aside" in other.ui["text"][0] for other in (plain, *masked)] == [False, False, True, False]


def test_masks_of_another_size_are_scaled():
    """A mask of 64 x 64 for crops of 512: what it hides is filled, the rest comes back to the bit; one missing pixel stays missing when shrunk."""
    restorer = load("my own dicface.safetensors")
    frames = torch.nn.functional.interpolate(moving(2), (512, 512)).permute(0, 2, 3, 1)
    mask = torch.zeros(1, 64, 64)
    mask[0, 10:20, 30:50] = 1
    filled = call(DicFaceRestore, restorer=restorer, mode={"mode": "inpaint"}, frames=frames, mask=mask)[1]
    known = torch.nn.functional.interpolate(mask[None], (512, 512), mode="nearest")[0, 0] == 0
    assert torch.equal(filled[:, known], frames[:, known]) and (filled[:, ~known] - frames[:, ~known]).abs().mean() > 0.05
    clips = [FaceClip(track(0, 1, 3), torch.nn.functional.interpolate(moving(3), (512, 512)))]
    half, whole = torch.zeros(1, 16, 16), torch.zeros(1, 64, 64)
    half[:, :8], whole[:, :32] = 1, 1
    crops = [call(DicFaceRestore, restorer=restorer, mode={"mode": "inpaint"}, faces=clips, mask=one)[0][0].crops for one in (half, whole)]
    assert torch.equal(*crops)


@pytest.mark.parametrize(("node", "more"), [(RestoreFaces, {}), (KeepPropagate, {}), (DicFaceRestore, {"mode": {"mode": "restore"}})])
@pytest.mark.parametrize(("inputs", "got"), [({}, "neither"), ({"faces": [], "frames": torch.rand(1, 64, 64, 3)}, "both")])
def test_one_of_two_sockets_is_wired(node, more, inputs, got):
    name = {KeepPropagate: "KEEP-b76feb75.safetensors", DicFaceRestore: "my own dicface.safetensors"}.get(node, "codeformer.safetensors")
    with pytest.raises(ValueError, match=f"got {got}"):
        call(node, restorer=load(name), **more, **inputs)


def test_engine_and_node_agree():
    restorer = load("KEEP-b76feb75.safetensors")
    assert torch.equal(call(KeepPropagate, restorer=restorer, frames=images(4))[1].permute(0, 3, 1, 2), restore_frames(restorer, moving(4)))
