"""One file to one grey array: every form a radiograph comes in, every way in which it is broken."""

import io
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from lungdet.data.store.images import Settings, read_grey, read_square, resize
from lungdet.errors import UnreadableImageError


@pytest.fixture
def ramp():
    return np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)


def reason(path, settings=None):
    with pytest.raises(UnreadableImageError) as caught:
        read_grey(path) if settings is None else read_square(path, settings)
    return str(caught.value)


def png(width, height, depth, colour, rows):
    """A PNG file written by hand, for what Pillow does not write: 16-bit colour, impossible sizes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_every_8_bit_form_gives_the_same_grey(tmp_path, ramp, mode):
    image = Image.fromarray(ramp)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.roll(ramp, 7)))
    image.convert(mode).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.mode == mode
    grey = read_grey(tmp_path / "a.png")
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, ramp)


def test_black_and_white_becomes_0_and_255(tmp_path, ramp):
    Image.fromarray(ramp > 90).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png"), np.where(ramp > 90, 255, 0))


def test_a_palette_is_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([10, 10, 10, 200, 200, 200, 90, 90, 90])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png"), [[10, 200], [90, 200]])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_named_png_is_read(tmp_path, ramp, mode):
    smooth = cv2.resize(ramp, (240, 160))
    image = Image.fromarray(smooth)
    (image.convert("RGB") if mode in ("CMYK", "YCbCr") else image).convert(mode).save(
        tmp_path / "a.png", "JPEG", quality=95
    )
    assert np.abs(read_grey(tmp_path / "a.png").astype(int) - smooth).mean() < 3


@pytest.mark.parametrize(("name", "dtype"), [("a.png", "<u2"), ("a.tif", "<u2"), ("a.tif", ">u2")])
def test_16_bit_values_are_kept_in_either_byte_order(tmp_path, ramp, name, dtype):
    deep = ramp.astype(np.uint16) * 16 + 5
    Image.fromarray(deep.astype(dtype)).save(tmp_path / name)
    grey = read_grey(tmp_path / name)
    assert grey.dtype == np.uint16
    assert grey.dtype.isnative
    np.testing.assert_array_equal(grey, deep)


def test_32_bit_integers_are_read_if_they_fit(tmp_path, ramp):
    Image.fromarray(ramp.astype(np.int32) * 100).save(tmp_path / "fits.tif")
    np.testing.assert_array_equal(read_grey(tmp_path / "fits.tif"), ramp.astype(np.uint16) * 100)
    Image.fromarray(ramp.astype(np.int32) * 1000).save(tmp_path / "wide.tif")
    assert "do not fit 16 bits" in reason(tmp_path / "wide.tif")
    Image.fromarray(ramp.astype(np.int32) - 5).save(tmp_path / "negative.tif")
    assert "values from -5" in reason(tmp_path / "negative.tif")


def test_depth_that_would_be_lost_is_refused(tmp_path, ramp):
    for colour, channels in ((2, 3), (4, 2), (6, 4)):
        (tmp_path / "a.png").write_bytes(png(4, 1, 16, colour, bytes(range(1 + 8 * channels))))
        assert "save as plain 16-bit grey" in reason(tmp_path / "a.png")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tif")
    assert "floating-point" in reason(tmp_path / "float.tif")
    wide = cv2.cvtColor(ramp.astype(np.uint16) * 256, cv2.COLOR_GRAY2BGR)
    cv2.imwrite(str(tmp_path / "colour.tif"), wide)
    assert "save as plain 16-bit grey" in reason(tmp_path / "colour.tif")
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    assert "0 is white" in reason(tmp_path / "inverted.tif")


def test_exif_orientation_is_applied(tmp_path, ramp):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg"):
        Image.fromarray(ramp).save(tmp_path / name, exif=exif)
        assert read_grey(tmp_path / name).shape == ramp.shape[::-1]
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png"), np.rot90(ramp, -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, kind)
    (tmp_path / "a.png").write_bytes(whole.getvalue()[: int(share * whole.tell())])
    assert "truncated" in reason(tmp_path / "a.png").lower()


def test_damaged_pixels_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 200):
        content[place] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    assert reason(tmp_path / "a.png")


def test_what_is_no_image_is_refused_with_its_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    assert reason(tmp_path / "empty.png") == "empty file"
    (tmp_path / "text.png").write_text("<html>404 not found</html>")
    assert "no PNG, JPEG" in reason(tmp_path / "text.png")
    assert reason(tmp_path / "missing.png") == "no such file"
    assert "directory" in reason(tmp_path)
    (tmp_path / "nothing.png").write_bytes(png(0, 5, 8, 0, b""))
    assert reason(tmp_path / "nothing.png")
    (tmp_path / "page.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "no PNG, JPEG" in reason(tmp_path / "page.png")


@pytest.mark.parametrize("side", [8200, 13000, 60000])  # the second is below Pillow's own limit, and would take 1 GB
def test_a_small_file_that_claims_many_pixels_is_not_unpacked(tmp_path, monkeypatch, side):
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 6, b"\0"))
    monkeypatch.setattr(Image.Image, "load", None)
    assert re.search("too large|pixels are more than 67,108,864; scale it down", reason(tmp_path / "bomb.png"))


def test_several_images_in_one_file_are_refused(tmp_path, ramp):
    pages = [Image.fromarray(ramp), Image.fromarray(ramp)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert "2 images in one file" in reason(tmp_path / "a.tif")


def test_a_blank_image_is_unusable(tmp_path):
    for value in (0, 77):
        Image.fromarray(np.full((9, 9), value, np.uint8)).save(tmp_path / "a.png")
        assert reason(tmp_path / "a.png", Settings()) == f"blank: every pixel is {value}"


def test_a_value_beyond_the_given_depth_names_the_depth_needed(tmp_path, ramp):
    Image.fromarray(ramp.astype(np.uint16) * 16).save(tmp_path / "a.png")
    largest = int(ramp.max()) * 16
    assert f"{largest} does not fit data.bits=10; set data.bits=12" in reason(tmp_path / "a.png", Settings(bits=10))
    assert read_square(tmp_path / "a.png", Settings(bits=12))[1] == largest


def test_squash_fills_the_square():
    grey = np.zeros((100, 300), np.uint8)
    grey[:, 150:] = 200
    square = resize(grey, 10, "squash")
    np.testing.assert_array_equal(square, np.repeat([[0, 200]], [10], axis=0).repeat(5, axis=1))


def test_pad_keeps_the_aspect_and_centres():
    square = resize(np.full((100, 300), 200, np.uint8), 30, "pad")
    assert (square[10:20] == 200).all()
    assert not square[:10].any()
    assert not square[20:].any()
    assert (resize(np.full((300, 100), 9, np.uint16), 30, "pad")[:, 10:20] == 9).all()
    assert resize(np.full((1, 3000), 9, np.uint8), 30, "pad").any()


def test_crop_keeps_the_aspect_and_takes_the_centre():
    grey = np.zeros((100, 300), np.uint8)
    grey[:, 100:200] = 200
    assert (resize(grey, 10, "crop") == 200).all()
    assert (resize(grey.T, 10, "crop") == 200).all()


def test_shrinking_averages_and_growing_does_not_overshoot():
    board = np.indices((448, 448)).sum(0).astype(np.uint8) % 2 * 200
    assert (resize(board, 224, "squash") == 100).all()
    # One axis grows, the other shrinks: the shrinking one still averages.
    stripes = np.tile(np.array([200, 0, 0, 200], np.uint8), (100, 224))
    assert (resize(stripes, 224, "squash") == 100).all()
    edge = np.zeros((8, 8), np.uint16)
    edge[:, 4:] = 4095
    grown = resize(edge, 50, "squash")
    assert grown.dtype == np.uint16
    assert grown.max() == 4095
    assert (np.diff(grown.astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"resize": "squahs"}, {"bits": 17}, {"bits": 0}, {"bits": "12%"}, {"bits": True}]
)
def test_a_wrong_setting_names_its_key_and_value(wrong):
    key, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"data.{'image_size' if key == 'size' else key}={value}"):
        Settings(**wrong)


def test_real_originals_agree_with_opencv(real_data):
    for file in sorted((real_data / "ChestX-ray14" / "images").glob("*.png"))[::30]:
        np.testing.assert_array_equal(read_grey(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
