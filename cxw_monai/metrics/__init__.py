"""Metrics of segmentations, of classifications and of frozen representations."""
