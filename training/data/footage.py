"""Degradation of clips of moving faces: optics, sensor, scaler and codec, twice where a clip was shot and then uploaded.

The families are those of Real-ESRGAN (Wang et al., 2021, section 3), GFPGAN (2021, eq. 2) and of KEEP's and DicFace's video degradations, with
six real codecs on frames that move, so that predicted frames are damaged as predicted frames are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .codecs import CODECS, transcoded

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
KINDS = ("clean", "soft", "full")
UPLOADED = 0, 1, 0, 1, 0, 0, 0
"""`Footage.chances` of a clip that was only uploaded."""


@dataclass(frozen=True)
class Footage:
    """A family of video degradations; lengths are pixels of the 512 crop, intensities are of 0..255.

    Attributes:
        clean, soft: shares of clips that are hardly degraded, and that are only blurred: a restorer must handle both.
        scale: range of frame pixels per crop pixel, log-uniform.
        near: share of clips whose faces nearly fill their crop, as the main faces of footage do.
        blur: range of the standard deviation.
        shrink: range of the factor of a scaler before the codec, undone after it.
        noise: range of the standard deviation.
        uploaded: share of fully degraded clips that are only shrunk, coded and enlarged, as most footage is.
        chances: probabilities of blur, scaler, noise, codec, second generation, over-sharpening and interlacing in a fully degraded clip.
    """

    clean: float = 0.15
    soft: float = 0.15
    scale: tuple[float, float] = (0.2, 1.0)
    near: float = 0.65
    blur: tuple[float, float] = (0.4, 9.0)
    shrink: tuple[float, float] = (1.2, 4.0)
    noise: tuple[float, float] = (1.0, 18.0)
    uploaded: float = 0.25
    chances: tuple[float, float, float, float, float, float, float] = (0.45, 0.5, 0.45, 0.9, 0.2, 0.06, 0.03)

    def describe(self) -> str:
        """For model cards."""
        low, high = self.scale
        return (
            f"blur of many kinds up to {self.blur[1]:g} pixels of the crop, a camera's noise, scalers, over-sharpening, deinterlacing and "
            f"{', '.join(CODECS)}, once or twice, on faces set moving at {low:g} to {high:g} frame pixels per crop pixel; {self.clean:.0%} hardly "
            f"damaged, {self.soft:.0%} only blurred, {(1 - self.clean - self.soft) * self.uploaded:.0%} only made smaller and coded"
        )

    def kind(self, rng: np.random.Generator) -> str:
        """One of KINDS."""
        share = rng.random()
        return "clean" if share < self.clean else "soft" if share < self.clean + self.soft else "full"

    def frame_scale(self, rng: np.random.Generator) -> float:
        """Frame pixels per crop pixel of one clip."""
        return log_uniform(rng, (0.75 * self.scale[1], self.scale[1]) if rng.random() < self.near else self.scale)

    def damage(self, frames: np.ndarray, kind: str, scale: float, rng: np.random.Generator) -> np.ndarray:
        """Degrades a clip (T, H, W, 3) float32 RGB in [0, 255]: same shape and alignment, rounded.

        Args:
            scale: frame pixels per crop pixel.
        """
        matrix = "bt601" if rng.random() < 0.5 else "bt709"
        if kind == "clean":
            return transcoded(frames, "h264", rng.uniform(12, 20), matrix) if rng.random() < 0.5 else to_8_bit(frames, matrix, rng)
        if kind == "soft":
            frames = blurred(frames, log_uniform(rng, self.blur) * scale, rng)
            return transcoded(frames, "h264", rng.uniform(10, 18), matrix) if rng.random() < 0.25 else to_8_bit(frames, matrix, rng)
        blur, scaler, noise, codec, again, sharpen, interlace = rng.random(7) < (UPLOADED if rng.random() < self.uploaded else self.chances)
        height, width = frames.shape[1:3]
        if blur:
            frames = blurred(frames, log_uniform(rng, self.blur) * scale, rng)
        if noise and rng.random() < 0.4:  # of the sensor, before anything is scaled
            frames, noise = noisy(frames, log_uniform(rng, self.noise), rng), False
        if scaler:
            frames = resized(frames, max(16 / min(height, width), 1 / log_uniform(rng, self.shrink)), rng)
        if noise:
            frames = noisy(frames, log_uniform(rng, self.noise), rng)
        if sharpen:
            frames = sharpened(frames, rng)
        if interlace:
            frames = deinterlaced(frames, rng)
        frames = encoded(frames, matrix, rng) if codec else to_8_bit(frames, matrix, rng)
        if scaler:
            filter = str(rng.choice(("linear", "cubic", "cubic", "lanczos", "area", "nearest"), p=(0.3, 0.25, 0.2, 0.15, 0.07, 0.03)))
            frames = resized_to(frames, height, width, filter)
        if again:
            if rng.random() < 0.5:
                small = resized(frames, max(16 / min(height, width), 1 / log_uniform(rng, (1.1, 2.0))), rng)
                return resized_to(encoded(small, matrix, rng), height, width, "cubic")
            frames = encoded(frames, matrix, rng)
        return np.clip(np.round(frames), 0, 255)


def encoded(frames: np.ndarray, matrix: str, rng: np.random.Generator) -> np.ndarray:
    """Encoded and decoded by a codec of CODECS, at a quality drawn between its limits."""
    codec = str(rng.choice(list(CODECS), p=(0.5, 0.14, 0.12, 0.1, 0.07, 0.07)))
    low, high = CODECS[codec][2]
    options = {}
    if codec == "h264":
        options = {"preset": str(rng.choice(("veryfast", "medium", "medium"))), "profile": "baseline" if rng.random() < 0.1 else "high"}
    elif codec == "h265":
        options = {"preset": "veryfast"}
    elif codec in ("mpeg2", "mpeg4"):
        options = {"bf": str(int(rng.integers(0, 3))), "g": "12"}
    return transcoded(np.clip(frames, 0, 255), codec, low + (high - low) * rng.beta(1.6, 2.2), matrix, options)


def to_8_bit(frames: np.ndarray, matrix: str, rng: np.random.Generator) -> np.ndarray:
    """Rounded to 8 bits, of RGB or of 4:2:0 YCbCr, in equal shares."""
    return transcoded(frames, None, 0, matrix) if rng.random() < 0.5 else np.clip(np.round(frames), 0, 255)


def blurred(frames: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Convolves a clip with one kernel: isotropic or anisotropic Gaussian, generalised Gaussian or plateau, a defocus disc, or linear motion."""
    kernel = blur_kernel(max(sigma, 0.05), rng)
    return frames if kernel.shape == (1, 1) else np.stack([cv2.filter2D(frame, -1, kernel, borderType=cv2.BORDER_REFLECT_101) for frame in frames])


def blur_kernel(sigma: float, rng: np.random.Generator) -> np.ndarray:
    """(k, k) float32, odd, summing to 1, of about this standard deviation along its longer axis."""
    kind = rng.choice(("gaussian", "generalised", "plateau", "disc", "motion"), p=(0.6, 0.12, 0.08, 0.12, 0.08))
    radius = max(1, min(int(np.ceil(3.2 * sigma)), 40))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    other = sigma if rng.random() < 0.6 else sigma * rng.uniform(0.3, 1)
    square = (along / sigma) ** 2 + (across / other) ** 2
    if kind == "gaussian":
        kernel = np.exp(-square / 2)
    elif kind == "generalised":
        kernel = np.exp(-(square ** rng.uniform(0.5, 2.0)) / 2)
    elif kind == "plateau":
        kernel = 1 / (1 + square ** rng.uniform(1.0, 2.5))
    elif kind == "disc":  # of radius 2 sigma, its edge one pixel soft
        kernel = np.clip(2 * sigma + 0.5 - np.hypot(x, y), 0, 1)
    else:
        kernel = np.clip(np.sqrt(3) * sigma + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def noisy(frames: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Adds independent noise to every frame: of constant or signal-dependent strength, colour or grey, white or with the width of film grain."""
    shape = frames.shape if rng.random() < 0.7 else (*frames.shape[:3], 1)
    noise = rng.standard_normal(shape, np.float32)
    if rng.random() < 0.35:
        width = rng.uniform(0.35, 1.2)
        noise = np.stack([cv2.GaussianBlur(each, (0, 0), width).reshape(shape[1:]) for each in noise])
        noise /= max(float(noise.std()), 1e-6)
    if rng.random() < 0.15:
        noise[:] = np.sqrt(0.6) * noise + np.sqrt(0.4) * noise[:1]  # a fixed pattern
    if rng.random() < 0.4:
        noise = noise * np.sqrt(np.maximum(frames, 0) / 128 * rng.uniform(0.5, 1.2) + rng.uniform(0.02, 0.4))
    return np.clip(frames + level * noise, 0, 255)


def sharpened(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An unsharp mask as television sets and phones apply it."""
    width, amount = rng.uniform(0.7, 2.5), rng.uniform(0.3, 1.5)
    return np.stack([np.clip(frame + amount * (frame - cv2.GaussianBlur(frame, (0, 0), width)), 0, 255) for frame in frames])


def deinterlaced(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Interlacing artefacts: every other line interpolated from its neighbours, or combed with the next frame's."""
    out = frames.copy()
    if rng.random() < 0.7:
        out[:, 1:-1:2] = (frames[:, :-2:2] + frames[:, 2::2][:, : len(frames[0, 1:-1:2])]) / 2
    else:
        out[:-1, 1::2] = frames[1:, 1::2]
    return out


def resized(frames: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Resizes by `factor` < 1 to even sides, by one of the usual filters."""
    height, width = (max(8, round(side * factor / 2) * 2) for side in frames.shape[1:3])
    return resized_to(frames, height, width, str(rng.choice(("area", "linear", "cubic", "lanczos"), p=(0.5, 0.25, 0.15, 0.1))))


def resized_to(frames: np.ndarray, height: int, width: int, filter: str) -> np.ndarray:
    """(T, height, width, 3), sampled about the middles of pixels."""
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([np.clip(cv2.resize(frame, (width, height), interpolation=INTERPOLATIONS[filter]), 0, 255) for frame in frames])


def log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """A log-uniform draw between two limits."""
    return float(np.exp(rng.uniform(*np.log(limits))))
