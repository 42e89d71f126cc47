"""Degradation operators: A, its adjoint, its pseudo-inverse, their composition and their noise."""

from .base import Degradation
from .compose import Composition
from .crops import crop_operator, observation
from .fit import fit_degradation, shrink
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
from .nonlinear.jpeg import Jpeg
from .parser import degradation, parse
from .registry import KINDS, Kind
