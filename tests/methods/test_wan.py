"""The one-step restorer: the published formula over windows, whatever the chunks; a part comes out as in the whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fvr.methods.base import restore_frames
from fvr.methods.wan import TIMESTEP, WanOptions, WanRestorer, one_step
from fvr.record import described


@dataclass
class Small:
    """Latents are means of 8 x 8 pixels of the first of every four frames, and the velocity is a fifth of them, turned by the time."""

    weights: str = "small"
    asked: list = field(default_factory=list)

    def encode(self, frames: Tensor) -> Tensor:
        assert len(frames) % 4 == 1
        self.asked.append(len(frames))
        return F.avg_pool2d(frames[::4], 8).movedim(0, 1)[None] * 2 - 1

    def velocity(self, latents: Tensor, timestep: float) -> Tensor:
        return 0.2 * latents.flip(2) * timestep / 400

    def decode(self, latents: Tensor) -> Tensor:
        frames = F.interpolate((latents[0].movedim(1, 0) + 1) / 2, scale_factor=8)
        return torch.cat([frames[:1], frames[1:].repeat_interleave(4, 0)])


def crops(count: int) -> Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(count))
    return F.interpolate(coarse, (512, 512), mode="bilinear")


def test_the_formula():
    """x = D(z - v(z, 400))."""
    model, frames = Small(), crops(9)
    z = model.encode(frames)
    assert TIMESTEP == 400
    torch.testing.assert_close(one_step(model, frames), model.decode(z - 0.2 * z.flip(2)).clamp(0, 1))


@pytest.mark.parametrize("count", [1, 3, 5, 9, 14, 20])
def test_chunks_do_not_matter_and_every_frame_comes_back(count):
    made = WanRestorer(Small(), WanOptions(window=9, overlap=3))
    frames = crops(count)
    whole = restore_frames(made, frames, chunk=count)
    assert whole.shape == frames.shape and whole.min() >= 0 and whole.max() <= 1
    for chunk in (1, 7):
        assert torch.equal(restore_frames(made, frames, chunk=chunk), whole)
    assert set(made.model.asked) <= {1, 5, 9}


def test_neighbouring_windows_fade_into_each_other():
    made = WanRestorer(Small(), WanOptions(window=9, overlap=3))
    frames = crops(15)
    out = restore_frames(made, frames)
    one, two = one_step(made.model, frames[:9]), one_step(made.model, frames[6:15])
    assert torch.equal(out[:6], one[:6]) and torch.equal(out[9:], two[3:])
    for k in range(3):
        torch.testing.assert_close(out[6 + k], one[6 + k].lerp(two[k], (k + 1) / 4))


def test_a_part_of_a_track_comes_out_as_in_the_whole():
    made = WanRestorer(Small(), WanOptions(window=9, overlap=3))
    frames = crops(30)
    whole = restore_frames(made, frames)
    assert made.warm_up.exact
    for first in (1, 8, 9, 14, 21, 29):
        begin = made.warm_up.begin(first)
        session = made.resume(None, begin)
        part = torch.cat([session.push(frames[begin:]), session.close()])
        assert torch.equal(part[first - begin :], whole[first:])


def test_what_does_not_fit_is_refused():
    for options, said in (
        (dict(window=20), "window is 4 n . 1 frames, as Wan's VAE takes them, got 20; take 17 or 21"),
        (dict(window=9, overlap=5), "overlap is at most half of the window of 9 frames, got 5"),
        (dict(window=1), "window must lie between 5 and 121 frames"),
    ):
        with pytest.raises(ValueError, match=said):
            WanOptions(**options)
    session = WanRestorer(Small()).open()
    with pytest.raises(ValueError, match="wan takes no masks"):
        session.push(crops(1), torch.zeros(1, 1, 512, 512))
    assert described(WanRestorer(Small(), WanOptions(9, 2))) == {"method": "wan", "window": 9, "overlap": 2, "fingerprint": "small"}
