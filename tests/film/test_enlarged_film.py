"""A job at a larger scale: the joined film is the one restored in one go at that scale, and another scale is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.small_film import LOSSLESS, SELECTION, SIZE, Remembering, make_film, tools

from fvr.faces import Paster
from fvr.film.executors import failed, work
from fvr.film.job import Job
from fvr.film.join import join_once
from fvr.film.plan import plan
from fvr.pipeline import restore_clip_in_frames
from fvr.record import job_identity
from fvr.video import open_sink, open_source, read_frames

pytestmark = pytest.mark.usefixtures("one_thread")


def planned(folder: Path, clip: Path, scale: int) -> tuple[Job, object]:
    made = replace(tools(20), paster=Paster(feather=8, grain="off", scale=scale))
    identity = job_identity({"seed": 0}, made.restorer, made.detector, made.paster)
    source = open_source(clip)
    return plan(folder, source, made, identity=identity, request={}, selection=SELECTION, encoding=LOSSLESS, seconds=0.24), made


def test_a_film_is_enlarged_as_in_one_go(tmp_path):
    clip = tmp_path / "in.mp4"
    make_film(clip, (5, 7))
    job, made = planned(tmp_path / "job", clip, 2)
    work(job, lambda: made, say=print)
    assert not failed(job) and len(job.segments) > 1
    join_once(job, tmp_path / "joined.mkv")
    source = open_source(clip)
    encoding = {name: LOSSLESS[name] for name in ("codec", "crf", "pixel_format")}
    with open_sink(tmp_path / "whole.mkv", source.info, size=made.paster.size(*SIZE), audio=source, **encoding) as sink:
        restore_clip_in_frames(source, sink, Remembering(), made.detector, paster=made.paster)
    (one, times), (other, other_times) = (read_frames(tmp_path / f"{name}.mkv") for name in ("joined", "whole"))
    assert tuple(one.shape[-2:]) == (2 * SIZE[0], 2 * SIZE[1]) and torch.equal(one, other) and times.starts == other_times.starts
    with pytest.raises(ValueError, match=r"was planned with pasting\.scale 2, got 3"):
        planned(tmp_path / "job", clip, 3)
