"""What fine-tuning must know of each kind of network: what trains, what a picture of it is with gradients, and the codes it finds in a face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.code_prediction import CodeNetwork
from ..models.codeformer.network import CodeFormer
from ..models.dicface.network import DicFace, dirichlet_mean
from ..models.keep.network import KEEP
from ..models.restoreformer.network import RestoreFormer
from ..models.spandrel_bridge import Bridge
from .options import FineTuneRecipe


@dataclass(frozen=True)
class Use:
    """How a network of codes is used once it is loaded, and so how its pictures are judged.

    Attributes:
        fidelity: w, the weight of the input's features in the generator.
        match: whether codes take on the latent's statistics (AdaIN).
    """

    fidelity: float = 1.0
    match: bool = False


def suited(network: nn.Module, use: Use) -> FineTuneRecipe:
    """The recipe that "auto" stands for.

    Codes, as CodeFormer's paper and the pseudo-targets' have it, for networks whose pictures are made of codes. Where the input's own features
    weigh fully (w = 1, no AdaIN: the embedded codebook), codes alone would move the features unseen, so the picture is compared as well.
    """
    if isinstance(network, CodeFormer):
        return "image" if use.fidelity == 1 and not use.match else "codes"
    return "codes" if isinstance(network, CodeNetwork) else "image"


def chosen(network: nn.Module, recipe: FineTuneRecipe) -> None:
    """Sets requires_grad: what the recipe trains, and nothing else.

    Networks with codes: encoder, positions, transformer and heads; in the recipe "image" the feature transforms too. Codebook, generator and
    all temporal parts are fixed. RestoreFormer: all but the codebook. Others: everything.

    Raises:
        ValueError: for codes of a network that has none to predict.
    """
    network.requires_grad_(False)
    if isinstance(network, CodeNetwork):
        for part in (network.encoder, network.feat_emb, network.ft_layers, network.idx_pred_layer):
            part.requires_grad_(True)
        network.position_emb.requires_grad_(True)
        network.fuse_convs_dict.requires_grad_(recipe == "image")
        return
    if recipe == "codes":
        raise ValueError(f"{type(network).__name__} predicts no codes, so it fine-tunes by its pictures; choose the recipe image, or auto")
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    if isinstance(network, RestoreFormer):
        network.quantize.requires_grad_(False)


@dataclass
class Answer:
    """What a network makes of inputs.

    Attributes:
        picture: (B, 3, S, S) around [-1, 1].
        latent: (B, code_dim, s, s), None for networks without codes.
        chances: (B, tokens, codes) logarithms of each code's probability, None for networks without codes.
    """

    picture: Tensor | None
    latent: Tensor | None = None
    chances: Tensor | None = None


def answer(network: nn.Module, source: Tensor, use: Use, *, draw: bool = True) -> Answer:
    """The network's answer to single faces (B, 3, S, S) in [-1, 1], with gradients wherever they are asked for.

    KEEP answers as to the first frame of a clip, DicFace as to a still one.

    Args:
        draw: whether the picture is wanted.
    """
    if isinstance(network, CodeNetwork):
        latent, features = network.encode(source, None if draw else ())
        chances = _chances(network, latent)
        picture = _drawn(network, chances, latent, features, use) if draw else None
        return Answer(picture, latent, chances)
    if isinstance(network, RestoreFormer):
        return Answer(_through_codes(network, source))
    if isinstance(network, Bridge) and torch.is_grad_enabled() and network.architecture not in ("GFPGAN", "SwinIR"):
        described: Any = network._call  # spandrel's own call is made under inference mode; this is what it calls
        frames = ((source.contiguous() + 1) / 2).split(1)
        return Answer(torch.cat([described._call_fn(network.network, frame) for frame in frames]) * 2 - 1)
    return Answer(network(source))


def true_codes(network: CodeNetwork, target: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
    """What a frozen network finds in clean faces (B, 3, S, S) in [-1, 1].

    CodeFormer: the codes nearest to its own encoder's latent. KEEP: to that of its encoder of clean faces. DicFace, whose latent is no sum of
    codes: the mean of its Dirichlet distributions, and the latent itself.

    Returns:
        index (B, tokens) or None; the wanted weights of codes (B, tokens, codes), empty if there is an index; the wanted latent.
    """
    if isinstance(network, DicFace):
        latent = network.encode(target, ())[0]
        return None, _chances(network, latent).exp(), latent
    latent = network.encode_clean(target) if isinstance(network, KEEP) else network.encode(target, ())[0]
    index = network.quantize.nearest(latent)
    return index, target.new_empty(0), network.quantize.lookup(index)


def _chances(network: CodeNetwork, latent: Tensor) -> Tensor:
    if isinstance(network, DicFace):
        centre = (network.frame_length - 1) // 2
        window = network.tokens(latent)[:, None].expand(-1, network.frame_length, -1, -1)
        alpha = network.alpha(window, slice(centre, centre + 1))[:, 0]
        return dirichlet_mean(alpha.float()).log()
    return network.logits(latent).float().log_softmax(-1)


def _drawn(network: CodeNetwork, chances: Tensor, latent: Tensor, features: dict[int, Tensor], use: Use) -> Tensor:
    if isinstance(network, DicFace):
        return network.decode(chances.exp(), features, use.fidelity)
    codes = network.quantize.lookup(chances.argmax(-1))
    if isinstance(network, KEEP):
        return network.decode(codes, features)[0]
    assert isinstance(network, CodeFormer)
    return network.decode(codes, latent, features, use.fidelity, match=use.match)


def _through_codes(network: RestoreFormer, source: Tensor) -> Tensor:
    """RestoreFormer's picture; the gradient of the codes goes straight through to the latent (van den Oord et al., 2017)."""
    latent, features, middle = network.encoder(source)
    latent = network.quant_conv(latent).float()
    index = network.quantize.nearest(latent).unflatten(1, latent.shape[2:])
    codes = network.quantize.embedding(index).movedim(-1, 1)
    through = latent + (codes - latent).detach()
    return network.decoder(network.post_quant_conv(through), {level: features[level] for level in network.config.crossed}, middle).float()
