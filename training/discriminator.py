"""The adversary of image-level fine-tuning: a U-Net discriminator with spectral normalisation (Wang et al., Real-ESRGAN, 2021)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm


class UNetDiscriminator(nn.Module):
    """(B, 3, S, S) in [0, 1], S a multiple of 8, to a map (B, 1, S, S) of logits, larger where it looks real.

    Three downsampling and three upsampling blocks with additive skip connections. All convolutions but the first and the last are spectrally
    normalised. Parameter names are those of the published discriminators.

    Args:
        width: channels of the first convolution.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.conv0 = nn.Conv2d(3, width, 3, padding=1)
        for level in (1, 2, 3):
            self.add_module(f"conv{level}", spectral_norm(nn.Conv2d(widths[level - 1], widths[level], 4, 2, 1, bias=False)))
        for level in (3, 2, 1):
            self.add_module(f"conv{7 - level}", spectral_norm(nn.Conv2d(widths[level], widths[level - 1], 3, padding=1, bias=False)))
        for number in (7, 8):
            self.add_module(f"conv{number}", spectral_norm(nn.Conv2d(width, width, 3, padding=1, bias=False)))
        self.conv9 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv0(x), 0.2)
        seen = []
        for number in (1, 2, 3):
            seen.append(x)
            x = self._at(number, x)
        for number in (4, 5, 6):
            enlarged = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self._at(number, enlarged) + seen.pop()
        return self.conv9(self._at(8, self._at(7, x)))

    def _at(self, number: int, x: Tensor) -> Tensor:
        return F.leaky_relu(self.get_submodule(f"conv{number}")(x), 0.2)


class Adversary:
    """A discriminator with its optimiser, which takes one step for every step of the generator.

    The non-saturating GAN loss with binary cross-entropy (Goodfellow et al., 2014), in float32.

    Args:
        weight: of the generator's term.
        rate: Adam's, constant.
        accumulate: passes per step.
        width: of the discriminator.
    """

    def __init__(self, weight: float, rate: float, accumulate: int, device: torch.device, *, width: int = 64) -> None:
        self.weight, self.accumulate, self.device = weight, accumulate, device
        self.passes = 0
        self._begun: dict[str, Tensor] = {}
        self.net = UNetDiscriminator(width).to(device)
        self.optimiser = torch.optim.Adam(self.net.parameters(), rate)

    def begin(self) -> None:
        """Starts a step: clears the accumulated gradient."""
        self.passes = 0
        self._begun = {name: value.clone() for name, value in self.net.named_buffers()}
        self.optimiser.zero_grad(set_to_none=True)

    def term(self, output: Tensor, real: Tensor) -> Tensor:
        """The generator's weighted term; accumulates the discriminator's gradient, and takes its step after the last pass.

        Args:
            output, real: (B, 3, S, S) around [-1, 1].
        """
        with torch.autocast(self.device.type, enabled=False):
            fake, clean = (output.detach().float() + 1) / 2, (real.float() + 1) / 2
            self.net.requires_grad_(False)
            term = self.weight * _cross_entropy(self.net(fake.requires_grad_()), True)
            (slope,) = torch.autograd.grad(term, fake)  # before the discriminator's weights change
            self.net.requires_grad_(True)
            loss = _cross_entropy(self.net(clean), True) + _cross_entropy(self.net(fake.detach()), False)
            (loss / self.accumulate).backward()
            self.passes += 1
            if self.passes == self.accumulate:
                self.optimiser.step()
            along = (output.float() * (slope / 2)).sum()
        return term.detach() + along - along.detach()

    def state(self) -> dict[str, Any]:
        """For `restore`: the state at the beginning of the step (every pass changes the estimates of singular values)."""
        net = dict(self.net.state_dict())
        return {"net": net | self._begun if 0 < self.passes < self.accumulate else net, "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])


def _cross_entropy(logits: Tensor, real: bool) -> Tensor:
    """Cross-entropy of a map of logits against all real or all fake."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
