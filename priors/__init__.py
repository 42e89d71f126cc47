"""What predicts the clean frame: weight-free, image DDPMs, FLAIR's video networks, and the embedded pyramid."""
