"""Self-supervised world models of radiographs as MONAI bundles."""

__version__ = "0.1.0"
