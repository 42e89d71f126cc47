"""Degradation operators: A, its adjoint, its pseudo-inverse, their composition and their noise."""

from .average_pool import AveragePool
from .base import Degradation, Size
from .bicubic import BicubicDownsample
from .blur import Blur, MotionBlurPerFrame
from .camera import CameraNoise
from .compose import Composition, compose
from .crops import crop_operator, observation
from .fit import Fit, fit_degradation, shrink
from .grayscale import Grayscale
from .h264 import H264
from .identity import GaussianNoise, Identity
from .inpaint import BrushStrokes, Inpaint, RandomInpaint, brush_mask, random_mask
from .isp import Isp
from .jpeg import Jpeg, JpegCode
from .parser import degradation, parse
from .registry import KINDS, Kind, Parameter
from .temporal import TemporalBlur

__all__ = [
    "KINDS",
    "AveragePool",
    "BicubicDownsample",
    "Blur",
    "BrushStrokes",
    "CameraNoise",
    "Composition",
    "Degradation",
    "Fit",
    "GaussianNoise",
    "Grayscale",
    "H264",
    "Identity",
    "Inpaint",
    "Isp",
    "Jpeg",
    "JpegCode",
    "Kind",
    "Parameter",
    "MotionBlurPerFrame",
    "RandomInpaint",
    "Size",
    "TemporalBlur",
    "compose",
    "crop_operator",
    "degradation",
    "fit_degradation",
    "observation",
    "parse",
    "brush_mask",
    "random_mask",
    "shrink",
]
