"""Checkpoints as files: which are known, how they are fetched, read without running their code, and loaded into networks."""
