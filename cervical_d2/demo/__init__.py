"""The embedded demo data set: synthetic scenes of cells."""
