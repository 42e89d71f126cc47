"""Face detectors, FaceMesh landmarks, and detections from other tools."""
