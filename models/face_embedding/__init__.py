"""dlib's face embedding: 128 numbers by which people are told apart."""

from .network import PLACES as PLACES
from .network import SIDE as SIDE
from .network import FaceEmbedding as FaceEmbedding
