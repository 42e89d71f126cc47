"""CodeFormer: blind face restoration by code prediction (Zhou et al., NeurIPS 2022)."""

from __future__ import annotations

from torch import Tensor

from ..code_prediction import CodeNetwork, adain
from ..tuning import Use


class CodeFormer(CodeNetwork):
    """Restoration (1024 codes, fused at 32 to 256), colourisation (the same) and inpainting (512 codes, fused at 32 to 128)."""

    def decode(self, codes: Tensor, latent: Tensor, features: dict[int, Tensor], weight: float = 0.5, *, match: bool = True) -> Tensor:
        """A code map to the image.

        Args:
            codes: (B, code_dim, s, s).
            latent: the encoder's, whose statistics `match` gives the codes (AdaIN).
            weight: fidelity w: 0 follows the codes alone, 1 the input's features as far as they go (eq. 5).

        Returns:
            (B, 3, S, S) float32 around [-1, 1].
        """
        return self.generator(adain(codes, latent) if match else codes, self.fuse(features, weight))

    def recipe_for(self, use: Use) -> str:
        """Where the input's own features weigh fully (w = 1, no AdaIN: the embedded codebook), codes alone would move them unseen."""
        return "image" if use.fidelity == 1 and not use.match else "codes"

    def drawn(self, log_probs: Tensor, latent: Tensor, features: dict[int, Tensor], use: Use) -> Tensor:
        return self.decode(self.quantize.lookup(log_probs.argmax(-1)), latent, features, use.fidelity, match=use.match)

    def forward(self, x: Tensor, weight: float = 0.5, *, match: bool = True) -> Tensor:
        """(B, 3, S, S) in [-1, 1] to the restored faces, the same shape."""
        latent, features = self.encode(x)
        index = self.logits(latent).argmax(-1)
        return self.decode(self.quantize.lookup(index), latent, features, weight, match=match)
