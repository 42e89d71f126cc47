"""Faces found in frames: detectors, the points of a mesh, and boxes that come from elsewhere."""
