"""Opening and writing checkpoints, and published weights. Imports modeling and the rooms above it."""
