"""Checks that a job is continued with the clip, the settings and the pictures it was planned with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..faces import photo_path
from ..models.device import CheckInterrupt
from .files import content_digest, fingerprint, sha256, write_json
from .job import Job


def check_same(job: Job, identity: Mapping[str, Any], selection: Mapping[str, Any], encoding: Mapping[str, Any]) -> None:
    """Raises ValueError naming the first setting that differs from the plan."""
    now = {"identity": dict(identity), "selection": json.loads(json.dumps(selection)), "encoding": json.loads(json.dumps(encoding))}
    planned = {name: job.plan[name] for name in now}
    for name, was, is_now in differences(planned, now):
        what = name.removeprefix("identity.").removeprefix("settings.")
        if what.startswith("input"):
            raise ValueError(
                f"{job.folder} was planned for {job.plan['place']}, and the clip given now is another one, or was changed since ({what} {was}, got "
                f"{is_now}); give the clip as it was, or plan it anew in another folder"
            )
        raise ValueError(
            f"{job.folder} was planned with {what} {was}, got {is_now}; go on with what it was planned with, or plan it anew in another folder"
        )


def input_as_planned(job: Job, now: dict[str, Any], place: Any, check_interrupt: CheckInterrupt) -> dict[str, Any]:
    """A clip's fingerprint, with the planned modification time if only that differs (the clip was copied or touched)."""
    planned = {**now, "modified": job.plan["identity"]["input"].get("modified")}
    same = now != planned == job.plan["identity"]["input"] and content_digest(place, check_interrupt) == job.plan.get("content")
    return planned if same else now


def moved_to(job: Job, place: Any) -> Job:
    """The job with its clip's path set to `place` for all workers, if the clip was moved."""
    here = str(Path(str(place)).absolute())
    if here == job.plan["place"] or Path(job.plan["place"]).exists():
        return job
    write_json(job.folder / "job.json", {**job.plan, "place": here})
    return Job.load(job.folder)


def picture_digest(faces: str) -> str | None:
    """SHA-256 of the picture in "like:photo.jpg"; None for other values and unreadable files."""
    name = photo_path(faces)
    try:
        return sha256(Path(name).read_bytes()) if name else None
    except OSError:
        return None


def check_picture(job: Job, faces: str) -> None:
    """Raises ValueError if the reference picture of `--faces like:` has changed; if it was deleted, the plan is enough."""
    planned, now = job.plan.get("picture"), picture_digest(faces)  # plans of older versions do not say
    if planned and now and now != planned:
        raise ValueError(
            f"{job.folder} was planned with another picture in {photo_path(faces)}, and its people were chosen by that; give the same picture, or "
            "plan it anew in another folder"
        )


def check_input(job: Job) -> dict[str, Any]:
    """The fingerprint of a job's clip for `check_same`, without the modification time. Raises ValueError if the clip is missing."""
    place, planned = job.plan["place"], job.plan["identity"]["input"]
    if not Path(place).exists():
        raise ValueError(f"{place}, the clip of the job in {job.folder}, is not here; put it there, or mount its folder under the same name")
    return {**fingerprint(place), "modified": planned["modified"]}


def differences(was: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Names of the entries that differ between two JSON values, with both values as text."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            yield from differences(was.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from differences(one, other, f"{name}.{number}")
    elif was != now:
        before, after = ("none" if value is None else str(value) for value in (was, now))
        yield name, before, after
