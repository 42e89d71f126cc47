"""The package's own network for blind face restoration: a recurrent U-Net at the crop's full resolution."""

from ..architectures import Architecture, has
from .network import BlindRestorers as BlindRestorers
from .network import BlindSizes as BlindSizes
from .network import BlindUNet as BlindUNet
from .network import recurrent_inputs as recurrent_inputs

ARCHITECTURE = Architecture(
    kind="blind",
    label="blind restorer",
    matches=has("faithful.head.weight", "faithful.tail.weight", "faithful.before."),
    build=BlindRestorers.of,
    describe=lambda state, network: (
        f"blind restorer, 512 x 512, {'with' if network.detailed is not None else 'without'} a second set of weights for detail"
    ),
    rank=0,
    restorer="methods.blind.restorer:BlindRestorer",
    summary="The package's own restorer for unknown damage: 512 x 512, recurrent over frames.",
    embedded="embedded blind",
    bfloat16=True,
)
