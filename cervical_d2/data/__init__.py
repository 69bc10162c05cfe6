"""Records -> batches: loader, mapper, augmentation. Imports datasets and the rooms above it."""
