"""New images are decoded a piece ahead of the network, into the squares that the run's own became."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from lungdet.data.serving.batches import Batches
from lungdet.data.serving.loading import InOrder, Radiographs
from lungdet.data.store.depth import greys
from lungdet.data.store.images import Settings, opencv_on_one_thread, read_grey, square
from lungdet.errors import InputError, UnreadableImageError
from lungdet.machine import hardware
from lungdet.models.classifier import Classifier


class Decoded(NamedTuple):
    """A piece: its cases (N rows), their images (N, H, W) uint8, and why others have none, by `image_id`."""

    cases: pd.DataFrame
    images: np.ndarray
    reasons: dict[str, str]

    def batches(self, network: Classifier, size: int, device: torch.device) -> Batches:
        """The cases in their order, as a network reads them, `size` at a time."""
        manifest = self.cases.astype({"image_id": str}).assign(**dict.fromkeys(network.labels, np.float32("nan")))
        dataset = Radiographs(self.images, manifest, network.labels, network.visits)
        return Batches(dataset, InOrder(np.arange(len(manifest)), size, shuffle=False), device=device)


def decoded(pieces: Sequence[pd.DataFrame], settings: Settings, workers: int | None) -> Iterator[Decoded]:
    """Each piece in turn; while it is predicted, the next one is decoded, and no further one.

    Args:
        pieces: of cases, see `lungdet.inference.cases`; `file` is a path or an image (h, w) uint8 or uint16.
        settings: of the run; `bits` by dataset, or None, where it is not known of new 16-bit images.
        workers: threads; None takes one a core. Decoding and resizing hold no interpreter lock.

    Raises:
        InputError: the disk failed.
    """
    pool = ThreadPoolExecutor(workers or hardware.cores())

    def ask(piece: pd.DataFrame) -> list[Future]:
        return [pool.submit(_square, source, settings) for source in piece["file"]]

    try:
        with opencv_on_one_thread():
            pending = ask(pieces[0]) if len(pieces) else []
            for number, piece in enumerate(pieces):
                squares, pending = pending, ask(pieces[number + 1]) if number + 1 < len(pieces) else []
                yield _collected(piece, squares, settings.size)
    finally:
        pool.shutdown(cancel_futures=True)


def _collected(piece: pd.DataFrame, squares: list[Future], size: int) -> Decoded:
    images, reasons, usable = np.empty((len(piece), size, size), np.uint8), {}, []
    for row, (name, future) in enumerate(zip(piece["image_id"], squares, strict=True)):
        try:
            images[len(usable)] = future.result()
        except UnreadableImageError as error:
            reasons[name] = str(error)
        else:
            usable.append(row)
    return Decoded(piece.iloc[usable].reset_index(drop=True), images[: len(usable)], reasons)


def _square(source: Path | np.ndarray, settings: Settings) -> np.ndarray:
    """(size, size) uint8 of a file or an image."""
    try:
        grey = source if isinstance(source, np.ndarray) else read_grey(source)
    except PermissionError as error:
        raise UnreadableImageError("this user may not read it") from error
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}; what is finished is kept, run again to go on") from error
    if grey.dtype == np.uint8:
        return square(grey, replace(settings, bits=None))[0]
    _require_depth(int(grey.max()), settings)
    return greys(settings.bits)[square(grey, settings)[0]]


def _require_depth(largest: int, settings: Settings) -> None:
    bits = settings.bits
    if bits is None:
        raise UnreadableImageError("16 bit, and the run has read no such file: say how deep it is, bits=12 for example")
    if isinstance(bits, dict):
        depths = ", ".join(f"{dataset} {depth}" for dataset, depth in bits.items())
        raise UnreadableImageError(f"16 bit, and the run has read such files in several depths ({depths}): give bits=N")
    if largest >= 1 << bits:
        needed = largest.bit_length()
        raise UnreadableImageError(f"a value of {largest} does not fit bits={bits}; bits={needed} reads all so deep")
