"""What no matrix says: a camera's sensor and developing, and the codecs behind it."""
