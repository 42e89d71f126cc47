"""Restoration of damage that nobody described, frame after frame."""
