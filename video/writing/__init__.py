"""Clips out: encoders, the clock of the written file, and a final name that appears only when the clip is complete."""
