"""Seed-space MAP: video restoration with an image diffusion model as the prior (Wang et al., AAAI 2026), in the paper's notation.

R is the reverse process, D = D1 o D2 the decoder, z the shared seed, r_n = A_n B_n the residuals, A the degradation, Y the observation.
"""
