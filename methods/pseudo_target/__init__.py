"""Pseudo-targets (Kuai et al., "Towards Unsupervised Blind Face Restoration using Diffusion Prior"): pairs to fine-tune a restorer on."""
