"""DicFace (Chen et al., 2025): codes as Dirichlet variables over five frames."""

from ..architectures import PREDICTS_CODES, Architecture, code_line, has, made_by

ARCHITECTURE = Architecture(
    kind="dicface",
    label="DicFace",
    matches=has(*PREDICTS_CODES, "position_emb_temporal"),
    build=made_by("dicface.network:DicFace"),
    describe=code_line("DicFace"),
    rank=3,
    restorer="methods.dicface:DicFaceRestorer",
    summary="DicFace: Dirichlet-distributed codes over five frames; restores, colourises, inpaints.",
    checkpoints={"restore": "dicface", "colourise": "dicface-color", "inpaint": "dicface-inpainting"},
    embedded="embedded dicface",
    embedded_tasks={"colourise": "embedded dicface colourise", "inpaint": "embedded dicface inpaint"},
)
