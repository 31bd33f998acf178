"""Radiographs from DICOM files."""
