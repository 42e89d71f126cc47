"""The package's own blind restorer at the crop's full resolution."""

from .network import BlindRestorers as BlindRestorers
from .network import BlindSizes as BlindSizes
from .network import BlindUNet as BlindUNet
from .network import clip_inputs as clip_inputs
