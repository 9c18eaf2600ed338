"""Plan: what is asked of a split, as the keys `data.*` say it, and the split that answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lungdet.data.splitting import narrowing, protocols
from lungdet.data.splitting.splits import Split, SplitError
from lungdet.errors import require_whole

PROTOCOLS: tuple[str, ...] = ("random", "official", "folds", "leave_one_source_out", "file")


@dataclass(frozen=True)
class Plan:
    """Which images are taken, and who of them is trained on, validated and tested.

    Attributes:
        limit: take about this many images, whole patients, classes in proportion; for a quick try.
        split: the protocol, of `PROTOCOLS`.
        split_seed: what the split is drawn with; the run's own `seed` never changes it.
        fractions: shares of train, validation and test; where the test part is given, the ratio of the first two.
        folds: how many folds there are, and `fold` which one is tested (`split=folds`).
        held_out: the dataset that is tested (`split=leave_one_source_out`).
        split_file: a csv with `image_id` and `split` (`split=file`); None: the data's own table has it.
        train_fraction: share of the training patients to use; a smaller one's lie within a larger one's.
        train_on: the dataset, or those, that training and validation are restricted to; the test part is not.
        train_prevalence: share of abnormal images in training, others left out; their number does not depend on it.

    Raises:
        InputError: a value that makes no sense; the message names its key.
    """

    limit: int | None = None
    split: str = "random"
    split_seed: int = 0
    fractions: Sequence[float] = (0.7, 0.15, 0.15)
    folds: int = 5
    fold: int = 0
    held_out: str | None = None
    split_file: str | Path | None = None
    train_fraction: float = 1.0
    train_on: str | Sequence[str] | None = None
    train_prevalence: float | None = None

    def __post_init__(self) -> None:
        if self.split not in PROTOCOLS:
            raise SplitError(f"data.split={self.split}: one of {', '.join(PROTOCOLS)} is needed")
        for key, protocol in (("split_file", "file"), ("held_out", "leave_one_source_out"), ("fold", "folds")):
            if (value := getattr(self, key)) not in (None, 0) and self.split != protocol:
                raise SplitError(f"data.{key}={value}: data.split={self.split} takes none; set data.split={protocol}")
        shares = self.fractions if isinstance(self.fractions, Sequence) else ()
        if [*map(_is_number, shares)] != [True] * 3 or min(shares) <= 0 or not abs(sum(shares) - 1) <= 1e-6:
            raise SplitError(f"data.fractions={self.fractions}: three positive numbers that add up to 1 are needed")
        for key, least in (("split_seed", 0), ("folds", 2), ("fold", 0)):
            require_whole(f"data.{key}", getattr(self, key), least)
        if self.limit is not None:
            require_whole("data.limit", self.limit, 1)
        if self.split == "folds" and self.fold >= self.folds:
            raise SplitError(f"data.fold={self.fold}: the {self.folds} folds are numbered 0 to {self.folds - 1}")
        if not _is_number(self.train_fraction) or not 0 < self.train_fraction <= 1:
            raise SplitError(f"data.train_fraction={self.train_fraction}: a number above 0, at most 1, is needed")
        share = self.train_prevalence
        if share is not None and not (_is_number(share) and 0 < share < 1):
            raise SplitError(f"data.train_prevalence={share}: a number between 0 and 1 is needed")

    def draw(self, manifest: pd.DataFrame, lists: Callable[[], pd.Series], own: Callable[[], pd.DataFrame]) -> Split:
        """The split of these images.

        Args:
            manifest: who is who: a patient is never parted.
            lists: the publisher's own split, "train_val" or "test" by image id, asked for where `split` is official.
            own: the data's own, `image_id` and `split`, asked for where `split` is file and there is no `split_file`.

        Raises:
            SplitError: these images cannot be split so.
        """
        drawn = {"fractions": self.fractions, "seed": self.split_seed}
        if self.split == "official":
            split = protocols.official(manifest, lists(), **drawn)
        elif self.split == "folds":
            split = protocols.folds(manifest, self.fold, self.folds, **drawn)
        elif self.split == "leave_one_source_out":
            split = protocols.leave_one_source_out(manifest, self.held_out, **drawn)
        elif self.split == "file":
            split = self._stated(manifest, own)
        else:
            split = protocols.random(manifest, **drawn)
        split = narrowing.with_train_fraction(split, manifest, self.train_fraction)
        if self.train_on is not None:
            datasets = [self.train_on] if isinstance(self.train_on, str) else self.train_on
            split = narrowing.trained_on(split, manifest, datasets)
        if self.train_prevalence is not None:
            split = narrowing.with_train_prevalence(split, manifest, self.train_prevalence)
        return split

    def source_hash(
        self, manifest: pd.DataFrame, lists: Callable[[], pd.Series], own: Callable[[], pd.DataFrame]
    ) -> str | None:
        """A hash of the split that comes with the data or in a file of its own; None of one that is drawn."""
        if self.split == "file":
            return self._stated(manifest, own).hash
        return protocols.official(manifest, lists()).hash if self.split == "official" else None

    def _stated(self, manifest: pd.DataFrame, own: Callable[[], pd.DataFrame]) -> Split:
        if self.split_file is None:
            return protocols.from_table(manifest, own(), Path("the data's own table"))
        return protocols.from_file(manifest, Path(self.split_file).expanduser())


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
