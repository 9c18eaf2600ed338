"""DICOM files, as radiographs leave a hospital: pixels as a reader is shown them, patients under other names."""
