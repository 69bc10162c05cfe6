"""Truth and predictions -> figures. Imports inference and the rooms above it."""
