"""Images that stand twice in a prepared store: hashes propose pairs, the correlation of the aligned images decides.

Pixels only; who the patients are is the business of `lungdet.data.splitting.leaks`. A copy is the same exposure again,
be it recompressed, resized, cropped by some pixels, brightened or inverted. Another exposure of the same chest is none.
A mirrored, rotated or widely cropped copy is not found.

How sure that is, measured on 450 originals of ChestX-ray14 and 18 images of Shenzhen (241 patients), 224 x 224:

- Found: 1,788 of 1,800 copies made of 300 of them. All of those recompressed as JPEG of quality 50 to 90, cut by up to
  2 pixels on each side (before or after the resize), changed in brightness, contrast or gamma, or resized; 96 % of
  those that all of this was done to in a row.
- False alarms on the 6.3 billion pairs of ChestX-ray14: far less than one expected. Some 20,000 to 70,000 pairs would
  be proposed and compared (log-linear tails of the similarity of 108,817 pairs' hashes; none of those is proposed).
  The 6,000 most similar ones of those pairs correlate at .28 at most, and a copy needs .75: an exponential tail in
  Fisher's z, fitted to their upper tenth, gives a compared pair a chance of 1e-15. That rests on images selected by
  others and on the tails' form, and says nothing of what is no chest film (one and the same test picture or placard).
- Two exposures of one patient reach .54 (460 pairs), different phantoms .71: a patient who has two numbers is not
  found by this, unless the very same image stands under both.

Smaller images show less. At 64 x 64, of the copies cut by up to 2 of the 64 pixels half are missed (and 62 % of those
that everything was done to); of the others one in 1,200.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet

from lungdet.data.store.alignment import aligned_correlation, enough_correlation
from lungdet.data.store.images import opencv_on_one_thread
from lungdet.machine import hardware

log = logging.getLogger(__name__)

VERSION = 1
"""Raised whenever the same pixels would give other pairs."""

BITS, DISTANCE = 255, 57
"""The bits of a hash, and how many may differ for the images to be compared; those of a negative all differ."""

COMPARED = 100_000
"""Pairs compared at most, the most similar ones: minutes, where thousands of images look alike."""


def search(images: Sequence[np.ndarray]) -> pd.DataFrame:
    """Every image that stands twice, with one that it is a copy of.

    Of k copies of one image k - 1 pairs are given: they name each of the k and link them all.

    Args:
        images: N of (H, H) uint8; read one by one, so that a memory map larger than the memory will do.

    Returns:
        `row_a` < `row_b`, `kind` ("identical": the same pixels, or "near") and `correlation`, sorted by rows.
    """
    hashes = perceptual_hashes(images)
    identical = _identical(images, hashes)
    once = np.setdiff1d(np.arange(len(images)), identical["row_b"])
    a, b, bits = propose(hashes[once])
    near = _confirm(images, once[a], once[b], bits > BITS / 2)
    return pd.concat([identical, near]).sort_values(["row_a", "row_b"], ignore_index=True)


def perceptual_hashes(images: Sequence[np.ndarray]) -> np.ndarray:
    """The signs of each image's 255 lowest frequencies as bits, (N, 4) uint64; the last bit is 0.

    These are coefficients of the cosine transform of a 32 x 32 thumbnail, as in pHash, but of 16 x 16 of them instead
    of 8 x 8: that tells a cropped copy from another chest, which the usual 64 bits do not.
    """
    hashes = np.empty((len(images), 4), np.uint64)

    def fill(start: int) -> None:
        for row in range(start, min(start + 256, len(images))):
            small = cv2.resize(images[row], (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
            hashes[row] = np.packbits(cv2.dct(small)[:16, :16].ravel()[1:] > 0).view(np.uint64)

    _in_threads(fill, range(0, len(images), 256))
    return hashes


def propose(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of like hashes, the most similar first.

    Returns:
        (M,) first rows, (M,) second rows, (M,) bits that differ, more than half of them where one image is the other's
        negative.
    """
    words = np.ascontiguousarray(hashes.T)
    total, best = 0, _best([])

    def compare(top: int) -> tuple[int, tuple]:
        """256 rows with all rows after them, in blocks that fit the processor's cache."""
        count, best = 0, _best([])
        for start in range(top, len(hashes), 4096):
            bits = np.bitwise_count(words[0, top : top + 256, None] ^ words[0, start : start + 4096])
            for word in words[1:]:
                bits += np.bitwise_count(word[top : top + 256, None] ^ word[start : start + 4096])
            rows, columns = np.nonzero((bits <= DISTANCE) | (bits >= BITS - DISTANCE))
            upper = rows + top < columns + start
            if upper.any():
                rows, columns = rows[upper], columns[upper]
                best = _best([best, (rows + top, columns + start, bits[rows, columns])])
                count += len(rows)
        return count, best

    tops = range(0, len(hashes), 256)
    for start in range(0, len(tops), 8):
        for count, pairs in _in_threads(compare, tops[start : start + 8]):
            total += count
            best = _best([best, pairs])
    if total > COMPARED:
        log.warning(
            "%s pairs of images look alike, too many to compare; copies are sought among the %s most similar ones",
            f"{total:,}",
            f"{COMPARED:,}",
        )
    return best


def _identical(images: Sequence[np.ndarray], hashes: np.ndarray) -> pd.DataFrame:
    """Images of the same pixels, each with the first of them; pixels are read only where hashes are equal."""
    first: dict[bytes, int] = {}
    pairs = []
    for row in np.flatnonzero(pd.DataFrame(hashes).duplicated(keep=False)).tolist():
        digest = hashlib.sha256(images[row].tobytes()).digest()
        if first.setdefault(digest, row) != row:
            pairs.append((first[digest], row, "identical", 1.0))
    return _frame(pairs)


def _confirm(images: Sequence[np.ndarray], a: np.ndarray, b: np.ndarray, negative: np.ndarray) -> pd.DataFrame:
    """The proposed pairs that are copies, save those that are linked by confirmed ones before them."""

    def compare(i: int) -> float:
        return aligned_correlation(images[a[i]], images[b[i]], negative=bool(negative[i]))

    linked, pairs, enough = DisjointSet([*a, *b]), [], enough_correlation(len(images[0]))
    for start in range(0, len(a) if enough <= 1 else 0, 256):
        todo = [i for i in range(start, min(start + 256, len(a))) if not linked.connected(a[i], b[i])]
        for i, correlation in zip(todo, _in_threads(compare, todo), strict=True):
            if correlation >= enough and linked.merge(a[i], b[i]):
                pairs.append((int(a[i]), int(b[i]), "near", correlation))
    return _frame(pairs)


def _frame(pairs: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(pairs, columns=["row_a", "row_b", "kind", "correlation"])
    return frame.astype({"row_a": "int64", "row_b": "int64", "kind": "str", "correlation": "float64"})


def _best(blocks: list[tuple]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most similar pairs, as many as are compared."""
    if not blocks:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)
    a, b, bits = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    order = np.argsort(np.minimum(bits, BITS - bits), kind="stable")[:COMPARED]
    return a[order], b[order], bits[order]


def _in_threads(work: Callable[[int], Any], items: Sequence[int]) -> list:
    """`work` on every item, on every core: OpenCV holds no interpreter lock."""
    with opencv_on_one_thread(), ThreadPoolExecutor(hardware.cores()) as pool:
        return list(pool.map(work, items))
