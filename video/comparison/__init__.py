"""Several clips read in step and shown in one picture."""
