"""From records to batches: loader, mapper, augmentation."""
