"""`lungdet.load(RUN)`: a finished run, or the mean of several, as one object that predicts radiographs."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
from scipy.special import expit

from lungdet.data.reference import NAME, Reference
from lungdet.data.store.images import Settings
from lungdet.errors import InputError, RunError, first_few
from lungdet.evaluation.statistics.metrics import ensemble
from lungdet.evaluation.statistics.thresholds import Threshold
from lungdet.findings import TASKS
from lungdet.inference.cases import cases, pieces, require_patients
from lungdet.inference.cuts import cuts, temperatures, validation
from lungdet.inference.decoding import Decoded, decoded
from lungdet.inference.explaining import Explanation, explained, join
from lungdet.machine.commands import command, override
from lungdet.models.classifier import Classifier
from lungdet.runs.folder import Run, load_run
from lungdet.runs.network import network, predicting
from lungdet.runs.preparation import preparation

log = logging.getLogger(__name__)

PIECE = 256
"""Images that are in memory at once, beside as many that are being decoded; more where a batch is larger."""


@dataclass(frozen=True)
class Model:
    """A finished run, or the mean of several, that predicts new radiographs. No device for diagnosis.

    Attributes:
        runs: the run folders.
        networks: the networks with their best weights, run by run.
        labels: what is predicted, `abnormal` or the findings.
        settings: how an image file becomes what the networks see: size, resize, and bits of 16-bit files.
        thresholds: by label, see `lungdet.inference.cuts`.
        temperature: by label, what its log-odds are divided by to be calibrated; NaN where that is not known.
        references: what each run's images look like; none where a run has kept none.
        hashes: by run folder the `data` fingerprint and the `split` hash that it recorded.
    """

    runs: tuple[Run, ...]
    networks: tuple[Classifier, ...]
    labels: tuple[str, ...]
    settings: Settings
    thresholds: Mapping[str, Threshold]
    temperature: Mapping[str, float]
    references: tuple[Reference, ...]
    hashes: Mapping[str, Mapping[str, str]]

    @property
    def visits(self) -> int:
        """The most images that a case is read with, the patient's last; 1 is every image by itself."""
        return max(network.visits for network in self.networks)

    @property
    def series(self) -> bool:
        """Whether a case is read with the patient's earlier images."""
        return self.visits > 1

    @property
    def device(self) -> str:
        """What is computed on, as torch calls it."""
        with predicting(self.runs[0], self.networks[0]) as trainer:
            return str(trainer.strategy.root_device)

    def predict(self, images: object, batch_size: int = 32) -> pd.DataFrame:
        """What the model makes of images, a row each, in their order.

        Args:
            images: a path or an array (h, w) uint8 or uint16, or a list of either; or, for a run that reads visits, a
                table with `path`, `patient_id` and where known `visit` and `age`.
            batch_size: images a step.

        Returns:
            `image`, the path or the array's number; then for each label `logit_<label>`, its log-odds,
            `probability_<label>`, `calibrated_<label>`, that probability after temperature scaling, and
            `decision_<label>`, 1 where the log-odds are above the threshold; last `unlike`, see `Reference.unlike`, of
            several runs the largest, and `flagged`, 1 where it is above 1. Images that cannot be read are left out with
            a warning; `attrs["excluded"]` has the reason of each.

        Raises:
            InputError: something else than images, or patients are needed and not known.
        """
        table = require_patients(_cases(images), self.series, "images")
        parts = [*self.stream(self.pieces(table, batch_size), batch_size)]
        scored = pd.concat(parts, ignore_index=True)
        unreadable = scored["reason"].notna()
        if unreadable.any():
            named = first_few(f"{row.image}: {row.reason}" for row in scored[unreadable].itertuples())
            log.warning("%d of %d images cannot be read and are left out: %s", unreadable.sum(), len(scored), named)
        place = pd.Index(table["image_id"]).get_indexer(scored["image"])
        predictions = self.judged(scored[~unreadable].iloc[np.argsort(place[~unreadable])])
        if flagged := int(predictions["flagged"].sum()):
            log.warning("%d of %d images flagged: unlike those that the run knows", flagged, len(predictions))
        predictions.attrs["excluded"] = dict(scored.loc[unreadable, ["image", "reason"]].to_numpy().tolist())
        return predictions

    def explain(
        self, images: object, label: str | None = None, method: str = "gradcam", batch_size: int = 32
    ) -> Explanation:
        """Where in images the model finds what speaks for a label; no evidence that it looked at disease.

        Args:
            images: as for `predict`.
            label: which label is asked about; None asks of each image about its most probable one.
            method: of `lungdet.models.explaining.METHODS`.
            batch_size: images a step.

        Returns:
            Maps of the images in their order, those left out that cannot be read; of series, of each case's last image.

        Raises:
            InputError: as `predict`; no such label or method; a model that sees no image; or none can be read.
        """
        table = require_patients(_cases(images), self.series, "images")
        whole = join([*self.explanations(self.pieces(table, batch_size), label, method, batch_size)])
        if whole.excluded:
            named = first_few(f"{image}: {reason}" for image, reason in whole.excluded.items())
            log.warning("%d of %d images cannot be read and are left out: %s", len(whole.excluded), len(table), named)
        return whole.of(np.argsort(pd.Index(table["image_id"]).get_indexer(whole.image)))

    def explanations(
        self,
        parts: Sequence[pd.DataFrame],
        label: str | None,
        method: str,
        batch_size: int,
        workers: int | None = None,
    ) -> Iterator[Explanation]:
        """Pieces of cases, explained one after the other, see `explain` and `stream`."""
        members = [*zip(self.runs, self.networks, strict=True)]
        images = decoded(parts, self.settings, workers)
        return explained(members, images, label, method, batch_size)

    def pieces(self, table: pd.DataFrame, batch_size: int) -> list[pd.DataFrame]:
        """Cases in pieces of about `PIECE` images, whole batches of them; see `lungdet.inference.cases.pieces`."""
        return pieces(table, batch_size * max(1, PIECE // batch_size))

    def stream(
        self, parts: Sequence[pd.DataFrame], batch_size: int, workers: int | None = None
    ) -> Iterator[pd.DataFrame]:
        """Pieces of cases, predicted one after the other: `image`, log-odds by label and `unlike`, or the `reason`
        of having none.

        Args:
            parts: see `lungdet.inference.cases.pieces`.
            batch_size: images a step.
            workers: threads that decode; None takes one a core.
        """
        if not self.references:
            log.warning("no %s in %s: unlike and flagged stay empty; train anew for them", NAME, self.runs[0].folder)
        with ExitStack() as stack:
            trainers = [
                stack.enter_context(predicting(*member)) for member in zip(self.runs, self.networks, strict=True)
            ]
            for piece in decoded(parts, self.settings, workers):
                scored = pd.DataFrame({"image": piece.cases["image_id"], "reason": None})
                for label, logit in zip(self.labels, self._logits(piece, trainers, batch_size).T, strict=True):
                    scored[f"logit_{label}"] = logit
                scored["unlike"] = self._unlike(piece.images)
                unreadable = pd.DataFrame({"image": [*piece.reasons], "reason": [*piece.reasons.values()]})
                yield pd.concat([scored, unreadable], ignore_index=True) if piece.reasons else scored

    def judged(self, scored: pd.DataFrame) -> pd.DataFrame:
        """Log-odds as probabilities, calibrated ones and decisions, see `predict`."""
        columns = {"image": scored["image"].to_numpy()}
        for label in self.labels:
            logit, cut = scored[f"logit_{label}"].to_numpy(np.float64), self.thresholds[label].logit
            decision = pd.array(logit > cut, dtype="Int8")
            if math.isnan(cut):
                decision[:] = pd.NA
            columns |= {
                f"logit_{label}": logit,
                f"probability_{label}": expit(logit),
                f"calibrated_{label}": expit(logit / self.temperature[label]),
                f"decision_{label}": decision,
            }
        unlike = scored["unlike"].to_numpy(np.float64)
        flagged = pd.array(unlike > 1, dtype="Int8")
        flagged[np.isnan(unlike)] = pd.NA
        return pd.DataFrame(columns | {"unlike": unlike, "flagged": flagged})

    def _unlike(self, images: np.ndarray) -> np.ndarray:
        """(N,) of images (N, H, W), NaN where it is not known."""
        if not self.references:
            return np.full(len(images), np.nan)
        return np.max([reference.unlike(images) for reference in self.references], axis=0)

    def _logits(self, piece: Decoded, trainers: Sequence[lightning.Trainer], batch_size: int) -> np.ndarray:
        """Log-odds (N, L) of a piece, of several runs those of their mean."""
        if piece.cases.empty:
            return np.empty((0, len(self.labels)))
        logits = []
        for model, trainer in zip(self.networks, trainers, strict=True):
            batches = piece.batches(model, batch_size, trainer.strategy.root_device)
            trainer.predict(model, batches, return_predictions=False)
            logits.append(model.predictions["logit"].numpy().astype(np.float64))
        return ensemble(np.stack(logits)) if len(logits) > 1 else logits[0]


def load(
    runs: str | Path | Sequence[str | Path],
    *,
    bits: int | None = None,
    threshold: float | None = None,
    trust: Sequence[str] = (),
) -> Model:
    """A finished run that predicts new radiographs, or several whose probabilities are averaged.

    Args:
        runs: a run folder, or a list of them.
        bits: the depth of new 16-bit files; None is that of the run's own.
        threshold: a probability above which the decision is 1; None takes the thresholds of the run.
        trust: packages beyond lungdet whose classes a run may name.

    Raises:
        RunError: a folder holds no finished run, or several predict or read different things.
        InputError: see `lungdet.instantiation.instantiate`; or a value that makes no sense.
    """
    folders = [runs] if isinstance(runs, str | Path) else [*runs]
    members = tuple(load_run(Path(folder).expanduser()) for folder in folders)
    if not members:
        raise InputError("run=[]: name at least one run")
    for run in members:
        if not run.finished:
            anew = command("train.py", override("resume", run.folder))
            raise RunError(f"{run.folder}: the run is not finished; finish it with: {anew}")
    _require_apart(members)
    task = _shared(members, "task", [run.config.task for run in members])
    settings = _settings(members, bits)
    labels = TASKS[task]
    val = validation(members, labels)
    thresholds = cuts(members, labels, val, threshold)
    networks = tuple(network(run, trust) for run in members)
    return Model(
        runs=members,
        networks=networks,
        labels=labels,
        settings=settings,
        thresholds=thresholds,
        temperature=temperatures(labels, val),
        references=_references(members),
        hashes={
            str(run.folder): {"data": run.data["fingerprint"], "split": run.environment["split"]["hash"]}
            for run in members
        },
    )


def _settings(runs: Sequence[Run], bits: int | None) -> Settings:
    prepared = [preparation(run) for run in runs]
    size, resize = (_shared(runs, f"data.{key}", [own[key] for own in prepared]) for key in ("image_size", "resize"))
    if bits is None:
        bits = _shared(runs, "data.bits", [own["bits"] for own in prepared])
    return Settings(size=size, resize=resize, bits=bits)


def _references(runs: Sequence[Run]) -> tuple[Reference, ...]:
    references = [reference for run in runs if (reference := Reference.read(run.folder)) is not None]
    return tuple(references) if len(references) == len(runs) else ()


def _require_apart(runs: Sequence[Run]) -> None:
    folders = [run.folder.resolve() for run in runs]
    if repeated := [str(folder) for folder in folders if folders.count(folder) > 1]:
        raise RunError(f"{repeated[0]}: named twice, so that it would count twice; name each run once")


def _shared(runs: Sequence[Run], key: str, values: Sequence[object]) -> object:
    """The value that all runs have.

    Raises:
        RunError: they differ.
    """
    for run, value in zip(runs, values, strict=True):
        if value != values[0]:
            raise RunError(
                f"{runs[0].folder} has {key}={values[0]} and {run.folder} {key}={value}; runs are averaged that "
                "predict the same of images prepared alike. Predict with each by itself"
            )
    return values[0]


def _cases(images: object) -> pd.DataFrame:
    """What `Model.predict` was given as cases; arrays are numbered."""
    if isinstance(images, pd.DataFrame):
        if "path" not in images:
            raise InputError(f"images: no column path; there are {', '.join(map(str, images))}")
        table = images.reset_index(drop=True)
        names = [str(path) for path in table["path"]]
        named = cases(names, [Path(name) for name in names])
        named = named.join(table.drop(columns=["path", "image_id", "file"], errors="ignore"))
    else:
        sources = [images] if isinstance(images, str | Path | np.ndarray) else [*images]
        names = [i if isinstance(image, np.ndarray) else str(image) for i, image in enumerate(sources)]
        named = cases(names, [_source(image) for image in sources])
    if named.empty:
        raise InputError("images: at least one image is needed")
    if len(repeated := named["image_id"][named["image_id"].duplicated()]):
        raise InputError(f"images: {repeated.iloc[0]} is named more than once; name each image once")
    return named


def _source(image: object) -> Path | np.ndarray:
    if isinstance(image, np.ndarray):
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"images: an array {image.shape} of {image.dtype}; (h, w) of uint8 or uint16 is needed")
        return image
    if not isinstance(image, str | Path):
        raise InputError(f"images: {type(image).__name__} is no path and no array")
    return Path(image).expanduser()
