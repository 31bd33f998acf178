"""The segmentation bundle in MONAI Label, for annotation in 3D Slicer, OHIF or any HTTP client.

``scripts/monailabel.sh`` makes the environment that the server needs (``requirements-monailabel.txt``) and starts it.
Only :mod:`~cxw_monai.label.label_maps` and :mod:`~cxw_monai.label.label_files` work without MONAI Label.
"""
