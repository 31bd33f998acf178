"""Results out: masks, DICOM segmentations, pictures, and the folders that hold them."""
