"""Checkpoints of other libraries -> ours: one file a library."""
