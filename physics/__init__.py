"""Degradation operators: A, its adjoint, its pseudo-inverse, their composition and their noise."""

from .base import Degradation, Size
from .compose import Composition, compose
from .crops import crop_operator, observation
from .fit import Fit, fit_degradation, shrink
from .identity import GaussianNoise, Identity
from .linear.average_pool import AveragePool
from .linear.bicubic import BicubicDownsample
from .linear.blur import Blur, MotionBlurPerFrame
from .linear.grayscale import Grayscale
from .linear.inpaint import BrushStrokes, Inpaint, RandomInpaint, brush_mask, random_mask
from .linear.temporal import TemporalBlur
from .nonlinear.camera import CameraNoise
from .nonlinear.h264 import H264
from .nonlinear.isp import Isp
from .nonlinear.jpeg import Jpeg, JpegCode
from .parser import degradation, parse
from .registry import KINDS, Kind, Parameter

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
