"""Degradation operators: A, its adjoint, its pseudo-inverse, their composition and their noise."""

from .average_pool import AveragePool
from .base import Degradation, Size
from .bicubic import BicubicDownsample
from .blur import Blur
from .camera import CameraNoise
from .compose import Composition, compose
from .crops import crop_operator, observation
from .fit import Fit, fit_degradation, shrink
from .grayscale import Grayscale
from .h264 import H264
from .identity import GaussianNoise, Identity
from .inpaint import Inpaint, RandomInpaint, random_mask
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
    "RandomInpaint",
    "Size",
    "TemporalBlur",
    "compose",
    "crop_operator",
    "degradation",
    "fit_degradation",
    "observation",
    "parse",
    "random_mask",
    "shrink",
]
