"""Opening slides and large images: regions, tissue, tiles. Imports the ground alone."""
