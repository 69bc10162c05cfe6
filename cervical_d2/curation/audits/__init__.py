"""Audits for errors in a dataset that file checks miss: leaks between splits, duplicate boxes."""
