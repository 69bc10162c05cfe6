"""k-means on boxes, and how well anchors fit them. The plots are in `report`."""
