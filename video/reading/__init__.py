"""Clips in: what a file is, its frames one after another whatever its damage, and its times."""
