"""Batches made on the GPU: the whole store lies in its memory, workers only say which images, and how each is moved.

Augmentation is the workers' up to interpolation: with OpenCV 5 one pixel in a thousand is a grey level off; earlier
versions round places to 1/32 pixel.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from lungdet.data.serving.loading import Radiographs

log = logging.getLogger(__name__)

LOADERS: tuple[str, ...] = ("auto", "device", "workers")
"""Where batches are made: in the device's memory, by worker processes, or the first where it is a GPU with room."""

_PADDING = {"reflect": "reflection", "replicate": "border", "constant": "zeros"}  # torch's names of `BORDERS`
_SHARE = 1 / 4  # of the free memory that the store may take; the rest is for the model
_PIECE = 64 << 20  # bytes that pass through host memory at once


class Warps(Radiographs):
    """A batch of `Radiographs` without pixels, but with the fields of which `image` makes them.

    `read` (S,) are rows of the store; `matrix` (S, 2, 3), `table` (S, 256) and `rectangle` (S, 5) are those of
    `lungdet.data.augment.Augmentation`, each missing where it changes no image.
    """

    def pixels(
        self, read: np.ndarray, names: Sequence[str], allocate: Callable[[tuple[int, ...]], np.ndarray]
    ) -> dict[str, np.ndarray]:
        """What `image` needs."""
        fields = {"read": read}
        if self.augmentation is not None:
            size = self.stored.shape[1:]
            fields["matrix"] = self.augmentation.matrices(names, *size)
            fields["table"] = self.augmentation.tables(names)
            fields["rectangle"] = self.augmentation.rectangles(names, *size)
        return {name: field for name, field in fields.items() if field is not None}

    def image(self, images: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The images of a batch, made of the fields of it that are for nothing else; these are taken out.

        Args:
            images: the store's (N, H, W).
            batch: on the same device.

        Returns:
            (S, 1, H, W) float32 in [0, 1], of whole greys, as of the workers.
        """
        image = images[batch.pop("read")].unsqueeze(1).float()
        if (matrix := batch.pop("matrix", None)) is not None:
            image = warp(image, matrix, self.augmentation.border).round_()
        if (table := batch.pop("table", None)) is not None:
            image = table.gather(1, image.flatten(1).long()).view(image.shape).float()
        if (rectangle := batch.pop("rectangle", None)) is not None:
            image = erase(image, rectangle)
        return image.div_(255)


def warp(image: torch.Tensor, matrix: torch.Tensor, border: str) -> torch.Tensor:
    """Each image (S, 1, H, W) moved by its matrix (S, 2, 3), bilinear.

    Args:
        image: of any floating type.
        matrix: from a pixel's place (x, y, 1) afterwards to its place before, in pixels, float32.
        border: what lies beyond the image's edge, of `lungdet.data.augment.BORDERS`.
    """
    height, width = image.shape[-2:]
    # grid_sample counts from -1, the first pixel, to 1, the last. Its matrix is small, so that of all that is as large
    # as the images only one sum is left.
    sides = zip(matrix.unbind(1), (width, height), strict=True)
    counted = torch.stack([row * (2 / max(1, side - 1)) for row, side in sides], -1)
    by_x, by_y, start = counted[:, :, None, None].unbind(1)
    x = torch.arange(width, device=image.device, dtype=matrix.dtype)[:, None]
    y = torch.arange(height, device=image.device, dtype=matrix.dtype)[:, None, None]
    # Not affine_grid: it multiplies matrices, which a GPU may be told to do in TF32, wrong by a tenth of a pixel.
    grid = by_x * x + (by_y * y + (start - 1))
    # With corners aligned, the outermost pixels' centres are the edges that a reflection is counted from.
    return functional.grid_sample(image, grid.to(image.dtype), "bilinear", _PADDING[border], align_corners=True)


def erase(image: torch.Tensor, rectangle: torch.Tensor) -> torch.Tensor:
    """Each image (S, 1, H, W) with its rectangle (S, 5) in one grey: left, top, right, bottom, grey."""
    left, top, right, bottom, grey = rectangle[:, :, None].unbind(1)
    height, width = (torch.arange(side, device=image.device) for side in image.shape[-2:])
    columns, rows = (width >= left) & (width < right), (height >= top) & (height < bottom)
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, grey[:, None, None].to(image.dtype), image)


class Resident:
    """The store in the memory of the device that computes, loaded once; how `data.loader` has it.

    Args:
        loader: of `LOADERS`.
    """

    def __init__(self, loader: str) -> None:
        self._loader, self._images, self._reason = loader, None, ""

    def images(self, path: Path, device: torch.device | None) -> torch.Tensor | None:
        """The store's `images.npy` in the device's memory; None where worker processes make batches.

        Args:
            path: of `images.npy`.
            device: the trainer's; None where there is no trainer: whatever device holds the images already.
        """
        if self._images is None or device not in (None, self._images.device):
            place, reason = choose(self._loader, path, device)
            if reason != self._reason:
                log.info("batches are made %s: %s", f"on {place}" if place is not None else "by workers", reason)
            self._images, self._reason = load(path, place) if place is not None else None, reason
        return self._images


def load(images: Path, device: torch.device) -> torch.Tensor:
    """The store's `images.npy`, (N, H, W) uint8, in the device's memory; through the host's in small pieces."""
    stored = np.load(images, mmap_mode="r")
    tensor = torch.empty(stored.shape, dtype=torch.uint8, device=device)
    step = max(1, _PIECE // stored[0].size)
    for start in range(0, len(stored), step):
        tensor[start : start + step] = torch.from_numpy(np.array(stored[start : start + step]))
    return tensor


def choose(loader: str, images: Path, device: torch.device | None) -> tuple[torch.device | None, str]:
    """On which device batches are made, None being by worker processes, and why.

    Args:
        loader: of `LOADERS`.
        images: the store's `images.npy`.
        device: the trainer's; None where there is no trainer.
    """
    if loader == "workers":
        return None, "data.loader=workers"
    if loader == "device":
        if device is None:
            device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        return device, "data.loader=device"
    if device is None or device.type != "cuda":
        return None, "there is no trainer yet" if device is None else f"the trainer's device is {device}, no CUDA GPU"
    needed, (free, _) = images.stat().st_size, torch.cuda.mem_get_info(device)
    fits = needed <= free * _SHARE
    size = f"{needed / 2**30:.1f} GiB, {'no more' if fits else 'more'} than a quarter of {free / 2**30:.1f} free GiB"
    return device if fits else None, f"the store is {size}"
