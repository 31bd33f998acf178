"""Radiographs from DICOM files, in the order in which a file is read.

:mod:`~.film` leads: :mod:`~.file` parses, :mod:`~.attributes` are taken from their bytes, :mod:`~.film_classes` refuses
what is no radiograph, :mod:`~.pixels` decodes (:mod:`~.stream`: what a compressed stream says of itself),
:mod:`~.bits` settles which bits are the value, :mod:`~.grayscale` applies LUTs (:mod:`~.luts`) and windows, and
:mod:`~.spacing` finds the pixel spacing at the patient.
"""
