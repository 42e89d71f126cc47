"""DicFace (Chen et al., 2025): codes as Dirichlet variables over five frames."""

from ..architectures import PREDICTS_CODES, Architecture, has
from ..code_prediction import code_line
from .network import DicFace

ARCHITECTURE = Architecture(
    kind="dicface",
    label="DicFace",
    matches=has(*PREDICTS_CODES, "position_emb_temporal"),
    build=DicFace.of,
    describe=code_line("DicFace"),
    rank=3,
    restorer="methods.dicface:DicFaceRestorer",
    summary="DicFace: codes as Dirichlet variables over five frames; restores, colourises, fills in.",
    checkpoints={"restore": "dicface", "colourise": "dicface-color", "inpaint": "dicface-inpainting"},
    embedded="embedded dicface",
)
