"""The trained network of the room."""

from helpers.tiny_codebook import codebook_folder

__all__ = ["codebook_folder"]
