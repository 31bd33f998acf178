"""Films from other files than DICOM: :mod:`~.raster` (PNG, JPEG, TIFF), :mod:`~.nifti` and :mod:`~.nrrd`.

:mod:`~.slices` is what the last two share; :mod:`~.pictures` opens masks and maps of labels.
"""
