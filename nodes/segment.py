"""A segment of a remote job, queued by `fvr restore --comfy`."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from .. import host
from ..assembly import named_weights, prior_files, restorer_files
from ..film.bundle import FOLDER, NODE, unpack
from ..film.job import Job, Tools
from ..film.segment import restore_segment
from ..headless.io import io, newer, ui
from ..job_request import worker_tools
from ..models.checkpoints.fetch import sha256_of
from ..plurals import counted
from ..video import choose_container
from .sockets import CATEGORY, check_text, optional

CACHE: dict[tuple[Path, str], Tools] = {}
"""The tools of the most recent job."""


class RestoreSegment(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id=NODE,
            display_name="Restore Segment",
            category=f"{CATEGORY}/restore",
            description="Restores one segment of a job that another machine has planned. The command fvr restore with --comfy queues it by itself.",
            search_aliases=["film job", "render farm", "distributed restoration", "remote worker"],
            is_output_node=True,
            **newer(is_dev_only=True),
            inputs=optional(
                io.String.Input("job", default="", tooltip="The plan that was uploaded, such as fvr-jobs/1234.zip [temp]."),
                io.String.Input("clip", default="", tooltip="The film in the input folder, to the byte the one that was planned."),
                io.Int.Input(
                    "segment",
                    default=-1,
                    min=-1,
                    max=1_000_000,
                    tooltip="Which one, counted from 0; -1 only says whether clip, weights and version are those of the plan.",
                ),
            ),
            outputs=[io.String.Output("text", tooltip="What was done. The file is in the temp folder, and its name in the history.")],
        )

    @classmethod
    def validate_inputs(cls, job="", clip=""):
        return check_text(host.resolve_input, job=job, clip=clip)

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        """Never cached: files in the temp folder may be gone, which is checked when the node runs."""
        return float("nan")

    @classmethod
    def execute(cls, job="", clip="", segment=-1):
        bundle = host.resolve_input(job)
        folder = host.temp_directory() / FOLDER / bundle.stem
        planned = unpack(bundle, folder, host.resolve_input(clip))
        choose_container(None, planned.plan["encoding"]["container"])
        if segment >= len(planned.segments):
            raise ValueError(f"{bundle.name} has segments 0 to {len(planned.segments) - 1}, got {segment}")
        host.free_memory(1 << 50)
        tools = tools_of(planned)
        if segment < 0:
            text = f"a job of {counted(len(planned.segments), 'segment')}, which can be restored here"
            return io.NodeOutput(text, ui={"text": (text,)})
        part = planned.segments[segment]
        for other in planned.parts.iterdir():  # segments restored earlier have been fetched
            if other.name.partition(".")[0] != part.name:
                other.unlink(missing_ok=True)
        with host.progress(len(part), f"segment {segment}") as tick:
            note = restore_segment(planned, part, tools, check_interrupt=host.check_interrupt, on_written=tick)
        file = planned.file(part)
        text = f"segment {segment}: {counted(note['frames'], 'frame')}, {note['bytes']:,} bytes"
        result = ui.SavedResult(file.name, f"{FOLDER}/{bundle.stem}/{planned.parts.name}", io.FolderType.temp)
        return io.NodeOutput(text, ui={"images": [result], "text": (text,), "report": (note,), "sha256": (sha256_of(file),)})


def tools_of(planned: Job) -> Tools:
    """The tools of a job, shared by all its segments."""
    key = (planned.folder, planned.plan["place"])
    if key not in CACHE:
        CACHE.clear()
        CACHE[key] = worker_tools(planned, weights_here)
    return CACHE[key]


def weights_here(text: str) -> Path | None:
    """As `named_weights`; for a path on another machine, the file of that name in the model folders.

    Raises:
        FileNotFoundError: if none exists.
    """
    if text == "none" or text.startswith("embedded"):
        return named_weights(text)
    wanted = PureWindowsPath(text).name  # accepts both slashes
    found = next((path for path in [*restorer_files().values(), *prior_files().values()] if path.name == wanted), None)
    if found is None:
        raise FileNotFoundError(f"the job's weights {wanted} are in none of the model folders; put them into models/face_video_restoration")
    return found
