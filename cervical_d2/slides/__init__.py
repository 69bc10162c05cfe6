"""Opening slides and large images, reading regions, tissue masks, tiling: shared by data and inference."""
