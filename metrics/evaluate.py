"""Evaluates a restored clip frame by frame against the reference and the footage it was restored from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..motion.dis import DisFlow
from .fidelity import WINDOW, psnr, ssim_map, ssim_within
from .identity import Embed, alignment_of, identity_crop
from .landmarks import landmark_distance, landmark_motion_error
from .lpips import perceptual_distance
from .no_reference import Judge, score_region
from .registry import FACE
from .report import Report, summarised
from .residual import residual_rms
from .sharpness import laplacian_variance, tenengrad
from .temporal import PairMotion, flicker, pair_motion, warping_error

MotionFrom = Literal["auto", "reference", "observation", "restored"]


class Clip(Protocol):
    """A sequence of frames: clip[t] is (3, H, W) in [0, 1]. A tensor (T, 3, H, W) is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class FaceLandmarks:
    """Landmarks of one face in every frame.

    Attributes:
        restored: (T, K, 2) landmarks in the restored frames, in frame pixels, NaN where the face is not visible; K = 5 (left eye, right eye, nose,
            left and right mouth corner) also allows identity to be measured.
        reference: the same in the reference.
        found: whether they were detected independently in both clips, so that their distance is meaningful.
        scale: pixels of the aligned 512 crop per frame pixel; landmark distances are multiplied by it.
    """

    restored: Tensor
    reference: Tensor
    found: bool = True
    scale: float = 1.0


def evaluate(
    restored: Clip,
    reference: Clip | None = None,
    observation: Clip | None = None,
    *,
    degradation_forward: Callable[[Tensor], Tensor] | None = None,
    noise_level: float = 0.0,
    whole_clip: bool = False,
    region: Callable[[int], Tensor | None] | None = None,
    people: Sequence[FaceLandmarks] = (),
    perceptual: nn.Module | None = None,
    judges: Mapping[str, Judge] | None = None,
    embed: Embed | None = None,
    motion: MotionFrom = "auto",
    every: int = 1,
    cuts: Collection[int] = (),
    about: dict[str, Any] | None = None,
    on_frame: Callable[[int], None] = lambda done: None,
) -> Report:
    """Computes all measures that the inputs allow, with only a few frames in memory at a time.

    Args:
        restored: the result.
        reference: ground truth of the same length and size.
        observation: the footage, of the same length; of any size if no degradation is given.
        degradation_forward: A, maps frames (n, 3, H, W) of the restored size to the observation's, without noise.
        noise_level: standard deviation of the observation's noise, for frames in [0, 1]; 0 if none or unknown.
        whole_clip: whether A mixes frames and gets all of them at once; otherwise it gets one at a time.
        region: maps a frame index to its face mask (H, W) in [0, 1], None without a face; measures are then also computed on the face alone.
        people: landmarks, for landmark distances and identity; both need a reference.
        perceptual: LPIPS, from metrics.lpips.lpips_or_none.
        judges: no-reference scores by key, from metrics.no_reference.load_judge.
        embed: face embedding, from metrics.identity.load_arcface.
        motion: the clip from which optical flow is computed; "auto" uses the reference, else the observation, else the restored clip.
        every: interval in frames of LPIPS, no-reference scores, identity and motion-based measures.
        cuts: indices of the first frames of new shots; pairs across cuts are skipped.
        about: further entries of the report.
        on_frame: called with the number of frames just finished; may raise to stop.

    Raises:
        ValueError: if clips or the degradation do not match in size or length, or an option is out of range.
    """
    clips = {"reference": reference, "observation": observation, "restored": restored}
    walk = _Evaluation(
        clips, degradation_forward, noise_level, whole_clip, region, people, perceptual, judges or {}, embed, motion, every, frozenset(cuts)
    )
    for t in range(len(restored)):
        walk.step(t)
        on_frame(1)
    walk.measure_whole_residual()
    walk.measure_landmarks()
    size = f"{walk.size[1]} x {walk.size[0]}"
    info = {"frames": len(restored), "size": size, "motion_from": walk.motion, "every": every if every > 1 else None, **(about or {})}
    return Report(walk.per_frame, summarised(walk.per_frame), {name: value for name, value in info.items() if value is not None}, walk.notes())


@dataclass
class _Evaluation:
    """The inputs of `evaluate` and its state between frames. Raises ValueError as `evaluate`."""

    clips: Mapping[str, Clip | None]
    forward: Callable[[Tensor], Tensor] | None
    noise_level: float
    whole_clip: bool
    region: Callable[[int], Tensor | None] | None
    people: Sequence[FaceLandmarks]
    perceptual: nn.Module | None
    judges: Mapping[str, Judge]
    embed: Embed | None
    motion: str
    every: int
    cuts: frozenset[int]
    flow: DisFlow = field(default_factory=DisFlow)
    per_frame: dict[str, list[float | None]] = field(default_factory=dict)
    features: tuple[int, Any] | None = None
    before: tuple[Tensor, Tensor | None] | None = None
    before_face: Tensor | None = None
    hidden: int = 0
    last_identities: tuple[int, dict[int, Tensor]] = (-1, {})

    def __post_init__(self) -> None:
        restored, self.reference, self.observation = (self.clips[name] for name in ("restored", "reference", "observation"))
        assert restored is not None
        self.restored = restored
        if not len(restored):
            raise ValueError("there are no restored frames to measure; give at least one")
        for name, clip in self.clips.items():
            if clip is not None and len(clip) != len(restored):
                raise ValueError(f"the restored clip has {len(restored)} frames and the {name} {len(clip)}; give the same frames of both")
        self.size = h, w = restored[0].shape[-2], restored[0].shape[-1]
        if self.reference is not None and self.reference[0].shape != restored[0].shape:
            rh, rw = self.reference[0].shape[-2:]
            raise ValueError(f"the restored frames are {w} x {h} and the reference {rw} x {rh}; resize one of them, or measure where they agree")
        if self.forward is not None and self.observation is None:
            raise ValueError("a degradation was given without the observation it leads to; give the damaged frames too, or leave it out")
        if self.noise_level < 0:
            raise ValueError(f"a noise level is 0 or more, got {self.noise_level}; give the standard deviation for frames in [0, 1]")
        if self.every < 1:
            raise ValueError(f"every is 1 or more frames, got {self.every}; 1 measures all of them")
        if self.motion == "auto":
            self.motion = next(name for name, clip in self.clips.items() if clip is not None)
        elif self.motion not in self.clips:
            raise ValueError(f"motion is taken from auto, {', '.join(self.clips)}, got {self.motion!r}; choose one of these")
        elif self.clips[self.motion] is None:
            raise ValueError(f"the motion was to be taken from the {self.motion}, which is not given; give it, or choose auto")

    def step(self, t: int) -> None:
        """All measures of frame t and of its pair with the previous frame."""
        x = _frame(self.restored, t)
        truth = None if self.reference is None else _frame(self.reference, t)
        face = self.face(t, x)
        similar = None if truth is None or min(self.size) < WINDOW else ssim_map(x, truth)
        for suffix, part in (("", None), (FACE, face)):
            if not suffix or part is not None:
                self.measure_frame(t, suffix, x, truth, part, similar)
        if t and t not in self.cuts and t % self.every == 0:
            self.measure_pair(t, x, truth)
        if truth is not None and self.embed is not None and t % self.every == 0:
            self.measure_identity(t, x, truth)
        if self.forward is not None and not self.whole_clip:
            assert self.observation is not None
            self.measure_residual(t, self.forward(x), _frame(self.observation, t))
        self.before, self.before_face = (x, truth), face

    def measure_frame(self, t: int, suffix: str, x: Tensor, truth: Tensor | None, part: Tensor | None, similar: Tensor | None) -> None:
        """Measures of a single frame; `similar` is its SSIM map."""
        sharp = float(laplacian_variance(x, part))
        self.note(t, "sharpness" + suffix, sharp)
        self.note(t, "tenengrad" + suffix, float(tenengrad(x, part)))
        if t % self.every == 0:
            for key, judge in self.judges.items():
                self.note(t, key + suffix, score_region(judge, x, part))
        if truth is None:
            return
        self.note(t, "psnr" + suffix, float(psnr(x, truth, region=part)))
        if similar is not None:
            self.note(t, "ssim" + suffix, float(ssim_within(similar, part)))
        true_sharpness = float(laplacian_variance(truth, part))
        self.note(t, "sharpness_ratio" + suffix, sharp / true_sharpness if true_sharpness else math.nan)
        if self.perceptual is not None and t % self.every == 0:
            self.note(t, "lpips" + suffix, float(perceptual_distance(self.perceptual, x, truth, part)))

    def measure_pair(self, t: int, x: Tensor, truth: Tensor | None) -> None:
        """Measures of the pair t - 1, t, over pixels of the earlier frame."""
        assert self.before is not None
        first, first_truth = self.before
        pair = self.pair(t)
        self.hidden += not bool(pair.seen.any())
        truths = None if truth is None or first_truth is None else (first_truth, truth)
        for suffix, part in (("", None), (FACE, self.before_face)):
            if suffix and part is None:
                continue  # no face in the earlier frame
            error = warping_error(first, x, pair, part)
            self.note(t, "warping_error" + suffix, error.rgb_sum)
            self.note(t, "warping_error_per_value" + suffix, error.per_value)
            self.note(t, "warping_error_all" + suffix, error.over_all)
            self.note(t, "flicker" + suffix, flicker(first, x, pair, region=part))
            if truths is not None:
                self.note(t, "flicker_added" + suffix, flicker(first, x, pair, truths, part))

    def pair(self, t: int) -> PairMotion:
        """Motion of the pair t - 1, t."""
        known = self.features
        first = known[1] if known is not None and known[0] == t - 1 else self.flow.features(self.motion_frame(t - 1) * 2 - 1)
        second = self.flow.features(self.motion_frame(t) * 2 - 1)
        self.features = (t, second)
        return pair_motion(self.flow, first, second)

    def motion_frame(self, t: int) -> Tensor:
        """Frame t of the clip from which flow is computed, at the restored size."""
        clip = self.clips[self.motion]
        assert clip is not None
        frame = _frame(clip, t)
        return frame if frame.shape[-2:] == self.size else F.interpolate(frame, self.size, mode="bilinear", align_corners=False)

    def measure_identity(self, t: int, x: Tensor, truth: Tensor) -> None:
        """Identity similarity to the reference in frame t, and identity distance to frame t - 1; means over people."""
        earlier = self.identities(t - 1, self.before[0]) if self.before is not None and t not in self.cuts else {}
        now = self.identities(t, x)
        true = self.embed_faces(truth, {n: self.people[n].reference[t] for n in now})
        if true:
            here, there = (torch.stack([known[n] for n in true]) for known in (now, true))
            self.note(t, "identity", float((here * there).sum(-1).mean()))
        elif self.people:
            self.note(t, "identity", math.nan)
        if stayed := now.keys() & earlier.keys():
            apart = [F.normalize(now[n], dim=0) - F.normalize(earlier[n], dim=0) for n in stayed]
            self.note(t, "vidd", float(torch.stack(apart).norm(dim=1).mean()))

    def identities(self, t: int, x: Tensor) -> dict[int, Tensor]:
        """Embeddings in frame t of the restored clip by index in `people`; the last frame's are cached."""
        if self.last_identities[0] != t:
            self.last_identities = t, self.embed_faces(x, {n: person.restored[t] for n, person in enumerate(self.people)})
        return self.last_identities[1]

    def embed_faces(self, frame: Tensor, landmarks: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Embeddings in one frame of the people with valid landmarks."""
        assert self.embed is not None
        place = alignment_of(self.embed)
        found = {n: five for n, five in landmarks.items() if five.shape == (5, 2) and bool(five.isfinite().all())}
        crops = {n: identity_crop(frame[0], five, *place) for n, five in found.items()}
        return dict(zip(crops, self.embed(torch.stack([*crops.values()])), strict=True)) if crops else {}

    def measure_residual(self, t: int, ax: Tensor, y: Tensor) -> None:
        """Data residual of frame t."""
        rms = float(residual_rms(ax, y))
        self.note(t, "residual_rms", 255 * rms)
        self.note(t, "residual_psnr", 20 * math.log10(1 / rms) if rms else math.inf)
        if self.noise_level:
            self.note(t, "residual_in_noise", rms / self.noise_level)

    def measure_whole_residual(self) -> None:
        """Data residual under an operator that mixes frames."""
        if self.forward is None or not self.whole_clip:
            return
        assert self.observation is not None
        ax = self.forward(torch.cat([_frame(self.restored, t) for t in range(len(self.restored))]))
        if len(ax) != len(self.observation):
            raise ValueError(f"under the degradation {len(self.restored)} frames become {len(ax)}, but the observation has {len(self.observation)}")
        for t in range(len(ax)):
            self.measure_residual(t, ax[t : t + 1], _frame(self.observation, t))

    def measure_landmarks(self) -> None:
        """Landmark distances, averaged over people."""
        found = [person for person in self.people if person.found]
        if self.reference is None or not found:
            return
        distances = torch.stack([person.scale * landmark_distance(person.restored, person.reference) for person in found]).nanmean(0)
        errors = torch.stack([person.scale * landmark_motion_error(person.restored, person.reference) for person in found])
        errors[:, [cut for cut in self.cuts if 0 <= cut < errors.shape[1]]] = math.nan
        for key, values in (("akd", distances), ("tlme", errors.nanmean(0))):
            for t, value in enumerate(values.tolist()):
                self.note(t, key, value)

    def face(self, t: int, x: Tensor) -> Tensor | None:
        """Face mask of frame t, (1, 1, H, W); None without a face."""
        mask = None if self.region is None else self.region(t)
        if mask is None or not bool(mask.any()):
            return None
        if mask.shape != x.shape[-2:]:
            raise ValueError(f"the face's pixels in frame {t} are {tuple(mask.shape)} and the frame {tuple(x.shape[-2:])}; make them on its grid")
        return mask.float()[None, None]

    def note(self, t: int, key: str, value: float) -> None:
        """Stores a value of frame t; NaN as None."""
        self.per_frame.setdefault(key, [None] * len(self.restored))[t] = None if math.isnan(value) else value

    def notes(self) -> list[str]:
        """Sentences on measures that were left out, and why."""
        said = []
        count = len(self.restored)
        if "warping_error" not in self.per_frame:
            why = "the clip has one frame" if count < 2 else f"no pair of its {count} frames was chosen (every {self.every}) inside one shot"
            said.append(f"Flicker and warping error were left out: they compare neighbouring frames, and {why}.")
        if self.reference is not None and min(self.size) < WINDOW:
            said.append(f"SSIM was left out: its window is {WINDOW} x {WINDOW} pixels and the frames are {self.size[1]} x {self.size[0]}.")
        if self.motion == "restored" and count > 1:
            said.append(
                "The motion is the restored clip's own, so flicker and warping error cannot be compared between methods; give the footage too."
            )
        if self.hidden:
            said.append(f"{self.hidden} pairs of frames have no pixel that is visible in both; they count for nothing.")
        if self.region is not None and not any(key.endswith(FACE) for key in self.per_frame):
            said.append("No face was found, so nothing is measured on the face alone.")
        return said


def _frame(clip: Clip, t: int) -> Tensor:
    """Frame t as (1, 3, H, W) float32 on the CPU."""
    return clip[t][None].detach().to("cpu", torch.float32)
