"""Adapting a restorer to footage: pairs, stages, and the checkpoint that comes of them."""
