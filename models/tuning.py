"""The interface of a network to fine-tuning: what is trained, and its output with gradients. Networks implement methods of these names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Use:
    """How a network of codes is used once it is loaded, and so how its pictures are judged.

    Attributes:
        fidelity: w, the weight of the input's features in the generator.
        match: whether codes take on the latent's statistics (AdaIN).
    """

    fidelity: float = 1.0
    match: bool = False


@dataclass
class Answer:
    """What a network makes of inputs.

    Attributes:
        picture: (B, 3, S, S) around [-1, 1].
        latent: (B, code_dim, s, s), None for networks without codes.
        log_probs: (B, tokens, codes) logarithms of each code's probability, None for networks without codes.
    """

    picture: Tensor | None
    latent: Tensor | None = None
    log_probs: Tensor | None = None


def recipe_for(network: Any, use: Use) -> str:
    """The recipe that "auto" stands for: "image", or what a network of codes says."""
    return network.recipe_for(use) if hasattr(network, "recipe_for") else "image"


def train_only(network: Any, recipe: str) -> None:
    """Sets requires_grad: what the recipe trains (`network.trainable(recipe)`; everything, where the network does not say), and nothing else.

    Raises:
        ValueError: for codes of a network that has none to predict.
    """
    if recipe == "codes" and not predicts_codes(network):
        raise ValueError(f"{type(network).__name__} predicts no codes, so it fine-tunes by its pictures; choose the recipe image, or auto")
    network.requires_grad_(False)
    for part in network.trainable(recipe) if hasattr(network, "trainable") else [network]:
        for parameter in [part] if isinstance(part, nn.Parameter) else part.parameters():
            parameter.requires_grad_(parameter.is_floating_point())


def predicts_codes(network: Any) -> bool:
    """Whether a network can say which codes it finds in clean faces."""
    return hasattr(network, "true_codes")


def answer(network: Any, source: Tensor, use: Use, *, draw: bool = True) -> Answer:
    """The network's answer to single faces (B, 3, S, S) in [-1, 1], with gradients wherever they are asked for; `draw`: the picture is wanted."""
    return network.answer(source, use, draw=draw) if hasattr(network, "answer") else Answer(network(source))


def published(network: Any) -> nn.Module:
    """The module whose tensors have the names that files have: the network, or what it wraps."""
    return getattr(network, "published", network)
