"""Recurrent feature enhancement: features carried backward and forward through a clip, aligned by flow and deformable convolution.

BasicVSR++ (Chan et al., CVPR 2022) with FLAIR's annealing (Zou et al., eq. 16 and 17).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import Parts, numbered, zero_initialised
from .spynet import warped
from .window import Window

OFFSET_GROUPS = 16
"""Groups of channels with an offset field of their own: half of them for the features of one frame away, half for those of two."""


class Alignment(nn.Module):
    """Second-order flow-guided deformable alignment: features of the last two frames brought to the current one.

    The convolution's places are the flow plus residual offsets of at most `reach` pixels, which, like the weights of the places, are
    made of the current features and the warped ones. Places and sampling are float32 whatever the dtype of the features. The published
    weights take the features of one and two frames away as the two halves of one input; here each half is convolved on its own and the
    results are added, which saves half of the working memory, and the second half where it would be zero.
    """

    def __init__(self, width: int, reach: float) -> None:
        super().__init__()
        self.reach = reach
        bound = 1 / sqrt(2 * width * 9)
        self.weight = nn.Parameter(torch.empty(width, 2 * width, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(width))
        self.conv_offset = numbered(
            {
                0: nn.Conv2d(3 * width + 4, width, 3, padding=1),
                2: nn.Conv2d(width, width, 3, padding=1),
                4: nn.Conv2d(width, width, 3, padding=1),
                6: zero_initialised(nn.Conv2d(width, 27 * OFFSET_GROUPS, 3, padding=1)),
            }
        )

    def projections(self) -> tuple[nn.Module, ...]:
        """The layers whose dtype `VideoUNet.halved` changes: all, though sampling stays float32."""
        return (self,)

    def forward(self, current: Tensor, carried: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(B, C, h, w) from `current` features and `carried`: one or two pairs of features, nearest first, and the flow to them (B, 2, h, w)."""
        brought = [warped(features, flow) for features, flow in carried]
        flows = [flow.to(current.dtype) for _, flow in carried]
        if len(carried) == 1:
            brought, flows = [*brought, torch.zeros_like(current)], [*flows, torch.zeros_like(flows[0])]
        out = torch.cat([brought[0], current, brought[1], *flows], 1)
        del brought
        for number, conv in self.conv_offset.items():
            out = conv(out if number == "0" else F.leaky_relu(out, 0.1, inplace=True))
        from torchvision.ops import deform_conv2d  # here, for it takes half a second of a start that may need no video network

        per_frame = 9 * OFFSET_GROUPS
        weights = out[:, 2 * per_frame :].chunk(2, 1)
        width = current.shape[1]
        aligned: Tensor | None = None
        for half, (features, flow) in enumerate(carried):
            offsets = self.reach * torch.tanh(out[:, half * per_frame : (half + 1) * per_frame].float())
            offsets = offsets + flow.float().flip(1).repeat(1, per_frame // 2, 1, 1)  # deform_conv2d wants y before x
            part = deform_conv2d(
                features.float(),
                offsets,
                self.weight[:, half * width : (half + 1) * width].float(),
                self.bias.float() if half == 0 else None,
                padding=1,
                mask=torch.sigmoid(weights[half].float()),
            )
            aligned = part if aligned is None else aligned + part
        assert aligned is not None
        return aligned.to(current.dtype, memory_format=torch.channels_last)


class Refinement(nn.Module):
    """A convolution to `width` channels, then one residual block without normalisation."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        block = Parts({"conv1": nn.Conv2d(width, width, 3, padding=1), "conv2": nn.Conv2d(width, width, 3, padding=1)})
        self.main = numbered({0: nn.Conv2d(width_in, width, 3, padding=1), 2: numbered({0: block})})

    def forward(self, x: Tensor) -> Tensor:
        block = self.main["2"]["0"]
        x = F.leaky_relu(self.main["0"](x), 0.1, inplace=True)
        return x + block["conv2"](F.relu(block["conv1"](x), inplace=True))


class Recurrence(nn.Module):
    """f_n + last(merge(f_n, b_n, a_n)): each frame's features f joined by those carried backward (b) and then forward (a) in time.

    What is carried on to the next frame is w_n times what frame n made of it: w below 1 lets the past fade (eq. 17).

    Args:
        width: channels.
        reach: of the residual offsets, in pixels; 5 in the bicubic network, 10 in the other.
        spynet: kept here only because the bicubic network's parameters are called so; the flow comes with the window.
    """

    def __init__(self, width: int, reach: float, spynet: nn.Module | None = None) -> None:
        super().__init__()
        if spynet is not None:
            self.spynet = spynet
        ways = ("backward_1", "forward_1")
        self.deform_align = Parts({way: Alignment(width, reach) for way in ways})
        self.backbone = Parts({way: Refinement((2 + number) * width, width) for number, way in enumerate(ways)})
        self.reconstruction = Refinement(3 * width, width)
        self.conv_last = zero_initialised(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, window: Window) -> Tensor:
        """x (B T, C, h, w). Raises KeyError if the window has no flow or no weights for this size."""
        last, size = window.frames - 1, (x.shape[-2], x.shape[-1])
        features = x.unflatten(0, (-1, window.frames))
        motion: Any = window.flows[size] if last else None
        weight = window.weights if isinstance(window.weights, float) else window.weights[size].unflatten(0, (-1, window.frames)).to(x.dtype)
        backward = dict(self._carried("backward_1", range(last, -1, -1), lambda n: motion.ahead[:, n], features, weight, {}))
        frames = []
        for n, carried in self._carried("forward_1", range(last + 1), lambda n: motion.back[:, n - 1], features, weight, backward):
            merged = self.reconstruction(torch.cat([features[:, n], backward.pop(n), carried], 1))
            frames.append(features[:, n] + self.conv_last(merged))
        joint = torch.cat(frames).unflatten(0, (-1, len(features))).transpose(0, 1).flatten(0, 1)
        return joint.contiguous(memory_format=torch.channels_last)

    def _carried(
        self, way: str, order: range, flow_from: Callable[[int], Tensor], features: Tensor, weight: Tensor | float, others: dict[int, Tensor]
    ) -> Iterator[tuple[int, Tensor]]:
        """(n, what is carried past frame n) in `order`.

        Args:
            flow_from: frame -> flow (B, 2, h, w) to the frame visited before it.
            others: what the pass before this one carried past each frame.
        """
        align, refine = self.deform_align[way], self.backbone[way]
        before: list[Tensor] = []  # the last two carried, nearest first
        for step, n in enumerate(order):
            current = features[:, n]
            carried = torch.zeros_like(current)
            if step:
                flow = flow_from(n)
                pairs = [(before[0], flow)]
                if step > 1:
                    pairs.append((before[1], flow + warped(flow_from(order[step - 1]), flow)))
                carried = align(current, pairs)
            joint = [current, others[n], carried] if others else [current, carried]
            carried = carried + refine(torch.cat(joint, 1))
            if not isinstance(weight, float):
                carried = carried * weight[:, n]
            elif weight != 1:
                carried = carried * weight
            before = [carried, *before[:1]]
            yield n, carried
