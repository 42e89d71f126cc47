"""KEEP (Feng et al., ECCV 2024): codes, a Kalman filter on latents, and fusion across frames."""

from ..architectures import PREDICTS_CODES, Architecture, code_line, has, made_by

ARCHITECTURE = Architecture(
    kind="keep",
    label="KEEP",
    matches=has(*PREDICTS_CODES, "hq_encoder.", "kalman_filter."),
    build=made_by("keep.network:KEEP"),
    describe=code_line("KEEP"),
    rank=2,
    restorer="methods.keep:KeepRestorer",
    summary="KEEP: Kalman-inspired propagation: weighs the prediction from the last restored frame against the next frame.",
    checkpoints={"restore": "keep"},
    embedded="embedded keep",
)
