"""What a checkpoint's tensor names say it is: the face restorers that this package builds, and what else people pick by mistake."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from .blind import BlindRestorers
from .codeformer import CodeFormer
from .restoreformer import RestoreFormer
from .vq import VQConfig

Names = Collection[str]
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """A network that the package builds itself.

    Attributes:
        kind: how the rest of the package calls it.
        label: how people call it.
        matches: whether tensor names are such a network's; wrappers and prefixes are off.
        build: the network with the sizes and the weights of a state dict, in eval mode.
        describe: one line for people.
    """

    kind: str
    label: str
    matches: Callable[[Names], bool]
    build: Callable[[State], nn.Module]
    describe: Callable[[State, nn.Module], str]


def has(*wanted: str) -> Callable[[Names], bool]:
    """Whether names hold every wanted one; one that ends in a dot stands for any name that begins so."""

    def matches(names: Names) -> bool:
        return all(any(name.startswith(want) for name in names) if want.endswith(".") else want in names for want in wanted)

    return matches


def _keep(state: State) -> nn.Module:
    from .keep import KEEP

    return KEEP.of(state)


def _dicface(state: State) -> nn.Module:
    from .dicface import DicFace

    return DicFace.of(state)


def _codes(label: str) -> Callable[[State, nn.Module], str]:
    """The line of a network that predicts codes."""

    def describe(state: State, network: nn.Module) -> str:
        vq = VQConfig.of(state)
        fused = sorted({int(key.split(".")[1]) for key in state if key.startswith(("fuse_convs_dict.", "cft."))})
        steered = f"features fused at {', '.join(map(str, fused))}" if fused else "no features fused"
        return f"{label}, {vq.side} x {vq.side}, {vq.codes} codes, {steered}"

    return describe


def _restoreformer(state: State, network: nn.Module) -> str:
    assert isinstance(network, RestoreFormer)
    config = network.config
    return f"{network.label}, 512 x 512, {config.codes} codes, {config.heads} heads"


def _blind(state: State, network: nn.Module) -> str:
    assert isinstance(network, BlindRestorers)
    return f"blind restorer, 512 x 512, {'with' if network.detailed is not None else 'without'} a second set of weights for detail"


_PREDICTS_CODES = ("encoder.blocks.0.weight", "position_emb", "feat_emb.weight", "ft_layers.", "quantize.embedding.weight")
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("keep", "KEEP", has(*_PREDICTS_CODES, "hq_encoder.", "kalman_filter."), _keep, _codes("KEEP")),
    Architecture("dicface", "DicFace", has(*_PREDICTS_CODES, "position_emb_temporal"), _dicface, _codes("DicFace")),
    Architecture("codeformer", "CodeFormer", has(*_PREDICTS_CODES, "idx_pred_layer."), CodeFormer.of, _codes("CodeFormer")),
    Architecture(
        "restoreformer",
        "RestoreFormer",
        has("encoder.conv_in.weight", "encoder.mid.attn_1.norm2.weight", "decoder.mid.attn_1.norm2.weight", "quantize.embedding.weight"),
        RestoreFormer.of,
        _restoreformer,
    ),
    Architecture("blind", "blind restorer", has("faithful.head.weight", "faithful.tail.weight", "faithful.before."), BlindRestorers.of, _blind),
)
"""The first that matches counts: KEEP and DicFace have CodeFormer's names too."""

FOREIGN: tuple[tuple[str, Callable[[Names], bool]], ...] = (
    ("CodeFormer's codebook autoencoder alone, which is for fine-tuning", has("encoder.blocks.", "generator.blocks.", "quantize.embedding.weight")),
    ("a FLAIR diffusion network", has("noise_level_mlp.", "downs.", "ups.")),
    ("a FLAIR diffusion network", has("time_embed.0.weight", "input_blocks.", "out.2.wrapped_module.weight")),
    ("a pixel diffusion network, such as DifFace's", has("time_embed.0.weight", "input_blocks.", "output_blocks.")),
    ("a Stable Diffusion checkpoint", has("model.diffusion_model.")),
    ("a diffusion model", has("diffusion_model.")),
    ("a latent diffusion network", has("time_embedding.", "down_blocks.")),
    ("an autoencoder for images", has("encoder.conv_in.weight", "decoder.conv_in.weight")),
    ("a LoRA", lambda names: any(".lora_" in name or ".lora." in name for name in names)),
    ("the face detector RetinaFace", has("BboxHead.", "LandmarkHead.")),
    ("a face parser", has("out_mask_conv.")),
    ("a face parser", has("cp.arm16.", "ffm.")),
    ("an identity network (ArcFace)", has("input_layer.", "body.", "output_layer.")),
    ("the optical flow network SPyNet", has("basic_module.")),
    ("the optical flow network GMFlow", has("feature_flow_attn.", "transformer.")),
    ("the optical flow network RAFT", has("fnet.", "cnet.", "update_block.")),
    ("a discriminator, which is for training", has("conv0.weight", "conv9.weight", "conv1.weight_orig")),
)
"""Other checkpoints by their tensor names; the first that matches counts, after ARCHITECTURES."""

CHOOSE = "choose a CodeFormer, KEEP, DicFace, RestoreFormer or GFPGAN checkpoint"


def recognise(names: Names) -> Architecture | None:
    """The architecture of our own that these tensor names belong to, if any."""
    return next((known for known in ARCHITECTURES if known.matches(names)), None)


def foreign(names: Names) -> str | None:
    """What these tensor names are instead of a face restorer, if that is known."""
    return next((what for what, matches in FOREIGN if matches(names)), None)


def beginnings(names: Names, most: int = 3) -> str:
    """The commonest first parts of tensor names, for people: "model.diffusion_model, first_stage_model"."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        first = ".".join(parts[: 2 if len(parts) > 3 and not parts[1].isdecimal() else 1])
        counts[first] = counts.get(first, 0) + 1
    chosen = sorted(counts, key=lambda first: -counts[first])
    return ", ".join(chosen[:most]) + (", ..." if len(chosen) > most else "")
