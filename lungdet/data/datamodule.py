"""RadiographDataModule: a manifest, its prepared store and a split become loaders; every dataset derives from it."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import lightning
import numpy as np
import pandas as pd
import torch

from lungdet.data.augment import Augmentation
from lungdet.data.patients import contradictions
from lungdet.data.serving.batches import Batches
from lungdet.data.serving.degrade import Degradation
from lungdet.data.serving.device import LOADERS, Whereabouts, choose, resident
from lungdet.data.serving.loading import InOrder, Radiographs
from lungdet.data.splitting import leaks, narrowing, protocols, splits
from lungdet.data.store.images import Settings
from lungdet.data.store.store import Store, fingerprint, prepare
from lungdet.errors import DatasetError, InputError
from lungdet.findings import FINDINGS, TASKS
from lungdet.machine import hardware, ranks

log = logging.getLogger(__name__)

PROTOCOLS: tuple[str, ...] = ("random", "official", "folds", "leave_one_source_out", "file")


class RadiographDataModule(lightning.LightningDataModule):
    """Radiographs of one or several sources, prepared once, split by patient, served in batches.

    A dataset derives from this class, names itself and says how its folder becomes a manifest (`read`), and, where it
    has one, what its official split is (`official`).

    Args:
        root: the dataset's folder.
        store: the folder that holds prepared stores.
        image_size: side of the prepared square, pixels.
        resize: how a radiograph becomes a square: `squash` (the study's), `pad` or `crop`.
        bits: bit depth of 16-bit files, or that of each dataset by its name; None, or a dataset that is not named, is
            decided from all its files.
        limit: take about this many images, whole patients, classes in proportion; for a quick try.
        split: the protocol, of `PROTOCOLS`.
        split_seed: what the split is drawn with; the run's own `seed` never changes it.
        fractions: shares of train, validation and test; where the test part is given, the ratio of the first two.
        folds: how many folds there are, and `fold` which one is tested (`split=folds`).
        held_out: the dataset that is tested (`split=leave_one_source_out`).
        split_file: a csv with `image_id` and `split` (`split=file`).
        train_fraction: share of the training patients to use; a smaller one's lie within a larger one's.
        train_on: the dataset, or those, that training and validation are restricted to; the test part is not.
        train_prevalence: share of abnormal images in training, others left out; their number does not depend on it.
        visits: a case is the patient's last so many images, up to and including the one that is classified.
        batch_size: images a step on each device.
        num_workers: loader processes; None takes one a core but one, eight at most, the cores being shared out where
            several devices train.
        loader: where batches are made, of `lungdet.data.serving.device.LOADERS`.
        sampler: `uniform` takes each training image once an epoch; `balanced` draws as many from each source and
            class, rare ones several times.
        task: what the targets are, of `lungdet.findings.TASKS`.
        augmentation: for training images only.
        seed: of the order and the augmentation.

    Attributes (after `setup`):
        manifest: the prepared images' manifest, row i describing image i of `store`.
        split: who is where; `rows` gives a part's rows in the manifest.
    """

    name: ClassVar[str]
    whole: ClassVar[Mapping[str, int]] = {}
    """The images of each dataset when whole, where its publisher says how many."""

    def __init__(
        self,
        root: str | Path,
        *,
        store: str | Path = "outputs/prepared",
        image_size: int = 224,
        resize: str = "squash",
        bits: int | Mapping[str, int] | None = None,
        limit: int | None = None,
        split: str = "random",
        split_seed: int = 0,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        folds: int = 5,
        fold: int = 0,
        held_out: str | None = None,
        split_file: str | Path | None = None,
        train_fraction: float = 1.0,
        train_on: str | Sequence[str] | None = None,
        train_prevalence: float | None = None,
        visits: int = 1,
        batch_size: int = 32,
        num_workers: int | None = None,
        loader: str = "auto",
        sampler: str = "uniform",
        task: str = "abnormal",
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if split not in PROTOCOLS:
            raise splits.SplitError(f"data.split={split}: one of {', '.join(PROTOCOLS)} is needed")
        if split == "file" and split_file is None:
            raise splits.SplitError("data.split=file: which one? set data.split_file=FILE")
        numbers = [type(share) in (int, float) for share in fractions] if isinstance(fractions, Sequence) else []
        if numbers != [True] * 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise splits.SplitError(f"data.fractions={fractions}: three positive numbers that add up to 1 are needed")
        whole = {"split_seed": (split_seed, 0), "folds": (folds, 2), "fold": (fold, 0), "visits": (visits, 1)}
        whole |= {"batch_size": (batch_size, 1)}
        whole |= {"limit": (limit, 1)} if limit is not None else {}
        whole |= {"num_workers": (num_workers, 0)} if num_workers is not None else {}
        for key, (value, least) in whole.items():
            if type(value) is not int or not least <= value < 1 << 32:
                raise InputError(f"data.{key}={value}: a whole number, at least {least}, is needed")
        for key, value in (("train_fraction", train_fraction), ("train_prevalence", train_prevalence)):
            if type(value) not in (int, float) and (key, value) != ("train_prevalence", None):
                raise InputError(f"data.{key}={value}: a number such as 0.5 is needed")
        if sampler not in ("uniform", "balanced"):
            raise InputError(f"data.sampler={sampler}: uniform or balanced is needed")
        if task not in TASKS:
            raise InputError(f"task={task}: one of {', '.join(TASKS)} is needed")
        if loader not in LOADERS:
            raise InputError(f"data.loader={loader}: one of {', '.join(LOADERS)} is needed")
        self.root, self.folder = Path(root).expanduser(), Path(store).expanduser()
        self.settings = Settings(size=image_size, resize=resize, bits=bits)
        self.limit, self.protocol, self.split_seed, self.fractions = limit, split, split_seed, tuple(fractions)
        self.folds, self.fold, self.held_out, self.train_fraction = folds, fold, held_out, train_fraction
        self.train_on = [train_on] if isinstance(train_on, str) else train_on
        self.train_prevalence, self.visits = train_prevalence, visits
        self.split_file = Path(split_file).expanduser() if split_file is not None else None
        self.batch_size, self.sampler, self.task = batch_size, sampler, task
        self.augmentation, self.seed = augmentation, seed
        cores = min(hardware.cores(), (os.cpu_count() or 1) // ranks.count_here())
        self.num_workers = min(8, max(0, cores - 1)) if num_workers is None else num_workers
        self.made_by = loader
        self.store: Store | None = None
        self._resident: torch.Tensor | None = None
        self._why = ""

    def read(self) -> pd.DataFrame:
        """The manifest of the images that are there.

        Raises:
            DatasetError: no such folder, no table, no image.
        """
        raise NotImplementedError

    def roots(self) -> dict[str, Path]:
        """The folder that each dataset's `path` column is relative to."""
        return {self.name: self.root}

    @property
    def patients_known(self) -> bool:
        """False where nothing says whose an image is, so that each counts as its own patient."""
        return True

    def official(self) -> pd.Series:
        """The publisher's own split: "train_val" or "test" by image id."""
        raise splits.SplitError(
            f"data.split=official: {self.name} comes without an official split; use data.split=random"
        )

    def prepare_data(self) -> None:
        """Decode every image into the store, once; at once if it is there already."""
        if self.store is None:
            self._open()

    def setup(self, stage: str | None = None) -> None:
        """Open the store, split the patients and check the split.

        Raises:
            SplitError: a patient on two sides, an image on two sides under two names (recompressed, cropped,
                brightened), or a part without one of the classes.
        """
        self.prepare_data()
        self.manifest = self.store.manifest
        self.split = self._split()
        splits.check(self.split, self.manifest)
        leaks.refuse_copies(leaks.store_copies(self.store), self.split, self.manifest)

    def rows(self, part: str) -> np.ndarray:
        """The manifest's (and store's) rows of one part, ascending."""
        return np.flatnonzero(self.manifest["image_id"].isin(self.split.images(part)))

    def train_dataloader(self) -> Batches:
        """Shuffled and augmented; what nobody has labelled teaches nothing and is left out."""
        rows = self.rows("train")
        labelled = self.manifest[[*TASKS[self.task]]].iloc[rows].notna().any(axis=1)
        return self.loader(rows[labelled], training=True)

    def val_dataloader(self) -> Batches:
        """In the manifest's order, never augmented."""
        return self.loader(self.rows("val"), training=False)

    def test_dataloader(self) -> Batches:
        """In the manifest's order, never augmented."""
        return self.loader(self.rows("test"), training=False)

    def train_sample(self) -> np.ndarray:
        """Rows of whole training patients, about as many as validation has: what a model makes of what it has seen."""
        train = self.manifest.iloc[self.rows("train")]
        taken = _limited(train, len(self.rows("val")), self.split_seed)["image_id"]
        return np.flatnonzero(self.manifest["image_id"].isin(taken))

    @cached_property
    def identity(self) -> dict[str, dict]:
        """What tells these data from others, before anything is prepared: a hash and counts of each kind.

        `images` are their ids; `patients`, whose they are and what is known of them; `labels`; `pixels`, the files'
        names, sizes and times and how they are prepared, see `Store.fingerprint`; `split`, what else the split is read
        from.
        """
        manifest = self.wanted.sort_values("image_id", ignore_index=True)
        patients = int(manifest["patient_id"].nunique())
        whose = manifest[["patient_id", "visit", "age", "sex", "view"]].to_csv(header=False, index=False)
        labels = manifest[["abnormal", *FINDINGS]].fillna(-1).to_numpy(np.int8)
        counts = {"known": int((labels >= 0).sum()), "positive": int((labels == 1).sum())}
        pixels = self.store.fingerprint if self.store else fingerprint(self.wanted, self.roots(), self.settings)
        return {
            "images": {"hash": splits.hash_of(manifest["image_id"]), "images": len(manifest), "patients": patients},
            "patients": {"hash": _hash(whose.encode()), "patients": patients},
            "labels": {"hash": _hash(labels.tobytes()), **counts},
            "pixels": {"hash": pixels},
            "split": {"hash": self._split_source()},
        }

    def state_dict(self) -> dict:
        """What a checkpoint says of its data: the hashes of the split and of its parts, and the store's fingerprint."""
        parts = {part: self.split.part_hash(part) for part in splits.PARTS}
        return {"split": self.split.hash, "parts": parts, "fingerprint": self.store.fingerprint}

    def describe(self) -> dict:
        """What a run folder records of its data: the store, counts of images and patients by source.

        `bits` is the depth that each dataset's 16-bit files were read with. Where `patients_known` is false, nothing
        says whose an image is, and each counts as a patient.
        """
        sources = self.manifest.groupby("dataset")["patient_id"].agg(images="size", patients="nunique")
        return {
            "fingerprint": self.store.fingerprint,
            "identity": self.identity,
            "store": str(self.store.folder.absolute()),
            "images": len(self.manifest),
            "patients": int(self.manifest["patient_id"].nunique()),
            "patients_known": self.patients_known,
            "bits": self.store.bits,
            "excluded": len(self.store.excluded),
            "limit": self.limit,
            "image_size": self.settings.size,
            "resize": self.settings.resize,
            "visits": self.visits,
            "sources": {
                name: {"of": self.whole.get(name), **counts} for name, counts in sources.to_dict("index").items()
            },
        }

    @cached_property
    def wanted(self) -> pd.DataFrame:
        """The manifest of the images that are there, or of the `limit` of them that is asked for."""
        try:
            manifest = self.read()
        except OSError as error:  # a folder that may not be read, a name that is too long, a disk that fails
            raise DatasetError(f"{self.name}: {error}") from error
        for sentence in contradictions(manifest):
            log.warning("%s: %s", self.name, sentence)
        for name, images in manifest["dataset"].value_counts().items():
            if name in self.whole and images < self.whole[name]:
                log.info("%s: %s of %s images are at hand", name, f"{images:,}", f"{self.whole[name]:,}")
        if self.limit is not None and self.limit < len(manifest):
            manifest = _limited(manifest, self.limit, self.split_seed)
            log.info(
                "data.limit=%d: %d images%s are taken",
                self.limit,
                len(manifest),
                f" of {manifest['patient_id'].nunique()} patients" if self.patients_known else "",
            )
        return manifest

    def _open(self) -> None:
        self.store = prepare(self.wanted, self.roots(), self.settings, self.folder)

    def _split_source(self) -> str | None:
        """A hash of the split that comes with the data or in a file of its own; None of one that is drawn."""
        if self.protocol == "file":
            return protocols.from_file(self.wanted, self.split_file).hash
        return protocols.official(self.wanted, self.official()).hash if self.protocol == "official" else None

    def _split(self) -> splits.Split:
        """The split that the protocol's name asks for."""
        manifest, drawn = self.manifest, {"fractions": self.fractions, "seed": self.split_seed}
        if self.protocol == "official":
            split = protocols.official(manifest, self.official(), **drawn)
        elif self.protocol == "folds":
            split = protocols.folds(manifest, self.fold, self.folds, **drawn)
        elif self.protocol == "leave_one_source_out":
            split = protocols.leave_one_source_out(manifest, self.held_out, **drawn)
        elif self.protocol == "file":
            split = protocols.from_file(manifest, self.split_file)
        else:
            split = protocols.random(manifest, **drawn)
        split = narrowing.with_train_fraction(split, manifest, self.train_fraction)
        if self.train_on is not None:
            split = narrowing.trained_on(split, manifest, self.train_on)
        if self.train_prevalence is not None:
            split = narrowing.with_train_prevalence(split, manifest, self.train_prevalence)
        return split

    def loader(self, rows: np.ndarray, *, training: bool, degradation: Degradation | None = None) -> Batches:
        """These rows of the store; in training shuffled and augmented; degraded where that is asked for.

        For data beyond one disk this is the place where a streaming loader plugs in (see the README): rows in, out what
        `Batches` yields, each case with its `row`.
        """
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world_size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
        manifest = self.store.manifest
        images = None if degradation is not None else self._on_device()  # degradations are functions of host memory
        dataset = (Radiographs if images is None else Whereabouts)(
            self.store.folder / "images.npy",
            manifest,
            TASKS[self.task],
            self.visits,
            self.augmentation if training else None,
            self.seed,
            degradation,
        )
        strata = None
        if training and self.sampler == "balanced":  # a case without a label has no class
            rows = rows[manifest["abnormal"].iloc[rows].notna()]
            strata = manifest.groupby(["dataset", "abnormal"]).ngroup().to_numpy()[rows]
        order = InOrder(
            rows,
            self.batch_size,
            shuffle=training,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            strata=strata,
        )
        device = images.device if images is not None else self.trainer.strategy.root_device if self.trainer else None
        return Batches(dataset, order, self.num_workers, device, images)

    def _on_device(self) -> torch.Tensor | None:
        """The whole store in the trainer's device's memory, loaded once; None where worker processes make batches."""
        images, device = self.store.folder / "images.npy", self.trainer.strategy.root_device if self.trainer else None
        if self._resident is None or device not in (None, self._resident.device):
            device, why = choose(self.made_by, images, device)
            if why != self._why:
                log.info("batches are made %s: %s", f"on {device}" if device is not None else "by workers", why)
            self._resident, self._why = resident(images, device) if device is not None else None, why
        return self._resident


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _limited(manifest: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Whole patients, about `limit` images, each dataset and label in proportion."""
    images = manifest["patient_id"].value_counts().reindex(protocols.spread(manifest, seed).index)
    taken = images.index[images.cumsum() - images < limit]
    return manifest[manifest["patient_id"].isin(taken)].reset_index(drop=True)
