"""Laws that hold for every session of CodeFormer and DicFace, whatever the mode, on small networks."""

from __future__ import annotations

import pytest
import torch
from helpers.code_networks import moving, small_codeformer, small_dicface, track

from fvr.colour import luma
from fvr.methods.base import restore_frames
from fvr.methods.codeformer import CodeFormerOptions, CodeFormerRestorer
from fvr.methods.dicface import DicFaceOptions, DicFaceRestorer, Trained
from fvr.methods.sliding_window import CentredWindow, working_bytes

CODEFORMER, DICFACE = small_codeformer(), small_dicface()
WAYS = {
    "codeformer": CodeFormerRestorer(CODEFORMER),
    "codeformer, smoothed": CodeFormerRestorer(CODEFORMER, CodeFormerOptions(smoothing=2)),
    "codeformer, colours, luminance kept": CodeFormerRestorer(CODEFORMER, CodeFormerOptions(mode="colourise", keep_luminance=True)),
    "codeformer, smoothed holes": CodeFormerRestorer(CODEFORMER, CodeFormerOptions(mode="inpaint", smoothing=1)),
    "dicface": DicFaceRestorer(DICFACE),
    "dicface, sampled": DicFaceRestorer(DICFACE, DicFaceOptions(dirichlet="sample", fidelity=0.5)),
    "dicface, colours, luminance kept": DicFaceRestorer(DICFACE, DicFaceOptions(mode="colourise", keep_luminance=True)),
    "dicface, holes": DicFaceRestorer(DICFACE, DicFaceOptions(mode="inpaint")),
    "dicface, holes filled": DicFaceRestorer(DICFACE, DicFaceOptions(mode="inpaint"), trained=Trained("inpaint", filled=True)),
    "dicface, window of four": DicFaceRestorer(small_dicface(4)),
}
EVERY = pytest.mark.parametrize("restorer", WAYS.values(), ids=WAYS)
KINDS = ["codeformer", "codeformer, smoothed", "dicface, sampled"]
EACH_KIND = pytest.mark.parametrize("restorer", [WAYS[name] for name in KINDS], ids=KINDS)
CLIP = moving(8)


@EVERY
def test_chunks_of_one_seven_and_all_at_once_are_the_same_bits(restorer):
    whole, single, sevens = (restore_frames(restorer, CLIP, seed=3, chunk=chunk) for chunk in (8, 1, 7))
    assert whole.shape == (8, 3, 512, 512) and whole.min() >= 0 and whole.max() <= 1
    assert torch.equal(whole, single) and torch.equal(whole, sevens)
    assert not torch.equal(whole[0], whole[1])


@EACH_KIND
@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_clips_come_out_whole_and_as_late_as_promised(restorer, count):
    session = restorer.open()
    out = [session.push(crop[None]) for crop in CLIP[:count]]
    for pushed in range(1, count + 1):
        assert pushed - sum(map(len, out[:pushed])) == min(pushed, restorer.look_ahead)
    out.append(session.close())
    assert torch.equal(torch.cat(out), restore_frames(restorer, CLIP[:count]))
    assert len(torch.cat(out)) == count and session.close().shape == (0, 3, 512, 512)


@EACH_KIND
def test_two_people_interleaved_equal_each_alone(restorer):
    clips, tracks = (CLIP[:3], CLIP[3:6].flip(-1)), (track(0), track(1, start=5))
    sessions = [restorer.open(who, seed=1) for who in tracks]
    out = [[], []]
    for t in range(3):
        for who in (0, 1):
            out[who].append(sessions[who].push(clips[who][t : t + 1]))
    for who in (0, 1):
        mixed = torch.cat([*out[who], sessions[who].close()])
        assert torch.equal(mixed, restore_frames(restorer, clips[who], tracks[who], seed=1))


@pytest.mark.parametrize("restorer", [WAYS["codeformer"], WAYS["dicface"], WAYS["dicface, sampled"]])
def test_the_seed_counts_only_where_something_is_drawn(restorer):
    first, again, other = (restore_frames(restorer, CLIP[:2], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    drawn = getattr(restorer.options, "dirichlet", "mean") == "sample"
    assert torch.equal(first, other) != drawn


@EACH_KIND
def test_the_input_stays_as_it_was_and_the_output_may_be_trained_on(restorer):
    frames = CLIP[:2].clone()
    out = restore_frames(restorer, frames)
    assert torch.equal(frames, CLIP[:2]) and not out.is_inference() and not out.requires_grad
    (out * torch.ones(1, requires_grad=True)).sum().backward()
    assert all(not value.is_inference() for value in restorer.network.parameters())


@EACH_KIND
def test_every_frame_beats_the_heart_and_asks_for_room(restorer):
    beats, asked = [], []

    def place(working):
        asked.append(working)
        return torch.device("cpu")

    placed = type(restorer)(restorer.network, restorer.options, place=place)
    restore_frames(placed, CLIP[:4], check_interrupt=lambda: beats.append(1))
    assert len(beats) >= 4 and len(asked) >= 4 and min(asked) == working_bytes(restorer.network.config, 1) > 1e6

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_frames(restorer, CLIP, check_interrupt=stop)


@EACH_KIND
def test_any_size_of_crop_is_taken(restorer):
    for side in (48, 512, 600):
        assert restore_frames(restorer, moving(1, side)).shape == (1, 3, 512, 512)


@pytest.mark.parametrize("name", ["codeformer, smoothed holes", "dicface, holes"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_masks_follow_their_frames_through_the_window(name, chunk):
    """A hole that moves: every frame gets its own known pixels back, exactly, and is filled where its own mask says."""
    frames, masks = moving(4, 512), torch.zeros(4, 1, 512, 512)
    for t in range(4):
        masks[t, :, 100 : 200 + 10 * t, 100 + 20 * t : 200] = 1
    session = WAYS[name].open()
    out = [session.push(frames[i : i + chunk], masks[i : i + chunk]) for i in range(0, 4, chunk)]
    out = torch.cat([*out, session.close()])
    known = masks.expand_as(out) == 0
    assert torch.equal(out[known], frames[known])
    assert (out - frames)[~known].abs().mean() > 0.01


def test_what_is_masked_cannot_be_seen():
    """Whatever the hole held, the result is the same."""
    frames, masks = moving(2, 512), torch.zeros(2, 1, 512, 512)
    masks[:, :, 150:300, 200:350] = 1
    session, other = WAYS["dicface, holes"].open(), WAYS["dicface, holes"].open()
    a = torch.cat([session.push(frames, masks), session.close()])
    b = torch.cat([other.push(torch.where(masks > 0, 0.2, frames), masks), other.close()])
    assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["codeformer", "codeformer, smoothed", "dicface"])
def test_masks_without_inpainting_are_refused(name):
    with pytest.raises(ValueError, match="choose the mode 'inpaint'"):
        WAYS[name].open().push(CLIP[:1], torch.zeros(1, 1, 128, 128))


@pytest.mark.parametrize("name", ["codeformer, colours, luminance kept", "dicface, colours, luminance kept"])
def test_colours_come_with_the_luminance_of_the_input(name):
    frames = moving(2, 512)
    out = restore_frames(WAYS[name], frames)
    torch.testing.assert_close(luma(out), luma(frames), rtol=0, atol=1e-5)
    grey = luma(frames).expand_as(frames)
    assert (out - restore_frames(WAYS[name], grey)).abs().max() < 1e-4
    assert (out - grey).abs().mean() > 0.01


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (2, 1), (0, 3)])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_windows_surround_every_item_and_repeat_the_ends(before, after, count):
    window = CentredWindow(before, after)
    seen = [w for w in map(window.push, range(count)) if w is not None] + list(window.close())
    assert seen == [[min(max(t + d, 0), count - 1) for d in range(-before, after + 1)] for t in range(count)]
    assert list(window.close()) == []
