"""Report pages, plots and picture sheets. Computes no figures."""
