"""Conversion of checkpoints of other libraries, one module per library."""
