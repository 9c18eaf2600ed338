"""From the prepared store to batches: in which order the images come, and what a batch holds."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch.utils.data import Dataset, Sampler

from lungdet.data.augment import Augmentation, draw
from lungdet.data.serving.series import Series


class Draws(NamedTuple):
    """The cases of a batch: their rows in the store (N,), the epoch, and which appearance in it each one is (N,)."""

    row: np.ndarray
    epoch: int = 0
    occurrence: np.ndarray | int = 0


class Radiographs(Dataset):
    """Prepared radiographs, fetched a batch at a time.

    Args:
        images: the store's `images.npy`; opened where it is read, so that a worker maps the file and copies nothing. Or
            images at hand (N, H, W) uint8, which no worker reads.
        manifest: of the store, row by row.
        labels: the columns that are told, L of them.
        visits: how many of a patient's images a case is at most, see `lungdet.data.serving.series`.
        augmentation: None leaves the images as they are.
        seed: of the augmentation's draws.
        degradation: what images of poorer quality are tested with, see `lungdet.data.serving.degrade`.
    """

    def __init__(
        self,
        images: Path | np.ndarray,
        manifest: pd.DataFrame,
        labels: Sequence[str],
        visits: int = 1,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        degradation: Callable[[np.ndarray, str], np.ndarray] | None = None,
    ) -> None:
        # Not Python's strings: counting references to them, each worker would come to own a copy of their memory.
        at_hand = isinstance(images, np.ndarray)
        self.path, self._images = (None, images) if at_hand else (images, None)
        self.image_ids = manifest["image_id"].to_numpy(dtype=np.dtypes.StringDType())
        self.case = np.array([zlib.crc32(name.encode()) for name in manifest["image_id"]])
        self.targets = manifest[[*labels]].to_numpy(np.float32)
        self.when = manifest[["age", "visit"]].to_numpy(np.float32)
        self.series = Series(manifest, visits)
        self.augmentation, self.seed, self.degradation = augmentation, seed, degradation

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, draws: Draws) -> dict[str, np.ndarray]:
        """The batch of these draws; `lungdet.data.serving.batches.Batches` finishes it.

        Returns:
            `image` (S, 1, H, W) uint8, real images only, case by case in visit order; `length` (N,), the images of
            each case, whose sum is S; `when` (S, 2) float32, the patient's age and the number of the visit, NaN where
            unknown; `target` (N,) or (N, L) float32, NaN where unknown; `row` (N,), the case's row in the store; `case`
            (N,), a number that its image id alone decides. Single images have length 1, so S = N.
        """
        return self.batch(draws, lambda shape: np.empty(shape, np.uint8))

    def batch(self, draws: Draws, allocate: Callable[[tuple[int, ...]], np.ndarray]) -> dict[str, np.ndarray]:
        """The same, its images in the array of their shape that `allocate` gives: uint8, or float32 in [0, 1]."""
        length, read = self.series.length(draws.row), self.series.of(draws.row)
        names = []
        if self.augmentation is not None:
            occurrence = np.repeat(np.broadcast_to(draws.occurrence, length.shape), length)
            drawn = zip(self.image_ids[read].tolist(), occurrence.tolist(), strict=True)
            names = [draw(self.seed, draws.epoch, name, appearance) for name, appearance in drawn]
        target = self.targets[draws.row]
        return {
            **self.pixels(read, names, allocate),
            "length": length,
            "when": self.when[read],
            "target": target[:, 0] if target.shape[1] == 1 else target,
            "row": draws.row,
            "case": self.case[draws.row],
        }

    def pixels(
        self, read: np.ndarray, names: Sequence[str], allocate: Callable[[tuple[int, ...]], np.ndarray]
    ) -> dict[str, np.ndarray]:
        """`image` (S, 1, H, W) of these rows of the store (S,), each augmented by the draw of its name."""
        size = self.stored.shape[1:]
        batch, images = allocate((len(read), 1, *size)), map(self.stored.__getitem__, read.tolist())
        if self.augmentation is not None:
            images = self.augmentation(images, names, *size)
        if self.degradation is not None:
            images = map(self.degradation, images, self.image_ids[read].tolist())
        # One after the other, not step by step: an image stays in the processor's cache until it is where it belongs.
        for image, place in zip(images, batch[:, 0], strict=True):
            if batch.dtype == np.uint8:
                place[:] = image
            else:
                np.divide(image, np.float32(255), out=place)
        return {"image": batch}

    @property
    def stored(self) -> np.ndarray:
        """All images (N, H, W) uint8, mapped."""
        if self._images is None:
            self._images = np.asarray(np.load(self.path, mmap_mode="r"))
        return self._images

    def __getstate__(self) -> dict:
        # A pickled memory map would be the whole store.
        return self.__dict__ | {"_images": None}


class InOrder(Sampler[Draws]):
    """Batches of rows in their own order, or shuffled anew each epoch, shared out among ranks.

    With `strata` an epoch holds as many images of each stratum, as many in all: of large strata some are left out, of
    small ones each comes several times, evenly.

    The order depends on (seed, epoch) alone: the global batch k is the same set of images for any number of ranks,
    each rank taking its `batch_size` of it. Where the images do not fill the last round, the first ones come again so
    that all ranks make the same number of steps, and that no rank trains on a single one, of which batch norm may have
    no statistics; whoever evaluates counts each row once.
    """

    def __init__(
        self,
        rows: np.ndarray,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        strata: np.ndarray | None = None,
    ) -> None:
        self.rows, self.batch_size, self.shuffle, self.seed, self.strata = rows, batch_size, shuffle, seed, strata
        self.rank, self.world_size, self.epoch = rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The batches that each rank makes."""
        return -(-len(self.rows) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Draws]:
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.strata is not None:
            order = _balanced(self.rows, self.strata, generator)
        else:
            order = generator.permutation(self.rows) if self.shuffle else self.rows
        share = self.batch_size * self.world_size
        total = -(-len(self.rows) // self.world_size) * self.world_size
        if self.shuffle and self.batch_size > 1 and total % share == self.world_size:
            total += self.world_size
        order = np.resize(order, total)
        appearance = pd.Series(order).groupby(order).cumcount().to_numpy()
        for start in range(0, total, share):
            count = (min(start + share, total) - start) // self.world_size
            batch = slice(start + self.rank * count, start + (self.rank + 1) * count)
            yield Draws(order[batch], self.epoch, appearance[batch])


def _balanced(rows: np.ndarray, strata: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As many rows as there are, each stratum's share the same but for one, shuffled."""
    members = [rows[strata == stratum] for stratum in np.unique(strata)]
    shares = np.full(len(members), len(rows) // len(members))
    shares[generator.permutation(len(members))[: len(rows) % len(members)]] += 1
    chosen = [
        np.concatenate([generator.permutation(images) for _ in range(-(-share // len(images)))])[:share]
        for images, share in zip(members, shares, strict=True)
    ]
    return generator.permutation(np.concatenate(chosen))
