"""Restored crops put back into frames: where, how strongly, under what lies before the face, and with which grain."""
