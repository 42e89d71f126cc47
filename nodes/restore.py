"""Restore Video: a clip in constant memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import host
from ..assembly import AUTO, chosen_detector, chosen_paster, fingerprint, fingerprints
from ..faces import check_selection
from ..headless.io import io
from ..pipeline import restore_aligned, restore_clip_in_frames
from ..record import job_identity, run_record
from ..video import choose_container, default_suffix
from .faces import (
    detector_fingerprints,
    detector_input,
    gate_inputs,
    grain_input,
    identity_of,
    like_input,
    pasting_inputs,
    picture_fingerprints,
    resolve_faces,
    scale_inputs,
    selection_inputs,
    upscaler_of,
)
from .page.before_after import Watched, film_slider
from .restorers import load_restorer, restorer_file
from .sockets import ABSENT, CATEGORY, RestorerSocket, advanced, check_text, first_fault, optional, seed_input
from .video import (
    check_file,
    check_output,
    deinterlace_input,
    encoding_inputs,
    file_input,
    next_number,
    range_inputs,
    show_warnings,
    sink_for,
    source_of,
    video_preview,
)


class RestoreVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FVRRestoreVideo",
            display_name="Restore Video",
            category=f"{CATEGORY}/restore",
            description="Finds, restores and pastes the faces of a clip of any length without holding it in memory. "
            "Keeps size, timing, rotation, colours and sound.",
            search_aliases=[
                "long video",
                "video face restoration",
                "face restoration",
                "restore old video",
                "old film",
                "batch restore",
                "video upscale face",
                "upscale faces",
                "face upscale",
                "enhance video faces",
                "face enhancement",
                "fix faces",
                "sharpen faces",
                "denoise video",
                "blurry video faces",
                "low quality video",
                "codeformer",
                "gfpgan",
            ],
            is_output_node=True,
            inputs=[
                *optional(file_input()),
                RestorerSocket.Input(
                    "restorer",
                    optional=True,
                    tooltip="From Load Face Restorer, FLAIR Restorer or any other. Without one: auto, as in Load Face Restorer.",
                ),
                *optional(
                    *advanced([seed_input()], "seed"),
                    io.Boolean.Input(
                        "aligned",
                        default=False,
                        tooltip="Frames are already aligned crops of one person: no detection, no pasting; gives 512 x 512.",
                        advanced=True,
                    ),
                    *advanced([detector_input()], "detector"),
                    *advanced(selection_inputs(), "min_size"),
                    *advanced(pasting_inputs(), "feather", "colour_match", "fade"),
                    *advanced(range_inputs(), "start_frame", "every_nth"),
                    io.String.Input(
                        "filename_prefix", default="video/restored", tooltip="Where the file goes in the output folder; a number is added."
                    ),
                    *advanced(encoding_inputs(), "codec", "crf"),
                    grain_input(),
                    deinterlace_input(),
                    io.String.Input(
                        "job",
                        default="",
                        tooltip="A name keeps the work in a folder of that name in the output folder, segment by segment: queue again, and it goes "
                        "on where it stopped. Empty restores in one go.",
                        advanced=True,
                    ),
                    *scale_inputs(),
                    *gate_inputs(),
                ),
                io.Video.Input("video", optional=True, tooltip="A clip from another node, instead of the file."),
                like_input(),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The restored clip."),
                io.String.Output("report", tooltip="How many people and frames, and why frames pass through."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file=ABSENT, video=ABSENT, filename_prefix="video/restored", codec="h264", crf=17, pixel_format="auto", job=""):
        encoding = codec, crf, pixel_format
        named = check_text(job=job), not job or check_output(job, *encoding)
        return first_fault(check_file(file, video), *named, check_output(filename_prefix, *encoding))

    @classmethod
    def fingerprint_inputs(cls, file=None, detector=None, aligned=False, faces=None, restorer=ABSENT, **others):
        found = [] if aligned else [*detector_fingerprints(detector), *picture_fingerprints(faces), *fingerprints("parsenet")]
        return [host.file_fingerprint(file), *found, *([fingerprint(restorer_file(AUTO))] if restorer is ABSENT else [])]

    @classmethod
    def execute(
        cls,
        restorer=None,
        file=None,
        seed=0,
        aligned=False,
        detector="auto",
        faces="all",
        min_size=0,
        start_frame=0,
        max_frames=0,
        every_nth=1,
        filename_prefix="video/restored",
        codec="h264",
        crf=17,
        pixel_format="auto",
        deinterlace="auto",
        job="",
        upscale_model=None,
        video=None,
        like=None,
        **pasting,
    ):
        check_selection(faces)
        restorer = load_restorer(AUTO)[0] if restorer is None else restorer
        known, whom = identity_of(like), faces if aligned else resolve_faces(faces)
        frames = dict(start=start_frame, count=max_frames or None, stride=every_nth, deinterlace=deinterlace)
        source, sound = source_of(file, video, **frames)
        finder, paster, finding = None, None, None
        if not aligned:
            finder, paster = chosen_detector(detector), chosen_paster(upscaler=upscaler_of(upscale_model), **pasting)
            finding = {"faces": faces, "min_size": min_size}
        elif (scale := pasting.get("scale", 1)) != 1 or upscale_model is not None:
            raise ValueError(f"aligned frames come out at 512 x 512, and scale is {scale}; set it to 1 and wire no upscale model")
        encoding = dict(codec=codec, crf=crf, pixel_format=pixel_format)
        if job and aligned:
            raise ValueError("aligned frames are one shot of one person, which no job divides; leave job empty")
        if job and known is not None:
            raise ValueError(
                "a job chooses people by their numbers, and got a picture in like; leave one of the two empty (fvr faces shows the numbers)"
            )
        tools, settings = (restorer, finder, paster), dict(seed=seed, faces=whom, min_size=min_size)
        if job:
            summary, path, subfolder, compared = cls.as_job(job, source, tools, settings, frames, encoding, filename_prefix)
        else:
            summary, path, subfolder, compared = cls.in_one_go(source, sound, tools, settings, known, encoding, filename_prefix)
        text, preview = summary.to_text(), video_preview(path, subfolder)
        record = run_record(
            summary,
            restorer,
            command="Restore Video (node FVRRestoreVideo)",
            clips={"input": file if video is None else "a wired VIDEO", "output": "/".join(filter(None, (subfolder, path.name)))},
            seed=seed,
            frames=frames,
            encoding=encoding,
            finding=finding,
            detector=finder,
            paster=paster,
        )
        return io.NodeOutput(host.video_from_file(path), text, ui={**preview.as_dict(), **compared, "text": (text,), "report": (record,)})

    @classmethod
    def in_one_go(cls, source, sound, tools, settings, like, encoding, filename_prefix):
        """Restores into a new file: (summary, path, subfolder of the output folder, `ui` entries of before and after).

        tools: (restorer, detector, paster); the last two None for aligned frames.
        """
        restorer, finder, paster = tools
        size = (512, 512) if paster is None else paster.size(source.info.height, source.info.width)
        total = source.expected or 0
        sink, subfolder = sink_for(filename_prefix, source.info, size=size, audio=sound, metadata=host.graph_tags(cls.hidden), **encoding)
        with sink, host.progress(total if finder is None else 2 * total, "restore") as tick:
            show_warnings(source, sink)
            watched = Watched(total, tick)
            seen, written = watched.source(source), watched.sink(sink)
            common: dict[str, Any] = dict(check_interrupt=host.check_interrupt, on_written=watched.on_written)
            if finder is None:
                summary = restore_aligned(seen, written, restorer, seed=settings["seed"], **common)
            else:
                common |= dict(like=like, on_found=watched.on_found, on_people=watched.on_people)
                summary = restore_clip_in_frames(seen, written, restorer, finder, paster=paster, **settings, **common)
        return summary.closed(source, sink), Path(str(sink.path)), subfolder, watched.ui(cls)

    @classmethod
    def as_job(cls, job, source, tools, settings, frames, encoding, filename_prefix):
        """As `in_one_go`, by a resumable job in the output folder."""
        from ..film.job import Tools
        from ..film.run import run_job

        restorer, finder, paster = tools
        if source.info.path is None:
            raise ValueError(
                "a job opens its clip's file again and again, and the wired VIDEO is in memory; save it and choose that, or leave job empty"
            )
        if source.selection.window is not None:
            raise ValueError("a job needs the whole file of a clip, got a trimmed one; leave job empty, or use start_frame and max_frames")
        path, subfolder, _ = host.next_output_path(
            filename_prefix, default_suffix(encoding["codec"]), width=source.info.width, height=source.info.height
        )
        root = path.resolve().parents[len(Path(subfolder).parts)]
        chosen = None if encoding["pixel_format"] == "auto" else encoding["pixel_format"]
        planning = dict(
            identity=job_identity(settings, restorer, finder, paster),
            request={"by": "Restore Video"},
            selection={**frames, "rate": "25"},
            encoding={**encoding, "pixel_format": chosen, "container": choose_container(path, None)},
            **settings,
        )
        joining = dict(otherwise=next_number, metadata=host.graph_tags(cls.hidden))
        with host.progress(2 * (source.expected or 0), "restore") as tick:
            watched = Watched(source.expected or 0, tick)
            summary, path = run_job(
                host.output_folder(job),
                source,
                Tools(restorer, finder, paster, watched.on_frames),
                path,
                planning=planning,
                joining=joining,
                say=host.say,
                check_interrupt=host.check_interrupt,
                finds=watched.finds,
                on_planned=watched.on_planned,
                on_written=watched.on_written,
            )
        folder = path.parent.relative_to(root) if path.is_relative_to(root) else Path(subfolder)  # a film joined earlier stays where it is
        subfolder = "" if folder == Path() else folder.as_posix()
        return summary, path, subfolder, film_slider(cls, host.output_folder(job), path)
