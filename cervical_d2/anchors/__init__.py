"""k-means on boxes, and how well anchors fit: numbers alone. The pictures are in report."""
