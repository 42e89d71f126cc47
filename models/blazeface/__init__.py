"""MediaPipe's BlazeFace, full range: faces and six keypoints anywhere in a picture."""

from .network import STRIDE as STRIDE
from .network import BlazeFace as BlazeFace
