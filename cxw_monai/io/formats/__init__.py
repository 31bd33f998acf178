"""Radiographs and masks from pictures, NIfTI and NRRD."""
