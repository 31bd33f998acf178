"""Landmarks of radiographs: points that a network finds."""
