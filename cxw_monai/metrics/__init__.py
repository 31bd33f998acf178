"""Metrics of segmentations and of frozen representations."""
