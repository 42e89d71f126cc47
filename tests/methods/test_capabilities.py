"""What a restorer says it supports is what its sessions do."""

import pytest
import torch
from helpers.code_networks import moving, small_codeformer, small_dicface
from helpers.small_keep import small_keep

from fvr.faces import Paster, aligned_track
from fvr.methods.base import Restorer, restore_frames
from fvr.methods.codeformer import CodeFormerOptions, CodeFormerRestorer
from fvr.methods.dicface import DicFaceOptions, DicFaceRestorer
from fvr.methods.keep import KeepRestorer
from fvr.methods.per_frame import PerFrameRestorer
from fvr.pipeline import Walk

RESTORERS: dict[str, Restorer] = {
    "codeformer": CodeFormerRestorer(small_codeformer(), CodeFormerOptions(mode="inpaint")),
    "smoothed": CodeFormerRestorer(small_codeformer(), CodeFormerOptions(mode="inpaint", smoothing=1)),
    "dicface": DicFaceRestorer(small_dicface(), DicFaceOptions(mode="inpaint")),
    "keep": KeepRestorer(small_keep()),
    "per-frame": PerFrameRestorer(torch.nn.Identity(), place=lambda working: torch.device("cpu")),
}
every = pytest.mark.parametrize("name", RESTORERS)


@every
def test_masks_are_taken_or_refused_in_a_sentence(name):
    restorer, clip, masks = RESTORERS[name], moving(2, 64), torch.ones(2, 1, 64, 64)
    if "masks" in restorer.supports:
        assert restore_frames(restorer, clip, masks=masks).shape[0] == 2
    else:
        with pytest.raises(ValueError, match="takes no masks"):
            restore_frames(restorer, clip, masks=masks)


@every
def test_maps_come_with_their_frames_where_they_are_supported(name):
    restorer, found = RESTORERS[name], []
    restore_frames(restorer, moving(3, 64), on_maps=found.append, chunk=2)
    shapes = [tuple(maps["uncertainty"].shape) for maps in found if maps]
    assert sum(shape[0] for shape in shapes) == (3 if "uncertainty" in restorer.supports else 0)


@every
def test_where_frames_are_single_each_is_restored_as_if_alone(name):
    restorer, clip = RESTORERS[name], moving(3, 64)
    if "masks" in restorer.supports:
        restorer = restorer.configured(mode="restore")
    alone = torch.cat([restore_frames(restorer, frame) for frame in clip.split(1)])
    assert torch.allclose(restore_frames(restorer, clip), alone, atol=1e-5) == ("single_frames" in restorer.supports)


@every
def test_what_draws_faces_anew_says_so_and_what_fills_holes_does_not(name):
    restorer = RESTORERS[name]
    if "masks" in restorer.supports:
        assert not restorer.repaints() and not restorer.configured(mode="colourise").repaints()
        assert not drawn_anew(restorer)
        restorer = restorer.configured(mode="restore")
    assert restorer.repaints() and drawn_anew(restorer)


def drawn_anew(restorer: Restorer) -> bool:
    """What the walk tells the paster, which then keeps what lies before the face by itself."""
    return Walk([aligned_track(2)], restorer, Paster()).upcoming[0][1].repainted


def test_the_walk_says_how_large_the_frames_are_that_faces_are_pasted_into():
    assert Walk([aligned_track(2)], RESTORERS["keep"], Paster(scale=2)).upcoming[0][1].output_scale == 2
