"""Recognises checkpoints by their tensor names: the face restorers that this package builds, and other files that are picked by mistake.

Every folder of models/ with an ARCHITECTURE in its __init__.py is a network that the package knows; no other list names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from torch import Tensor, nn

Names = Collection[str]
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """A network that the package builds itself.

    Attributes:
        kind: its name in this package.
        label: its name for users.
        matches: whether tensor names, without wrappers and prefixes, are those of such a network.
        build: from a state dict to the network with its sizes and weights, in eval mode.
        describe: from a state dict and the network to one line for users.
        rank: its position in menus.
        restorer: "module:Class" of its restorer in this package; empty for networks that restore frame by frame.
        summary: one line for help texts.
        checkpoints: the catalogue's names of its weights for each value of its setting "mode", "restore" for one without modes.
        embedded: the name of its embedded weights, if there are any.
        embedded_tasks: those for other values of "mode" than "restore", by mode.
        bfloat16: whether bfloat16 changes its output by less than 0.02 dB of PSNR on damaged footage.
    """

    kind: str
    label: str
    matches: Callable[[Names], bool]
    build: Callable[[State], nn.Module]
    describe: Callable[[State, Any], str]
    rank: int = 9
    restorer: str = ""
    summary: str = ""
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    embedded: str = ""
    embedded_tasks: Mapping[str, str] = field(default_factory=dict)
    bfloat16: bool = False


def made_by(place: str) -> Callable[[State], nn.Module]:
    """The class method `of` of the class at `place`, such as "keep.network:KEEP" in models/; imported when a network is built."""
    module, _, name = place.partition(":")
    return lambda state: getattr(import_module(f"{__package__}.{module}"), name).of(state)


def code_line(label: str) -> Callable[[State, nn.Module], str]:
    """What people are told of a checkpoint of a network that predicts codes."""

    def describe(state: State, network: nn.Module) -> str:
        from .vq import VQConfig

        vq = VQConfig.of(state)
        fused = sorted({int(key.split(".")[1]) for key in state if key.startswith(("fuse_convs_dict.", "cft."))})
        steered = f"features fused at {', '.join(map(str, fused))}" if fused else "no features fused"
        return f"{label}, {vq.side} x {vq.side}, {vq.codes} codes, {steered}"

    return describe


def has(*wanted: str) -> Callable[[Names], bool]:
    """A test of tensor names for all of `wanted`; one that ends in a dot stands for any name with that prefix."""

    def matches(names: Names) -> bool:
        return all(any(name.startswith(want) for name in names) if want.endswith(".") else want in names for want in wanted)

    return matches


PREDICTS_CODES = ("encoder.blocks.0.weight", "position_emb", "feat_emb.weight", "ft_layers.", "quantize.embedding.weight")
"""Tensor names that CodeFormer's checkpoints and those of networks built on it have in common."""


def architectures() -> list[Architecture]:
    """The records of all folders of models/, in menu order."""
    room = import_module(__package__)
    folders = [import_module(f"{__package__}.{found.name}") for found in iter_modules(room.__path__) if found.ispkg]
    return sorted((folder.ARCHITECTURE for folder in folders if hasattr(folder, "ARCHITECTURE")), key=lambda known: known.rank)


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
"""Other checkpoints by their tensor names; the first that matches counts, after our own."""

CHOOSE = "choose a CodeFormer, KEEP, DicFace, RestoreFormer or GFPGAN checkpoint"


def recognise(names: Names) -> Architecture | None:
    """The architecture of our own that these tensor names belong to, if any."""
    return next((known for known in architectures() if known.matches(names)), None)


def foreign(names: Names) -> str | None:
    """What a file with these tensor names is instead of a face restorer, if it is known."""
    return next((what for what, matches in FOREIGN if matches(names)), None)


def beginnings(names: Names) -> str:
    """The three most common prefixes of tensor names, for error messages: "model.diffusion_model, first_stage_model"."""
    split = (name.split(".") for name in names)
    counts = Counter(".".join(parts[: 2 if len(parts) > 3 and not parts[1].isdecimal() else 1]) for parts in split)
    return ", ".join(first for first, _ in counts.most_common(3)) + (", ..." if len(counts) > 3 else "")
