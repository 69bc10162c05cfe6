"""The embedded demo dataset: synthetic scenes of cells."""
