"""FLAIR's video diffusion networks (Zou et al., WACV 2025): image UNets with temporal layers between their own."""
