"""What the images of a run look like, and how unlike them another one is: in its layout and in its exposure.

Both are distances (Mahalanobis') from the training images, of numbers that any prepared image has; no network is asked.
Layout is an 8 x 8 thumbnail without its brightness and contrast: a film that lies on its side, a part of one, another
subject. Exposure is the distribution of the greys, how they change from pixel to pixel, and the borders: an inverted
film, a faint, a blurred or a noisy one. What this tells and what not is measured in docs/predict.md.
"""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from lungdet.errors import RunError
from lungdet.machine.writing import replacing

NAME = "reference.npz"
"""Of the file in a run folder."""
SAMPLE = 2000
"""Images of a part that are looked at, at most."""
SHARE = 0.99
"""Of the validation images, that are not flagged."""
THUMBNAIL, FRAME = 8, 0.06
"""Side of the thumbnail, pixels; width of the borders, as a share of the image's side."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LEAST = 0.01
"""The least deviation that numbers are taken to have: images that are all alike would make any other infinitely far."""


@dataclass(frozen=True)
class Spread:
    """Where D numbers of the training images lie.

    Attributes:
        center: (D,), their mean.
        whitening: (D, D): differences from the mean times this have the length that is their distance.
        usual: that of the validation image that as many lie below as `SHARE` says.
    """

    center: np.ndarray
    whitening: np.ndarray
    usual: float

    @classmethod
    def of(cls, train: np.ndarray, val: np.ndarray) -> Self:
        """Of the numbers (N, D) of training and validation images; few images have their covariance shrunk."""
        from sklearn.covariance import LedoitWolf  # a second, which who only predicts need not wait for

        center, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), LEAST)
        covariance = LedoitWolf(assume_centered=True).fit((train - center) / deviation).covariance_
        variances, directions = np.linalg.eigh(covariance)
        whitening = directions / np.sqrt(np.maximum(variances, 1e-6)) / deviation[:, None]
        return cls(center, whitening, _most(np.linalg.norm((val - center) @ whitening, axis=1)))

    def distance(self, numbers: np.ndarray) -> np.ndarray:
        """Of each row (N, D), in those of `usual`."""
        return np.linalg.norm((numbers - self.center) @ self.whitening, axis=1) / self.usual


@dataclass(frozen=True)
class Reference:
    """The images that a run knows.

    Attributes:
        layout, exposure: where theirs lie.
        usual: the larger of the two distances, of the validation image that `SHARE` of them lie below.
    """

    layout: Spread
    exposure: Spread
    usual: float

    @classmethod
    def of(cls, images: np.ndarray, train: np.ndarray, val: np.ndarray) -> Self:
        """Of prepared images (N, H, W) uint8, given the rows of the training and of the validation part."""
        train, val = (_numbers(images[row] for row in _sample(rows)) for rows in (train, val))
        layout, exposure = (Spread.of(*numbers) for numbers in zip(train, val, strict=True))
        farthest = np.maximum(layout.distance(val[0]), exposure.distance(val[1]))
        return cls(layout, exposure, _most(farthest))

    def unlike(self, images: np.ndarray) -> np.ndarray:
        """How unlike the run's own each image is, (N,): above 1 it is more so than 99 % of the validation images.

        Args:
            images: (N, H, W) uint8, prepared as the run's own were.
        """
        layout, exposure = _numbers(images)
        return np.maximum(self.layout.distance(layout), self.exposure.distance(exposure)) / self.usual

    def write(self, run: Path) -> None:
        """Keep it in a run folder, whole or not at all."""
        spreads = {"layout": self.layout, "exposure": self.exposure}
        arrays = {f"{name}_{key}": value for name, spread in spreads.items() for key, value in vars(spread).items()}
        with replacing(run / NAME) as file:
            np.savez(file, usual=self.usual, **arrays)

    @classmethod
    def read(cls, run: Path) -> Self | None:
        """A run's, if it has kept one.

        Raises:
            RunError: the file is damaged.
        """
        path = run / NAME
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                spreads = [
                    Spread(arrays[f"{name}_center"], arrays[f"{name}_whitening"], float(arrays[f"{name}_usual"]))
                    for name in ("layout", "exposure")
                ]
                return cls(*spreads, float(arrays["usual"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RunError(
                f"{path} is damaged ({error}); ask for another copy of the run, or delete the file"
            ) from error


def _numbers(images: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What is looked at of images (H, W) uint8: layouts (N, 64) and exposures (N, 16)."""
    layouts, exposures = [np.empty((0, THUMBNAIL**2))], [np.empty((0, len(QUANTILES) + 9))]
    for image in images:
        layouts.append(_layout(image)[None])
        exposures.append(_exposure(image)[None])
    return np.concatenate(layouts), np.concatenate(exposures)


def _layout(image: np.ndarray) -> np.ndarray:
    thumbnail = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).ravel() / 255
    return (thumbnail - thumbnail.mean()) / (thumbnail.std() + 0.02)  # of a blank one, noise would become a picture


def _exposure(image: np.ndarray) -> np.ndarray:
    """Greys in [0, 1]: quantiles, mean, deviation; logarithms of mean changes down, across, and of these; borders."""
    count = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel() / image.size
    greys, below = np.arange(256) / 255, count.cumsum()
    mean = count @ greys
    deviation = np.sqrt(max(count @ greys**2 - mean**2, 0))
    changes = [
        cv2.norm(image[1:], image[:-1], cv2.NORM_L1),
        cv2.norm(image[:, 1:], image[:, :-1], cv2.NORM_L1),
        cv2.norm(cv2.Laplacian(image, cv2.CV_16S), cv2.NORM_L1),
    ]
    edge = max(1, round(FRAME * len(image)))
    borders = [cv2.mean(side)[0] for side in (image[:edge], image[-edge:], image[:, :edge], image[:, -edge:])]
    quantiles = greys[np.searchsorted(below, QUANTILES).clip(max=255)]
    return np.concatenate(
        [quantiles, [mean, deviation], np.log(np.divide(changes, 255 * image.size) + 0.001), np.divide(borders, 255)]
    )


def _most(distances: np.ndarray) -> float:
    """The one that `SHARE` of them lie below; of few images the largest."""
    return max(float(np.quantile(distances, SHARE, method="higher")), LEAST)  # images may be all alike


def _sample(rows: np.ndarray) -> np.ndarray:
    """Rows evenly spread over all of them."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)]
