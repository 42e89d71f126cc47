"""Compositing of restored crops into frames: masks, strength, occlusion, grain and enlargement."""
