"""Crops edited by another model, as face clips that can be pasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from ..types import CROP, FaceClip


def edited_faces(
    clips: Sequence[FaceClip], edited: Tensor, *, decoded: Tensor | None = None, mask: Tensor | None = None, strength: float = 1.0
) -> list[FaceClip]:
    """The clips with c + w (e - c) for each crop c and its edit e; with `decoded` crops d, c + w (e - d), to be pasted as a difference.

    d is c encoded and decoded without the edit, so that the autoencoder's own error cancels: where e = d the frame does not change at all.
    w is the mask times the strength.

    Args:
        clips: people in the order of `edited`, each with all of its crops.
        edited, decoded: (N, 3, side, side) in [0, 1], of any side; resized to 512.
        mask: (N or 1, 1, h, w) in [0, 1] over the crops, of any size.

    Raises:
        ValueError: if the number of crops does not match the clips, crops are not square, or strength is outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is 0 to 1, got {strength}")
    count = sum(len(clip.crops) for clip in clips)
    answers = [as_crops(edited, clips, count, "edited")]
    if decoded is not None:
        answers.append(as_crops(decoded, clips, count, "decoded"))
    if mask is not None and len(mask) not in (1, count):
        raise ValueError(f"{len(mask)} masks came for {count} crops; give one for all, or one per crop")
    done, first = [], 0
    for clip in clips:
        here = slice(first, first + len(clip.crops))
        first = here.stop
        crops = clip.crops.float()
        before = answers[1][here] if decoded is not None else crops
        weight = strength if mask is None else strength * F.interpolate(mask if len(mask) == 1 else mask[here], (CROP, CROP), mode="bilinear")
        changed = crops + weight * (answers[0][here] - before)
        track = replace(clip.track, difference=decoded is not None, repainted=False)
        done.append(FaceClip(track, changed.clamp(0, 1), clip.note))
    return done


def as_crops(batch: Tensor, clips: Sequence[FaceClip], count: int, name: str) -> Tensor:
    """The batch resized to 512 x 512 with antialiasing; ValueError if it does not have `count` square crops."""
    height, width = batch.shape[-2:]
    if len(batch) != count:
        people = ", ".join(f"person {clip.track.person}: {len(clip.crops)}" for clip in clips)
        raise ValueError(
            f"{len(batch)} {name} crops came for faces that have {count} ({people}); give every crop of Face Align back, in its order, and no more"
        )
    if height != width:
        raise ValueError(f"{name} crops of {width} x {height} came, and those of Face Align are square; scale them, but do not cut or stretch them")
    if height == CROP:
        return batch.float()
    return F.interpolate(batch.float(), (CROP, CROP), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
