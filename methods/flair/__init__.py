"""FLAIR (arXiv 2311.15445): conditional diffusion over overlapping windows of frames with analytic data consistency."""
