"""Work on datasets: audits, conversion, corrections, splits, folds, statistics.

Imports checkpoint and the rooms above it; pages and pictures are in report.
"""
