"""Blind face restoration: recurrent over the frames of a clip, with no description of the damage."""
