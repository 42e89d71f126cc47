"""KEEP's sessions on a small network: chunking, resets, what is carried, flow sources, and memory."""

import pytest
import torch
from helpers.seeded_weights import seed_weights
from helpers.small_keep import SIDE, clip, small_keep
from torch.testing import assert_close
from torchvision.models.optical_flow import raft_small

from fvr.methods.base import restore_frames, to_network
from fvr.methods.detail_fusion import completed
from fvr.methods.keep import KeepOptions, KeepRestorer, keep_step, working_memory
from fvr.motion.dis import DisFlow
from fvr.motion.raft import RaftFlow

LENGTH = 7


@pytest.fixture(scope="module")
def network():
    return small_keep()


@pytest.fixture(scope="module")
def restorer(network):
    return KeepRestorer(network, KeepOptions(gain_window=3))


@pytest.fixture(scope="module")
def whole(restorer):
    return restore_frames(restorer, clip(LENGTH), chunk=LENGTH)


def changed(a, b):
    """Largest difference of each frame."""
    return (a - b).abs().amax((1, 2, 3))


@pytest.mark.parametrize("reset_every", [0, 4])
def test_chunked_equals_whole(restorer, reset_every):
    restorer, frames = restorer.configured(reset_every=reset_every, batch=2), clip(LENGTH)
    whole, single, pairs = (restore_frames(restorer, frames, chunk=chunk) for chunk in (7, 1, 2))
    assert torch.equal(single, whole) and torch.equal(pairs, whole)


def test_a_session_is_the_recurrence(network, restorer, whole):
    """Frame after frame with the gains of blocks of 3, 3 and 1 frames: nothing but the equations."""
    frames = to_network(clip(LENGTH), SIDE, torch.device("cpu"))
    past, memory, images = None, None, []
    with torch.inference_mode():
        for block in frames.split(3):
            encoded = [network.encode(frame[None]) for frame in block]
            gains, memory = network.kalman_filter(torch.stack([latent for latent, _ in encoded], 1), memory)
            for index, (latent, features) in enumerate(encoded):
                past = keep_step(network, network.flownet, block[index : index + 1], latent, features, gains[:, index], past)
                images.append(past.image)
    assert_close(whole, completed(torch.cat(images), clip(LENGTH)), atol=1e-5, rtol=1e-5)


def test_resets_are_separate_sessions(restorer):
    frames = clip(LENGTH)
    for window in (2, 20):
        resetting = restorer.configured(reset_every=4, gain_window=window)
        apart = [restore_frames(resetting.configured(reset_every=0), part) for part in frames.split(4)]
        assert torch.equal(restore_frames(resetting, frames), torch.cat(apart))


def test_the_past_is_carried_over_the_borders_of_blocks(restorer, whole):
    difference = changed(whole, restore_frames(restorer.configured(reset_every=3), clip(LENGTH)))
    assert difference[:3].max() == 0
    assert difference[3:].min() > 1e-2


def test_frames_depend_on_all_that_came_before(restorer, whole):
    """Another first frame changes every frame after it, beyond its block too; another last frame only its own block."""
    frames = clip(LENGTH)
    other = frames.clone()
    other[0] = other[0].flip(-1)
    assert changed(restore_frames(restorer, other), whole).min() > 1e-3
    other = frames.clone()
    other[6] = other[6].flip(-1)
    difference = changed(restore_frames(restorer, other), whole)
    assert difference[:6].max() == 0 and difference[6] > 1e-3


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_clips_are_the_beginnings_of_blocks(restorer, length):
    done = restore_frames(restorer, clip(length))
    assert done.shape == (length, 3, 512, 512)
    assert done.isfinite().all() and done.min() >= 0 and done.max() <= 1
    first = restore_frames(restorer, clip(1))
    assert_close(done[:1], first, atol=1e-5, rtol=0)  # the gain of a first frame is not used


def test_as_many_come_out_as_go_in_over_two_resets(restorer):
    assert len(restore_frames(restorer.configured(reset_every=6, gain_window=6), clip(15))) == 15


def test_nothing_is_random(restorer, whole):
    assert torch.equal(restore_frames(restorer, clip(LENGTH), seed=5), whole)


def test_two_people_do_not_meet(restorer, whole):
    here, there = clip(LENGTH), clip(LENGTH, start=9)
    sessions = [restorer.open(), restorer.open()]
    done = [[], []]
    for index in range(LENGTH):
        for person, frames in enumerate((here, there)):
            done[person].append(sessions[person].push(frames[index : index + 1]))
    for person, session in enumerate(sessions):
        done[person].append(session.close())
    assert torch.equal(torch.cat(done[0]), whole)
    assert torch.equal(torch.cat(done[1]), restore_frames(restorer, there))


def test_a_session_holds_back_no_more_than_it_says(restorer):
    for options in (dict(gain_window=1), dict(gain_window=4), dict(gain_window=4, reset_every=2)):
        configured = restorer.configured(**options)
        session, held = configured.open(), []
        for index in range(5):
            done = len(session.push(clip(1, start=index)))
            held.append((held[-1] if held else 0) + 1 - done)
        assert max(held) == configured.look_ahead


def bytes_held(thing, seen=None):
    """Bytes of all tensors reachable from an object's attributes, each storage once."""
    seen = set() if seen is None else seen
    if isinstance(thing, torch.Tensor):
        storage = thing.untyped_storage()
        fresh = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if fresh else 0
    if isinstance(thing, dict):
        return sum(bytes_held(part, seen) for part in thing.values())
    if isinstance(thing, (list, tuple)):
        return sum(bytes_held(part, seen) for part in thing)
    return sum(bytes_held(part, seen) for part in vars(thing).values()) if hasattr(thing, "__dict__") and not callable(thing) else 0


def test_a_session_does_not_grow(restorer):
    session = restorer.open()
    session._restorer = None  # the network is everybody's
    held = []
    for index in range(12):
        session._restorer = restorer
        session.push(clip(1, start=index))
        session._restorer = None
        held.append(bytes_held(session))
    assert held[2] > SIDE * SIDE * 3 * 4
    assert held[5] == held[8] == held[11]


def test_the_host_is_asked_for_room_and_can_stop_the_work(network):
    asked, beats = [], []

    def place(working):
        asked.append(working)
        return torch.device("cpu")

    placed = KeepRestorer(network, KeepOptions(gain_window=2), place=place)
    restore_frames(placed, clip(5), check_interrupt=lambda: beats.append(1))
    assert asked == [working_memory(network, length, 1) for length in (2, 2, 1)]
    assert len(beats) >= 10

    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        restore_frames(placed, clip(2), check_interrupt=stop)


def test_a_network_whose_room_another_flow_took_is_brought_back(network):
    said = []

    class Elsewhere(DisFlow):
        def flow(self, first, second):
            said.append("flow")
            return super().flow(first, second)

    def place(working):
        said.append("place")
        return torch.device("cpu")

    handle = network.hq_encoder.register_forward_pre_hook(lambda module, arguments: said.append("encode clean"))
    try:
        restore_frames(KeepRestorer(network, KeepOptions(gain_window=3), place=place).guided_by(Elsewhere()), clip(3))
    finally:
        handle.remove()
    assert said == ["place", "place", "flow", "place", "encode clean", "flow", "place", "encode clean"]


def test_memory_that_runs_out_halves_the_batch(network, whole):
    sizes = []

    def hook(module, arguments):
        sizes.append(len(arguments[0]))
        if len(arguments[0]) > 1:
            raise torch.OutOfMemoryError("out of memory")

    handle = network.encoder.register_forward_pre_hook(hook)
    try:
        done = restore_frames(KeepRestorer(network, KeepOptions(gain_window=3, batch=3)), clip(LENGTH))
    finally:
        handle.remove()
    assert torch.equal(done, whole)
    assert sizes[:4] == [3, 1, 1, 1]


def test_every_source_of_flow(network, whole):
    """Each restores the first frame as any other does, later ones its own way."""
    raft = seed_weights(raft_small(weights=None), "raft")
    options = KeepOptions(gain_window=3)
    dis = restore_frames(KeepRestorer(network, options).guided_by(DisFlow()), clip(3))
    with_raft = restore_frames(KeepRestorer(network, options).guided_by(RaftFlow(raft, updates=2)), clip(3))
    for one, other in ((dis, whole[:3]), (with_raft, whole[:3]), (dis, with_raft)):
        difference = changed(one, other)
        assert difference[0] == 0 and difference[1:].min() > 1e-3


def test_crops_of_any_size_come_back_at_512(restorer, whole):
    large = restore_frames(restorer, torch.nn.functional.interpolate(clip(LENGTH), scale_factor=8))
    small, expected = (torch.nn.functional.interpolate(frames, (SIDE, SIDE), mode="area") for frames in (large, whole))
    assert (small - expected).abs().mean() < 5e-3  # what is enlarged by repetition averages back to itself; finer scales are the crop's own


def test_a_half_precision_decoder_begins_the_same(restorer, whole):
    half = small_keep()
    for part in half.decoder_parts():
        part.to(torch.bfloat16)
    done = restore_frames(KeepRestorer(half, restorer.options), clip(3))
    assert changed(done, whole[:3]).max() > 0
    assert (done[0] - whole[0]).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(reset_every=-1), "reset_every must lie between 0 and 10000 frames"),
        (dict(gain_window=0), "gain_window must lie between 1 and 100 frames, got 0"),
        (dict(batch=101), "batch must lie between 1 and 100 frames, got 101"),
    ],
)
def test_parameters_out_of_range_are_named(restorer, options, says):
    with pytest.raises(ValueError, match=says):
        restorer.configured(**options)
