"""A DICOM file becomes the picture that a reader is shown, in every transfer syntax; what is no chest is refused."""

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from lungdet.data.dicom import apart, header
from lungdet.data.store.images import read_grey
from lungdet.errors import InputError, UnreadableImageError
from tests.calling import CHECKOUT
from tests.dicom_files import BY_GDCM, NATIVE, PERSON, recode, write

DEEP = np.random.default_rng(0).integers(0, 4096, (36, 42)).astype(np.uint16)


def grey(path: Path) -> np.ndarray:
    image = read_grey(path)
    assert image.dtype == np.uint8
    return image


def reason(path: Path) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        read_grey(path)
    return str(caught.value)


def damaged(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes() if path.exists() else b""))
    return path


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(255 * ((values.astype(float) - low) / (high - low)).clip(0, 1)).astype(np.uint8)


def table(*entries: int, first: int = 0, depth: int = 8) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, depth]
    item.LUTData = np.array(entries, "<u2").tobytes()
    item["LUTData"].VR, item["LUTDescriptor"].VR = "OW", "US"
    return item


LOSSLESS = [*NATIVE, *(name for name in BY_GDCM if name != "JPEGBaseline8Bit")]
KINDS = [("u1", 8), ("u2", 12), ("u2", 16), ("i2", 12), ("i2", 16)]


def stored(dtype: str, bits: int) -> np.ndarray:
    low = -(1 << (bits - 1)) if dtype == "i2" else 0
    return ((DEEP.astype(np.int32) << 4 >> (16 - bits)) + low).astype(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in each syntax of each kind of numbers, and in baseline JPEG; without suffixes."""
    folder, recoded = tmp_path_factory.mktemp("syntaxes"), {}
    for syntax in [*LOSSLESS, "JPEGBaseline8Bit"]:
        for dtype, bits in KINDS if syntax in LOSSLESS else KINDS[:1]:
            path, written = folder / f"{syntax}.{dtype}.{bits}", NATIVE.keys() & {syntax} or ["ExplicitVRLittleEndian"]
            write(path, stored(dtype, bits), *written, BitsStored=bits)
            if syntax in BY_GDCM:
                recoded[path] = syntax
    recode(recoded)
    return folder


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_syntax_and_depth_gives_the_same_picture(folder: Path, syntax: str) -> None:
    for dtype, bits in KINDS:
        path, pixels = folder / f"{syntax}.{dtype}.{bits}", stored(dtype, bits)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.keyword == syntax
        low = int(pixels.min() < 0) * -(1 << (bits - 1))
        np.testing.assert_array_equal(grey(path), scaled(pixels, low, low + (1 << bits) - 1))


def test_baseline_jpeg_is_what_another_decoder_makes_of_it(folder: Path) -> None:
    path = folder / "JPEGBaseline8Bit.u1.8"
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.keyword == "JPEGBaseline8Bit"
    assert np.abs(grey(path).astype(int) - apart.decode(path.read_bytes())).max() <= 1


def test_a_file_that_ends_its_decoder_is_refused_and_the_next_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = folder / "JPEGLSLossless.u2.12"
    grey(good)
    process = apart._threads.process._process
    process.kill()
    process.wait()
    assert "JPEG-LS Lossless Image Compression: what decodes it came to an end over it" in reason(good)
    assert grey(good).any()
    assert "PixelData cannot be decoded" in reason(
        damaged(tmp_path / "a", lambda _: good.read_bytes().replace(b"\xff\xd8\xff", b"abc"))
    )

    def cut_short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(apart._Process, "ask", cut_short)
    with pytest.raises(MemoryError):
        apart.decode(good.read_bytes())
    assert apart._threads.process is None  # it would answer the next question with this file


@pytest.mark.slow
def test_only_a_dicom_file_loads_pydicom_and_nothing_loads_gdcm(folder: Path) -> None:
    program = (
        "import sys, pathlib; from lungdet.data.store.images import read_grey; assert 'pydicom' not in sys.modules; "
        "read_grey(pathlib.Path(sys.argv[1])); assert 'pydicom' in sys.modules; assert 'gdcm' not in sys.modules"
    )
    words = [sys.executable, "-c", program, str(folder / "JPEGLSLossless.u2.12")]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


WINDOWS = {
    "none": {},
    "linear": {"WindowCenter": 1500, "WindowWidth": 1200},
    "the first of several": {"WindowCenter": [900, 2000], "WindowWidth": [1000, 3000]},
    "a single step": {"WindowCenter": 2000, "WindowWidth": 1},
    "exact": {"WindowCenter": 2000, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
    "rescaled": {"RescaleSlope": 2.5, "RescaleIntercept": -1024, "WindowCenter": 1000, "WindowWidth": 4000},
    "rescaled, no window": {"RescaleSlope": -1, "RescaleIntercept": 4095},
    "table": {"VOILUTSequence": [table(*range(0, 4096, 2), first=1000, depth=12)], "WindowCenter": 9, "WindowWidth": 9},
    "modality table": {"ModalityLUTSequence": [table(*(x * x * 65535 // 4095**2 for x in range(4096)), depth=16)]},
}


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("kind", WINDOWS)
def test_windows_and_tables_are_as_pydicom_applies_them(tmp_path: Path, kind: str, photometric: str) -> None:
    path = write(tmp_path / "a", DEEP, BitsStored=12, PhotometricInterpretation=photometric, **WINDOWS[kind])
    dataset = pydicom.dcmread(path)
    values = apply_modality_lut(dataset.pixel_array, dataset)
    ends = np.sort(apply_modality_lut(np.array([0, 4095]), dataset))
    if dataset.get("VOILUTSequence"):
        values, ends = values.astype(int), (0, 4095)
    greys = scaled(apply_voi_lut(values, dataset).astype(float), *ends)
    expected = 255 - greys.astype(int) if photometric == "MONOCHROME1" else greys
    assert np.abs(grey(path).astype(int) - expected).max() <= (photometric == "MONOCHROME1")
    assert len(np.unique(grey(path))) > 1


def test_a_table_of_8_bits_may_have_more_entries_than_those_count(tmp_path: Path) -> None:
    entries = [*range(255, -1, -1)] * 8  # as pydicom 3 would not look it up
    path = write(tmp_path / "a", DEEP, BitsStored=12, VOILUTSequence=[table(*entries, first=1000)])
    np.testing.assert_array_equal(grey(path), np.array(entries)[(DEEP.astype(int) - 1000).clip(0, 2047)])
    signed = DEEP.astype(np.int16) - 2048
    path = write(tmp_path / "b", signed, BitsStored=12, VOILUTSequence=[table(*entries, first=65536 - 1048)])
    np.testing.assert_array_equal(grey(path), np.array(entries)[(signed.astype(int) + 1048).clip(0, 2047)])


def test_what_surrounds_the_image_is_black(tmp_path: Path) -> None:
    pixels = DEEP.astype(np.int16) - 2048
    pixels[:5] = -2000
    path = write(
        tmp_path / "a", pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=12, PixelPaddingValue=-2000
    )
    assert not grey(path)[:5].any()
    np.testing.assert_array_equal(grey(path)[pixels != -2000], 255 - scaled(pixels, -2048, 2047)[pixels != -2000])
    path = write(tmp_path / "a", DEEP, BitsStored=12, PixelPaddingValue=4095, PixelPaddingRangeLimit=4000)
    np.testing.assert_array_equal(grey(path) == 0, (scaled(DEEP, 0, 4095) == 0) | (DEEP >= 4000))


def test_the_picture_is_the_one_that_another_program_exports(tmp_path: Path) -> None:
    """GDCM decodes, the window is drawn by hand in whole numbers, Pillow writes a PNG: as viewers do."""
    tags = {"WindowCenter": 1800, "WindowWidth": 2001, "PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}
    path = write(tmp_path / "a", DEEP, **tags)
    recode({path: "JPEGLosslessSV1"})
    window = ((apart.decode(path.read_bytes()).astype(int) - 800) * 255 // 2000).clip(0, 255)
    Image.fromarray((255 - window).astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(grey(path).astype(int) - grey(tmp_path / "a.png")).max() <= 1


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "CT"}, "(0008,0060) Modality CT: no radiograph"),
        ({"Modality": "MG"}, "(0008,0060) Modality MG: no radiograph"),
        ({"NumberOfFrames": 2}, "(0028,0008) NumberOfFrames 2: a single image is needed"),
        ({"BodyPartExamined": "HAND"}, "(0018,0015) BodyPartExamined HAND: no chest"),
        ({"BodyPartExamined": "HAND" * 20}, "(0018,0015) BodyPartExamined of 80 signs: no chest"),
        ({"ViewPosition": "LL"}, "(0018,5101) ViewPosition LL: no frontal view"),
        ({"ViewPosition": "LATERAL"}, "(0018,5101) ViewPosition LATERAL: no frontal view"),
        ({"ViewPosition": "AP OBLIQUE"}, "(0018,5101) ViewPosition AP OBLIQUE: no frontal view"),
        ({"PatientOrientation": ["P", "F"]}, "(0020,0020) PatientOrientation P\\F: no frontal view"),
        (
            {"ViewPosition": None, "ImageLaterality": "L"},
            "(0020,0062) ImageLaterality L: of one side, and no ViewPosition",
        ),
        ({"PhotometricInterpretation": "RGB"}, "(0028,0004) PhotometricInterpretation RGB: a grey image is needed"),
        ({"PhotometricInterpretation": None}, "(0028,0004) PhotometricInterpretation missing"),
        ({"PixelRepresentation": None}, "no (0028,0103) PixelRepresentation"),
        ({"BitsStored": 12, "HighBit": 15}, "(0028,0102) HighBit 15: 11 is needed"),
        ({"BitsStored": 10}, "values beyond the 10 bits of (0028,0101) BitsStored"),
        ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels are more than"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "(0028,1051) WindowWidth 0 with (0028,1056) VOILUTFunction LINEAR"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "(0028,1053) RescaleSlope 0"),
        ({"VOILUTSequence": [table(1, 2, 900)]}, "(0028,3010) VOILUTSequence: 3 entries up to 900 contradict"),
        ({"VOILUTSequence": [Dataset()]}, "(0028,3010) VOILUTSequence is damaged"),
    ],
)
def test_what_is_no_frontal_chest_or_cannot_be_shown_is_refused_by_its_tag(
    tmp_path: Path, tags: dict[str, object], message: str
) -> None:
    assert message in reason(write(tmp_path / "a.dcm", DEEP, **tags))


@pytest.mark.parametrize(
    "tags",
    [
        {"Modality": None, "BodyPartExamined": None, "ViewPosition": None},
        {"Modality": "CR", "BodyPartExamined": "Tórax", "SpecificCharacterSet": "ISO_IR 192", "ViewPosition": "AP"},
        {"BodyPartExamined": "PORT CHEST", "ViewPosition": "POSTERO_ANTERIOR", "NumberOfFrames": 1},
        {"BodyPartExamined": "UNKNOWN", "ViewPosition": "AP AXIAL", "PatientOrientation": ["L", "F"]},
        {"ImageLaterality": "L"},
    ],
)
def test_what_the_tags_do_not_say_is_no_reason_to_refuse(tmp_path: Path, tags: dict[str, object]) -> None:
    assert grey(write(tmp_path / "a.dcm", DEEP, **tags)).shape == DEEP.shape


def test_a_damaged_file_is_refused_and_nobody_is_named(tmp_path: Path) -> None:
    for syntax in ("ExplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian", "RLELossless", "JPEG2000Lossless"):
        path = write(tmp_path / syntax, DEEP, syntax, BitsStored=12, **PERSON)
        damaged(path, lambda content: content[: len(content) * 2 // 3])
        assert any(word in reason(path) for word in ("PixelData", "damaged")), syntax
    path = damaged(tmp_path / "RLELossless", lambda content: content[:132])
    assert reason(path) == "no (7FE0,0010) PixelData, or the file is cut"
    path = damaged(write(tmp_path / "a", DEEP), lambda content: content.replace(b"1.2.840.10008.1.2", b"9" * 17))
    assert "99999999999999999.1' is not supported" in reason(path)
    path = damaged(write(tmp_path / "b", DEEP, "DeflatedExplicitVRLittleEndian"), lambda content: content[:-50])
    assert reason(path) == "the DICOM header is damaged (error)"
    (tmp_path / "a.dcm").write_bytes(b"no DICOM")
    assert "no PNG, JPEG, TIFF, BMP or DICOM image" in reason(tmp_path / "a.dcm")


def test_values_that_pydicom_warns_of_are_not_repeated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        path = write(tmp_path / "a", DEEP, PatientID="QX" * 99, WindowCenter="12345678901234567.25", WindowWidth="9e3")
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        header.header(path, ["PatientID", "WindowCenter"]).get("PatientID")
        grey(path)
    assert not caplog.text
    assert not caught


def test_without_pydicom_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", DEEP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    header.library.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'lungdet\[dicom\]'"):
        read_grey(path)


SHIPPED = {
    "image_dfl.dcm": None,
    "MR_small.dcm": "Modality MR",
    "693_J2KI.dcm": "Modality CT",
    "JPGExtended.dcm": "Modality NM",
    "JPEGLSNearLossless_08.dcm": None,
    "JPEGLSNearLossless_16.dcm": None,
    "examples_overlay.dcm": "Modality MR",
    "SC_rgb_jpeg_gdcm.dcm": "PhotometricInterpretation RGB",
    "liver_1frame.dcm": "Modality SEG",
    "rtplan.dcm": "Modality RTPLAN",
    "badVR.dcm": "Modality RTDOSE",
    "reportsi.dcm": "Modality SR",
    "priv_SQ.dcm": "no (7FE0,0010) PixelData",
    "meta_missing_tsyntax.dcm": "PhotometricInterpretation missing",
    "no_meta.dcm": "no PNG, JPEG, TIFF, BMP or DICOM image",
}
"""Of the files that pydicom comes with, why each is refused; None where it is read."""


@pytest.mark.parametrize("name", SHIPPED)
def test_the_files_that_pydicom_ships_are_read_or_refused_by_their_tag(name: str) -> None:
    path = Path(get_testdata_file(name, download=False))
    if SHIPPED[name] is not None:
        assert SHIPPED[name] in reason(path)
        return
    dataset = pydicom.dcmread(path)
    stored = apart.decode(path.read_bytes()) if "JPEGLS" in name else dataset.pixel_array
    values = (1 << dataset.BitsStored) - 1
    np.testing.assert_array_equal(grey(path), scaled(stored, 0, values))
