"""A job's plan as one small zip file, for workers that do not see its folder."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from ..atomic import write_bytes
from .job import Job

NODE = "FVRRestoreSegment"
"""The node that restores a segment of it."""
FOLDER = "fvr-jobs"
"""Below a ComfyUI's input and temp folders."""
FILES = ("times.npy", "tracks.safetensors", "job.json")
"""In the order in which they are written: a plan is whole if the last one is there."""


def pack(job: Job) -> bytes:
    """The bundle's bytes; equal plans give equal bytes."""
    file = BytesIO()
    with ZipFile(file, "w") as bundle:
        for name in FILES:
            bundle.writestr(ZipInfo(name), (job.folder / name).read_bytes(), ZIP_DEFLATED)
    return file.getvalue()


def unpack(bundle: Path, folder: Path, clip: Path) -> Job:
    """Unpacks a bundle into a job's folder and sets the clip's path on this machine. Raises ValueError if the file is not a bundle."""
    (folder / "segments").mkdir(parents=True, exist_ok=True)
    if not (folder / "job.json").exists():
        try:
            with ZipFile(bundle) as file:
                for name in FILES:
                    write_bytes(folder / name, file.read(name))
        except (BadZipFile, KeyError) as error:
            raise ValueError(f"{bundle} holds no plan of a job; `fvr restore --comfy` makes and uploads one") from error
    return Job(folder, {**Job.load(folder).plan, "place": str(clip)})
