"""Series: which images a case is read with, the patient's last few up to and including its own."""

import numpy as np
import pandas as pd


class Series:
    """The series of every image of a manifest, of at most `longest` images each.

    A series ends with the image that is to be classified; no later image is in it. Images of the same patient before it
    are, whether or not they have a label or are trained on: a patient never stands in two parts of a split.

    Args:
        manifest: with `patient_id` and `visit`.
        longest: K, at least 1, which is every image by itself.

    Attributes:
        earlier: (N,), how many images of the patient come before each row's, however many are read.
    """

    def __init__(self, manifest: pd.DataFrame, longest: int) -> None:
        patient, _ = pd.factorize(manifest["patient_id"])
        self.longest = longest
        self._order = np.lexsort((manifest["visit"].to_numpy(), patient))
        self._place = np.empty_like(self._order)
        self._place[self._order] = np.arange(len(manifest))
        _, first, images = np.unique(patient[self._order], return_index=True, return_counts=True)
        self.earlier = self._place - np.repeat(first, images)[self._place]

    def length(self, rows: np.ndarray) -> np.ndarray:
        """How many images each row is read with, (N,) of 1 to K."""
        return np.minimum(self.earlier[rows] + 1, self.longest)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The rows of all images that these are read with, (S,), series after series, each in the order of visits."""
        length = self.length(rows)
        from_last = np.repeat(length.cumsum(), length) - np.arange(length.sum()) - 1
        return self._order[np.repeat(self._place[rows], length) - from_last]
