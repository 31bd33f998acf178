"""Calibration of the quality checks."""
