"""Slides and large images: regions, tissue, tile grids. Imports no other room."""
