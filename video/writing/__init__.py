"""Writing clips: encoders, timestamps and atomic output."""
