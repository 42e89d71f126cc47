"""RestoreFormer and RestoreFormer++ (Wang et al., 2022 and 2023)."""

from ..architectures import Architecture, has, made_by

ARCHITECTURE = Architecture(
    kind="restoreformer",
    label="RestoreFormer",
    matches=has("encoder.conv_in.weight", "encoder.mid.attn_1.norm2.weight", "decoder.mid.attn_1.norm2.weight", "quantize.embedding.weight"),
    build=made_by("restoreformer.network:RestoreFormer"),
    describe=lambda state, network: f"{network.label}, 512 x 512, {network.config.codes} codes, {network.config.heads} heads",
)
