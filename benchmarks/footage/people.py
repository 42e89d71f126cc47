"""How well one person is told from others on other days: distances of the embedding between two photographs of each of a hundred people.

    OMP_NUM_THREADS=1 python benchmarks/footage/people.py FACES CLIPS

FACES: aligned portraits with a manifest.csv (`file,split,source,identity_key`), CLIPS: a folder of clips. A last name with one official portrait
and one photograph of the voteview project is one person, less NAMESAKES (by the project's list of members), and less pairs that show one
photograph twice (their aligned faces correlate above ALIKE). Faces are found and placed as in a run, one or both photographs after damage. Casts of
ten people, each with both photographs as tracks, are named as the tracks of a film are, and each is looked for by the first photograph. Clips are
cut in pieces, and pieces of one clip compared to those of others.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from gates import damaged
from torch import Tensor

from fvr.faces import FaceTrack, aligned_track, find_tracks, load_detector
from fvr.faces.geometry import area, side
from fvr.faces.tracking.people import OTHER_PERSON_DISTANCE, SAME, Embed, Identity, assign_people, embedding_crop, identity_of, load_embedder
from fvr.faces.tracking.selection import tracks_like
from fvr.plots import decode_image
from fvr.video import open_source, read_frames

NAMESAKES = {"abraham", "brooks", "bush", "collins", "cox", "hutchinson", "king", "long", "neal", "price", "turner"}
ALIKE = 0.8
ONE_PERSON = ({"clean_face_480_tone", "edge_vfr_30_15fps"},)
"""Clips of one recording."""
PIECE, PIECES = 12, 4
CASTS, CAST = 200, 10


def resized(picture: Tensor, size: int) -> Tensor:
    return F.interpolate(picture[None], (size, size), mode="area" if size < picture.shape[-1] else "bicubic")[0].clamp(0, 1)


DAMAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda p: p,
    "noise and JPEG": lambda p: damaged(p[None])[0],
    "blur of 3 % of the face": lambda p: damaged(p[None], 0.03 * 150)[0],
    "blur of 4.5 % of the face": lambda p: damaged(p[None], 0.045 * 150)[0],
    "blur of 6 % of the face": lambda p: damaged(p[None], 0.06 * 150)[0],
    "face of 48 px, noise and JPEG": lambda p: damaged(resized(p, 82)[None])[0],
    "face of 48 px, blur of 3 %": lambda p: damaged(resized(p, 82)[None], 0.03 * 48)[0],
    "face of 24 px, noise and JPEG": lambda p: damaged(resized(p, 41)[None])[0],
    "dark, noise and JPEG": lambda p: damaged((0.5 * p**1.8)[None])[0],
    "grey": lambda p: p.mean(0, keepdim=True).expand_as(p),
    "mirrored": lambda p: p.flip(-1),
}
HARD = tuple(label for label in DAMAGE if "blur" in label or "px" in label)
"""What also both photographs are damaged by: it takes away what the embedding needs."""


def picture(row: dict[str, str], folder: Path) -> Tensor:
    return decode_image((folder / row["split"] / row["file"]).read_bytes())


def one_photograph(a: Tensor, b: Tensor) -> bool:
    """Whether two aligned portraits are the same photograph, a little shifted."""
    small = [F.interpolate(p.mean(0)[None, None, 70:230, 55:200], (80, 72), mode="area")[0, 0].numpy() for p in (a, b)]
    return float(cv2.matchTemplate(small[0], np.ascontiguousarray(small[1][4:-4, 4:-4]), cv2.TM_CCOEFF_NORMED).max()) > ALIKE


def pairs(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Two photographs of each person."""
    rows: dict[str, list[dict[str, str]]] = {}
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["identity_key"], []).append(row)
    found = []
    for key, (a, *more) in sorted(rows.items()):
        if len(more) == 1 and key not in NAMESAKES and (a["source"] == "voteview") != (more[0]["source"] == "voteview"):
            both = picture(a, folder), picture(more[0], folder)
            found += [both] if not one_photograph(*both) else []
    return found


def looks(pictures: Sequence[Tensor], embed: Embed) -> list[Identity | None]:
    """The look of each picture's largest face; None where none is found."""
    detector, found = load_detector("blazeface"), list[Identity | None]()
    for one in pictures:
        face = max(detector(one[None])[0], key=lambda f: float(area(f.box)), default=None)
        shown = None if face is None else embedding_crop(one, face.landmarks)[None]
        found.append(None if face is None or shown is None else identity_of(shown, embed(shown), float(side(face.box[None]))))
    return found


def auc(same: Tensor, others: Tensor) -> float:
    """The chance that a distance of `same` is smaller than one of `others`."""
    ranks = torch.searchsorted(others.sort().values, same.contiguous())
    return 1 - float(ranks.float().mean()) / len(others)


def row(label: str, same: Tensor, others: Tensor, more: str = "") -> None:
    unsure = int(((same >= SAME) & (same < OTHER_PERSON_DISTANCE)).sum())
    wrong, doubtful = int((others < SAME).sum()), int(((others >= SAME) & (others < OTHER_PERSON_DISTANCE)).sum())
    cells = [label, len(same), f"{same.median():.2f} ({same.max():.2f})", int((same < SAME).sum()), unsure, f"{len(others):,}", wrong, doubtful]
    print(f"| {' | '.join(map(str, cells))} | {auc(same, others):.4f} |{more}", flush=True)


def track_of(number: int, look: Identity) -> FaceTrack:
    """A track of one frame."""
    box = torch.tensor([[0.0, 0.0, look.size, look.size]])
    return replace(aligned_track(1), start=number, shot=(number, number + 1), boxes=box, embedding=look.embedding, clarity=look.clarity)


def casts(both: Sequence[tuple[Identity, Identity]]) -> str:
    """Of the people in CASTS casts of CAST, each seen twice: how many are tied to another; how many stay two, and those of whom neither is called
    unsure; how many are one, and yet called unsure; and whether the first look chooses among the second ones this person, others or nobody."""
    generator = torch.Generator().manual_seed(0)
    false, split, silent, one, needless, chosen = 0, 0, 0, 0, 0, [0, 0, 0]
    for _ in range(CASTS):
        who = [both[k] for k in torch.randperm(len(both), generator=generator)[:CAST].tolist()]
        tracks = assign_people([track_of(k, look) for k, look in enumerate(look for pair in who for look in pair)])
        people = [track.person for track in tracks]
        false += len({p for k, p in enumerate(people) for q in range(len(people)) if q // 2 != k // 2 and people[q] == p})
        for a, b in zip(tracks[::2], tracks[1::2], strict=True):
            apart, unsure = a.person != b.person, a.unsure or b.unsure
            split, silent, one, needless = split + apart, silent + (apart and not unsure), one + (not apart), needless + (not apart and unsure)
        shown = [replace(track_of(n, look), person=n) for n, (_, look) in enumerate(who)]
        for k, (first, _) in enumerate(who):
            try:
                chosen[{track.person for track in tracks_like(shown, first)} != {k}] += 1
            except ValueError:
                chosen[2] += 1
    return f" {false} | {split} ({silent}) | {one} ({needless}) | {', '.join(map(str, chosen))} |"


def pieces(folder: Path, damage: Callable[[Tensor], Tensor] = lambda frames: frames) -> list[tuple[str, int, FaceTrack]]:
    """Tracks of PIECES pieces of each clip with the clip's name and the piece's number."""
    found = []
    for path in sorted(folder.glob("*.mp4")):
        total = open_source(path).expected or 0
        for k in range(PIECES):
            start = k * max(total - PIECE, 0) // (PIECES - 1)
            frames = read_frames(path, start=start, count=PIECE)[0]
            tracks = find_tracks([(0, damage(frames))], load_detector("blazeface"))
            # two people of one clip keep their sides
            found += [(f"{path.stem} {n}", k, t) for n, t in enumerate(sorted(tracks, key=lambda t: float(t.boxes[0, 0])))]
    return [(name, k, track) for name, k, track in found if track.embedding is not None]


def recording(name: str) -> str:
    return next((min(names) for names in ONE_PERSON if name.split(" ")[0] in names), name)


def compare_clips(label: str, first: Sequence[tuple[str, int, FaceTrack]], second: Sequence[tuple[str, int, FaceTrack]]) -> None:
    same, others = [], []
    for name, k, a in first:
        for other, j, b in second:
            if k != j and a.embedding is not None and b.embedding is not None:
                (same if recording(name) == recording(other) else others).append(float((a.embedding - b.embedding).norm()))
    row(label, torch.tensor(same), torch.tensor(others))


def main(faces: Path, clips: Path) -> None:
    torch.set_num_threads(1)
    embed = load_embedder()
    assert embed is not None
    people = pairs(faces)
    clear = looks([a for a, _ in people], embed)
    head = "| damage | pairs | distance, median (most) | tied | unsure | pairs of others | tied wrongly | unsure | AUC |"
    print(f"{len(people)} people\n{head} casts: tied to another | two (silently) | one (called unsure) | by picture: right, wrong, nobody |")
    print(f"|{' --- |' * 13}")
    for label, damage in DAMAGE.items():
        second = looks([damage(b) for _, b in people], embed)
        for which in ("one", "both") if label in HARD else ("one",):
            first = clear if which == "one" else looks([damage(a) for a, _ in people], embed)
            both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
            a, b = (torch.stack([look.embedding for look in some]) for some in zip(*both, strict=True))
            far = torch.cdist(a, b)
            row(f"{label} ({which})", far.diagonal(), far[~torch.eye(len(far), dtype=torch.bool)], casts(both))
    print(f"\n{head}\n|{' --- |' * 9}")
    clean = pieces(clips)
    compare_clips("another piece of the clip", clean, clean)
    compare_clips("the same, noise and JPEG", clean, pieces(clips, damaged))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
