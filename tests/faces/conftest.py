from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fvr.faces import Face, FaceTrack, aligned_track, load_detector
from fvr.faces.geometry import landmarks_in_box

CLIPS = Path(__file__).resolve().parents[2] / ".." / "shared" / "clips"


@pytest.fixture(autouse=True)
def threads(one_thread: None) -> None:
    """One."""


@pytest.fixture
def read_clip() -> Callable[..., Tensor]:
    """Frames (n, 3, H, W) of a sample clip, every `step`-th, upright."""

    def read(name: str, step: int, count: int) -> Tensor:
        path = CLIPS / name
        if not path.is_file():
            pytest.skip(f"sample clip {name} is not beside the repository")
        av = pytest.importorskip("av")
        frames = []
        with av.open(str(path)) as container:
            for k, frame in enumerate(container.decode(video=0)):
                if k % step == 0:
                    frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
                if len(frames) == count:
                    break
        video = torch.stack(frames).permute(0, 3, 1, 2).float() / 255
        return video.rot90(-1, (2, 3)).contiguous() if "rotation90" in name else video

    return read


@pytest.fixture
def texture() -> Callable[..., Tensor]:
    """A picture (3, H, W) in [0, 1] whose detail fades towards the Nyquist limit as a camera's does."""

    def make(height: int, width: int, seed: int = 0, blur: float = 1.0) -> Tensor:
        noise = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
        fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
        falloff = torch.exp(-2 * (torch.pi * blur) ** 2 * (fy**2 + fx**2)) / (0.01 + (fy**2 + fx**2).sqrt())
        picture = torch.fft.irfft2(torch.fft.rfft2(noise) * falloff, s=(height, width))
        return (0.5 + 0.15 * picture / picture.std()).clamp(0, 1)

    return make


@pytest.fixture
def track_of() -> Callable[..., FaceTrack]:
    """A track of `count` frames with the crop scaled by `scale`, turned a little, moving by `drift` pixels a frame."""

    def make(count: int, frame_size: tuple[int, int], scale: float, *, centre=None, drift: float = 0.7, start: int = 0, **changes) -> FaceTrack:
        from dataclasses import replace

        height, width = frame_size
        x, y = centre or (width / 2, height / 2)
        turn = 0.12
        linear = scale * torch.tensor([[1.0, -turn], [turn, 1.0]]) / (1 + turn**2) ** 0.5
        places = torch.tensor([[x + drift * k, y] for k in range(count)])
        shift = 255.5 - places @ linear.mT
        matrices = torch.cat([linear.expand(count, 2, 2), shift[..., None]], -1)
        half = 130 / scale
        boxes = torch.cat([places - half, places + half], 1)
        changes = {"shot": (start, start + count), "boxes": boxes, "landmarks": landmarks_in_box(boxes), **changes}
        return replace(aligned_track(count), start=start, matrices=matrices, frame_size=frame_size, **changes)

    return make


@pytest.fixture
def face_at() -> Callable[..., Face]:
    def make(x: float, y: float, size: float, score: float = 0.99) -> Face:
        box = torch.tensor([x - size / 2, y - size * 0.65, x + size / 2, y + size * 0.65])
        return Face(box, landmarks_in_box(box), score)

    return make


@pytest.fixture(scope="session")
def detector():
    return load_detector("blazeface")
