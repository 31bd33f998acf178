"""Weights in and out: official checkpoints, encoders, segmenters and the bundles that hold them."""
