"""Audits for errors in a data set that file checks miss: leaks between splits, duplicate boxes."""
