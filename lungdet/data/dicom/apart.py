"""Decoding in a process of its own, for what only GDCM decodes: lossless JPEG and JPEG-LS.

A damaged file may end the process that GDCM works in, and it brings libraries (zlib, OpenSSL) that take the places of
those that Python has loaded. So neither is let into a process that trains.
"""

import io
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from lungdet.errors import UnreadableImageError

SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (51, 57, 70, 80, 81))
"""JPEG of 12 bits, lossless JPEG (twice), JPEG-LS (twice)."""

_LENGTH = 8
_threads = threading.local()


def decode(content: bytes) -> np.ndarray:
    """The pixels of a DICOM file as they are stored; each thread that asks has a process that answers.

    Raises:
        UnreadableImageError: it cannot be decoded.
    """
    process = getattr(_threads, "process", None)
    if process is None:
        process = _threads.process = _Process()
    try:
        answer = process.ask(content)
    except BaseException as error:
        _threads.process = None  # what it answers next may be of this file
        if isinstance(error, OSError):
            raise UnreadableImageError("what decodes it came to an end over it") from None
        raise
    if answer[:1] != b"+":
        raise UnreadableImageError(answer[1:].decode(errors="replace"))
    return np.load(io.BytesIO(answer[1:]), allow_pickle=False)


class _Process:
    """`decoder.py`, running until this goes."""

    def __init__(self) -> None:
        # In a session of its own: Ctrl-C is for this process, whose end is its end.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("decoder.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __del__(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, content: bytes) -> bytes:
        """One answer.

        Raises:
            OSError: the process has come to an end.
        """
        self._process.stdin.write(len(content).to_bytes(_LENGTH, "little") + content)
        self._process.stdin.flush()
        head = self._process.stdout.read(_LENGTH)
        length = int.from_bytes(head, "little")
        answer = self._process.stdout.read(length)
        if len(head) < _LENGTH or len(answer) < length:
            raise BrokenPipeError
        return answer
