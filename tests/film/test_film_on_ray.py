"""A job on a real Ray, started here: the same bytes as without, also if one of its processes is killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.small_film import in_one_go, make_film, planned, tools_of

from fvr.film.join import join_once
from fvr.film.on_ray import work_on_ray
from fvr.video import read_frames

ray = pytest.importorskip("ray", reason="Ray is not installed; it is in the extra [ray], and has no wheel for every Python")


def test_ray_restores_what_this_process_would(tmp_path):
    clip = tmp_path / "in.mp4"
    make_film(clip, (6, 5, 4))
    job = planned(tmp_path / "job", clip, seconds=0.2)
    assert len(job.segments) == 3
    (tmp_path / "kill-once").touch()
    written, said = [], []
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}}  # what makes the tools is a helper of the tests
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    try:
        work_on_ray(job, tools_of, workers=2, say=said.append, on_written=written.append)
    finally:
        ray.shutdown()
    assert sum(written) == 15 and not (tmp_path / "kill-once").exists()
    assert said[0].startswith("Ray: 2 actors on 1 machine") and "ended while it restored segment" in said[1]
    join_once(job, tmp_path / "out.mkv")
    in_one_go(clip, tmp_path / "whole.mkv")
    (frames, times), (others, other_times) = read_frames(tmp_path / "out.mkv"), read_frames(tmp_path / "whole.mkv")
    assert (frames == others).all() and times.starts == other_times.starts
