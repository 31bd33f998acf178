"""Results out.

:mod:`~.mask_files` (PNG, NIfTI), :mod:`~.dicom_seg`, :mod:`~.dicom_sr` (measurements) and :mod:`~.overlay` are of one
film; :mod:`~.film_names` gives each film of a run a name and a folder; :mod:`~.folders` marks and locks the folder of a
run.
"""
