"""MediaPipe's FaceMesh: 468 points on a face."""

from .network import SIDE as SIDE
from .network import FaceMesh as FaceMesh
