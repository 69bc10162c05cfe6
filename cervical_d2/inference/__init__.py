"""Images -> detections: the Detector, batches, export. Imports checkpoint and the rooms above it."""
