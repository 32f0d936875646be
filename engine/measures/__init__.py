"""Tensors in, counts out: thresholds, masks, top images, peaks."""
