"""Segmentation on a pretrained encoder."""
