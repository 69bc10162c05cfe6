"""The embedded demo set: scenes of cells, drawn. Imports the ground alone."""
