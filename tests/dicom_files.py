"""DICOM files as hospitals send them, made with pydicom in every transfer syntax that something installed encodes."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

PERSON = {
    "PatientName": "Zzyzx^Quagmire",
    "PatientID": "QX-4711-ZZ",
    "PatientBirthDate": "19570317",
    "StudyDate": "20190823",
    "AccessionNumber": "ACC99887766",
    "InstitutionName": "Saint Elsewhere",
}
"""Of whom nothing may be found in anything that is written."""

NATIVE = {
    uid.keyword: uid
    for uid in (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
    )
}
"""Transfer syntaxes that pydicom and its plug-ins write, all without loss."""

BY_GDCM = {
    "JPEGLosslessSV1": "JPEGLosslessProcess14_1",
    "JPEGLossless": "JPEGLosslessProcess14",
    "JPEGLSLossless": "JPEGLSLossless",
    "JPEGBaseline8Bit": "JPEGBaselineProcess1",
    "JPEG2000": "JPEG2000",
}
"""Those that GDCM writes, with its own names."""

RECODING = """
import sys, zlib, gdcm

for path, syntax in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(path)
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(path)
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
"""
"""In a process of its own: GDCM brings libraries that take the places of those that are loaded."""


def write(path: Path, pixels: np.ndarray, syntax: str = "ExplicitVRLittleEndian", **tags: object) -> Path:
    """A radiograph as a DICOM file.

    Args:
        path: of the file.
        pixels: (h, w) of an integer type; int16 has the tag of signed values.
        syntax: of `NATIVE`; `recode` makes others of an uncompressed file.
        tags: by keyword; None leaves one out. `BitsStored` is all bits unless given.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    bits = int(tags.get("BitsStored", 8 * pixels.itemsize))
    described = {
        "Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "Rows": pixels.shape[0], "Columns": pixels.shape[1],
        "BitsAllocated": 8 * pixels.itemsize, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }  # fmt: skip
    for name, value in (described | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    uid = NATIVE[syntax]
    if uid.is_compressed and uid != DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(uid, pixels, encoding_plugin="pydicom" if uid == RLELossless else "pylibjpeg")
    else:
        dataset.file_meta.TransferSyntaxUID = uid
        order = ">" if uid == ExplicitVRBigEndian else "<"
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        if len(dataset.PixelData) % 2:
            dataset.PixelData += b"\0"
        dataset["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def recode(syntaxes: Mapping[Path, str]) -> None:
    """Bring uncompressed files to syntaxes of `BY_GDCM`, all in one process."""
    words = [str(word) for path, syntax in syntaxes.items() for word in (path, BY_GDCM[syntax])]
    subprocess.run([sys.executable, "-c", RECODING, *words], check=True)
