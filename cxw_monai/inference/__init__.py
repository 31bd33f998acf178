"""Trained models on films: the Python API, and runs over folders."""
