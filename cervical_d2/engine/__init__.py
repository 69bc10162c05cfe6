"""From a config to a trained and evaluated run: trainer, hooks, steps, run folder."""
