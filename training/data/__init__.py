"""What networks learn from: faces set moving, damaged as footage is."""
