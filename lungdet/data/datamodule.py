"""RadiographDataModule: a manifest, its prepared store and a split become loaders; every dataset derives from it."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import lightning
import numpy as np
import pandas as pd
import torch

from lungdet.data.manifest import Sheet, identity, validate
from lungdet.data.patients import contradictions
from lungdet.data.regions import Regions
from lungdet.data.serving.batches import Batches
from lungdet.data.serving.degrade import Degradation
from lungdet.data.serving.device import Resident, Warps
from lungdet.data.serving.loading import InOrder, Radiographs
from lungdet.data.serving.serving import Serving
from lungdet.data.splitting import leaks, narrowing, splits
from lungdet.data.splitting.plan import Plan
from lungdet.data.store.images import Settings
from lungdet.data.store.store import Store, fingerprint, prepare
from lungdet.errors import DatasetError

log = logging.getLogger(__name__)


class RadiographDataModule(lightning.LightningDataModule):
    """Radiographs of one or several sources, prepared once, split by patient, served in batches.

    A dataset derives from this class, names itself and says how its folder becomes a manifest (`read`), and, where it
    has one, what its official split is (`official`).

    Args:
        root: the dataset's folder.
        store: the folder that holds prepared stores.
        image_size: `size` of `Settings`.
        keys: the others of `lungdet.data.store.images.Settings`, those of `lungdet.data.splitting.plan.Plan` and those
            of `lungdet.data.serving.serving.Serving`, which say what they mean.

    Attributes (after `setup`):
        manifest: the prepared images' manifest, row i describing image i of `store`.
        split: who is where; `rows` gives a part's rows in the manifest.
    """

    name: ClassVar[str]
    sheets: ClassVar[Mapping[str, Sheet]] = {}
    """What is known of each dataset beyond its images, by its name; nothing of a user's own."""
    patients_known: bool = True
    """False where `read` has met nothing that says whose an image is, so that each counts as its own patient."""
    KEYS: ClassVar[tuple[type, ...]] = (Settings, Plan, Serving)
    """Whose fields `keys` are, see `lungdet.kinds.signature`."""

    def __init__(
        self, root: str | Path, *, store: str | Path = "outputs/prepared", image_size: int = 224, **keys
    ) -> None:
        super().__init__()
        self.root, self.folder = Path(root).expanduser(), Path(store).expanduser()
        self.settings = Settings(size=image_size, **_pop(keys, Settings))
        self.plan, self.serving = Plan(**_pop(keys, Plan)), Serving(**keys)
        self.store: Store | None = None
        self.split: splits.Split | None = None
        self._checked = False
        self._resident = Resident(self.serving.loader)

    def read(self) -> pd.DataFrame:
        """The manifest of the images that are there.

        Raises:
            DatasetError: no such folder, no table, no image.
        """
        raise NotImplementedError

    def roots(self) -> dict[str, Path]:
        """The folder that each dataset's `path` column is relative to."""
        return {self.name: self.root}

    def official(self) -> pd.Series:
        """The publisher's own split: "train_val" or "test" by image id."""
        raise splits.SplitError(
            f"data.split=official: {self.name} comes without an official split; use data.split=random"
        )

    def own_split(self) -> pd.DataFrame:
        """A split that the data come with, `image_id` and `split`, for `data.split=file` without a file."""
        raise splits.SplitError("data.split=file: which one? set data.split_file=FILE")

    def kept_together(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """The manifest with the `patient_id` that a split goes by: those of one id stand in one part."""
        return manifest

    def regions(self, manifest: pd.DataFrame) -> dict[str, Regions]:
        """Where disease is known to be, by image id, in those of the manifest's images of which it is."""
        return {}

    def prepare_data(self) -> None:
        """Decode every image into the store, once; at once if it is there already."""
        if self.store is None:
            self.store = prepare(self.requested, self.roots(), self.settings, self.folder)

    def setup(self, stage: str | None = None) -> None:
        """Open the store, split the patients and check the split, once: Lightning asks before every stage.

        A split that is refused can be looked at (`split`), and is refused again.

        Raises:
            SplitError: a patient on two sides, an image on two sides under two names (recompressed, cropped,
                brightened), or a part without one of the classes.
        """
        if self._checked:
            return
        self.prepare_data()
        self.manifest = self.store.manifest
        self.split = self.plan.draw(self.kept_together(self.manifest), self.official, self.own_split)
        splits.check(self.split, self.manifest)
        leaks.refuse_copies(leaks.store_copies(self.store), self.split, self.manifest)
        self._checked = True

    def rows(self, part: str) -> np.ndarray:
        """The manifest's (and store's) rows of one part, ascending."""
        return np.flatnonzero(self.manifest["image_id"].isin(self.split.images(part)))

    def train_dataloader(self) -> Batches:
        """Shuffled and augmented; what nobody has labelled teaches nothing and is left out."""
        return self.loader(self._labelled(), training=True)

    def sample_dataloader(self, images: int) -> Batches:
        """Of the images that are trained on so many, spread over the sources, not augmented; the same ones each time.

        Every process goes through all of them, in batches as large as a step of all processes.
        """
        rows = self._labelled()
        count = min(images, len(rows))
        return self.loader(rows[np.arange(count) * len(rows) // count], training=False, alone=True)

    def val_dataloader(self) -> Batches:
        """In the manifest's order, never augmented."""
        return self.loader(self.rows("val"), training=False)

    def test_dataloader(self) -> Batches:
        """In the manifest's order, never augmented."""
        return self.loader(self.rows("test"), training=False)

    def train_sample(self) -> np.ndarray:
        """Rows of whole training patients, about as many as validation has: what a model makes of what it has seen."""
        train = self.manifest.iloc[self.rows("train")]
        sample = narrowing.limited(train, len(self.rows("val")), self.plan.split_seed)
        return np.flatnonzero(self.manifest["image_id"].isin(sample["image_id"]))

    @cached_property
    def identity(self) -> dict[str, dict]:
        """What tells these data from others, before anything is prepared: a hash and counts of each kind.

        Beside those of `lungdet.data.manifest.identity`: `pixels`, the files' names, sizes and times and how they are
        prepared, see `Store.fingerprint`; `split`, what else the split is read from.
        """
        files = self.store.fingerprint if self.store else fingerprint(self.requested, self.roots(), self.settings)
        source = self.plan.source_hash(self.requested, self.official, self.own_split)
        return identity(self.requested) | {"pixels": {"hash": files}, "split": {"hash": source}}

    def state_dict(self) -> dict:
        """What a checkpoint says of its data: the hashes of the split and of its parts, and the store's fingerprint."""
        return self._hashes

    @cached_property
    def _hashes(self) -> dict:
        parts = {part: self.split.part_hash(part) for part in splits.PARTS}
        return {"split": self.split.hash, "parts": parts, "fingerprint": self.store.fingerprint}

    @property
    def batch_size(self) -> int:
        """Images a step on each device; Lightning's tuner tries others."""
        return self.serving.batch_size

    @batch_size.setter
    def batch_size(self, images: int) -> None:
        self.serving = replace(self.serving, batch_size=images)

    def describe(self) -> dict:
        """What a run folder records of its data: the store, and its sources.

        `bits` is the depth that each dataset's 16-bit files were read with. Where `patients_known` is false, nothing
        says whose an image is, and each counts as a patient.
        """
        return {
            "fingerprint": self.store.fingerprint,
            "identity": self.identity,
            "store": str(self.store.folder.absolute()),
            "images": len(self.manifest),
            "patients": int(self.manifest["patient_id"].nunique()),
            "patients_known": self.patients_known,
            "bits": self.store.bits,
            "excluded": len(self.store.excluded),
            "limit": self.plan.limit,
            "image_size": self.settings.size,
            "resize": self.settings.resize,
            "visits": self.serving.visits,
            "sources": self.source_facts(),
        }

    def source_facts(self) -> dict[str, dict]:
        """Each dataset's data sheet, and how many images and patients of it are prepared."""
        counts = self.store.manifest.groupby("dataset")["patient_id"].agg(images="size", patients="nunique")
        return {name: asdict(self.sheets.get(name, Sheet())) | row for name, row in counts.to_dict("index").items()}

    @cached_property
    def requested(self) -> pd.DataFrame:
        """The manifest of the images that are there, or of the `limit` of them that is asked for."""
        try:
            manifest = validate(self.read())
        except OSError as error:  # a folder that may not be read, a name that is too long, a disk that fails
            raise DatasetError(f"{self.name}: {error}") from error
        if not self.patients_known:
            log.warning(
                "%s: nothing says whose an image is, so each of %d counts as its own patient: images of one patient on "
                "both sides of the split can't be seen", self.name, len(manifest),
            )  # fmt: skip
        for sentence in contradictions(manifest):
            log.warning("%s: %s", self.name, sentence)
        for name, images in manifest["dataset"].value_counts().items():
            whole = self.sheets.get(name, Sheet()).of
            if whole is not None and images < whole:
                log.info("%s: %s of %s images are at hand", name, f"{images:,}", f"{whole:,}")
        limit = self.plan.limit
        if limit is not None and limit < len(manifest):
            manifest = narrowing.limited(manifest, limit, self.plan.split_seed)
            patients = f" of {manifest['patient_id'].nunique()} patients" if self.patients_known else ""
            log.info("data.limit=%d: %d images%s are taken", limit, len(manifest), patients)
        return manifest

    def _labelled(self) -> np.ndarray:
        rows = self.rows("train")
        return rows[self.manifest[[*self.serving.labels]].iloc[rows].notna().any(axis=1)]

    def loader(
        self, rows: np.ndarray, *, training: bool, degradation: Degradation | None = None, alone: bool = False
    ) -> Batches:
        """These rows of the store; in training shuffled and augmented; degraded where that is asked for.

        Of several processes each serves its share. One that serves `alone` makes the batches of all, shuffled, itself.

        For data beyond one disk this is the place where a streaming loader plugs in (docs/scale.md): rows in, out what
        `Batches` yields, each case with its `row`.
        """
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world_size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
        serving, manifest = self.serving, self.store.manifest
        size, workers = serving.batch_size, serving.workers
        if alone:
            size, workers, rank, world_size = size * world_size, 0, 0, 1
        path, device = self.store.folder / "images.npy", self.trainer.strategy.root_device if self.trainer else None
        images = None if degradation is not None else self._resident.images(path, device)  # they are made on a CPU
        dataset = (Radiographs if images is None else Warps)(
            path,
            manifest,
            serving.labels,
            serving.visits,
            serving.augmentation if training else None,
            serving.seed,
            degradation,
        )
        strata = None
        if training and serving.sampler == "balanced":  # a case without a label has no class
            rows = rows[manifest["abnormal"].iloc[rows].notna()]
            strata = manifest.groupby(["dataset", "abnormal"]).ngroup().to_numpy()[rows]
        order = InOrder(
            rows,
            size,
            shuffle=training or alone,
            seed=serving.seed,
            rank=rank,
            world_size=world_size,
            strata=strata,
        )
        return Batches(dataset, order, workers, device if images is None else images.device, images)


def _pop(keys: dict[str, object], kind: type) -> dict[str, object]:
    """Those of the keys that are fields of a dataclass, taken out."""
    return {field.name: keys.pop(field.name) for field in fields(kind) if field.name in keys}
