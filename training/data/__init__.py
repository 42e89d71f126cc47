"""Training data: faces, synthetic motion, and degradations of pictures and of video."""
