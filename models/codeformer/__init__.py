"""CodeFormer (Zhou et al., NeurIPS 2022): codes predicted frame by frame."""

from ..architectures import PREDICTS_CODES, Architecture, code_line, has, made_by

ARCHITECTURE = Architecture(
    kind="codeformer",
    label="CodeFormer",
    matches=lambda names: has(*PREDICTS_CODES, "idx_pred_layer.")(names) and not (has("kalman_filter.")(names) or "position_emb_temporal" in names),
    build=made_by("codeformer.network:CodeFormer"),
    describe=code_line("CodeFormer"),
    rank=4,
    restorer="methods.codeformer:CodeFormerRestorer",
    summary="CodeFormer: code prediction frame by frame, with a weight between quality and fidelity.",
    checkpoints={"restore": "codeformer", "colourise": "codeformer-colorization", "inpaint": "codeformer-inpainting"},
    embedded="embedded codeformer",
)
