"""A service that answers films with DICOM results: ``cxw-monai serve``."""
