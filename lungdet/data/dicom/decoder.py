"""The process that `apart` starts, by this file's path: it decodes DICOM files, one after the other, until it is left.

A question is the length of a file and its bytes; an answer its length, then `+` and an array as .npy, or `-` and why
there is none.
"""

import io
import os
import struct
import sys
import zlib  # noqa: F401  before GDCM, whose own zlib would take its place and corrupt the memory

import numpy as np
import pydicom.pixels

LENGTH = struct.Struct("<Q")


def main() -> None:
    """Answer until nobody asks."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what decoders print is no answer
    while head := questions.read(LENGTH.size):
        answer = _answer(questions.read(*LENGTH.unpack(head)))
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()


def _answer(content: bytes) -> bytes:
    try:
        pixels = pydicom.pixels.pixel_array(io.BytesIO(content), correct_unused_bits=False)
    except Exception as error:  # whatever a damaged file leads a decoder to
        return b"-" + (str(error) or type(error).__name__).encode()
    array = io.BytesIO()
    np.save(array, pixels, allow_pickle=False)
    return b"+" + array.getvalue()


if __name__ == "__main__":
    main()
