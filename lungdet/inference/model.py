"""A model: a finished run, or the mean of several, as one object that predicts radiographs."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import lightning
import numpy as np
import pandas as pd
from scipy.special import expit

from lungdet.data.reference import NAME, Reference
from lungdet.data.store.images import Settings
from lungdet.errors import first_few
from lungdet.evaluation.statistics.metrics import ensemble
from lungdet.evaluation.statistics.thresholds import Threshold
from lungdet.inference.cases import given, pieces
from lungdet.inference.decoding import Decoded, decoded
from lungdet.inference.explaining import Explanation, explained, join
from lungdet.models.classifier import Classifier
from lungdet.runs.folder import Run
from lungdet.runs.network import predicting

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
        table = given(images, self.series)
        scored = pd.concat([*self.stream(self.pieces(table, batch_size), batch_size)], ignore_index=True)
        unreadable = scored["reason"].notna()
        excluded = dict(scored.loc[unreadable, ["image", "reason"]].to_numpy().tolist())
        _warn_of(excluded, len(table))
        place = pd.Index(table["image_id"]).get_indexer(scored["image"])
        predictions = self.judged(scored[~unreadable].iloc[np.argsort(place[~unreadable])])
        if flagged := int(predictions["flagged"].sum()):
            log.warning("%d of %d images flagged: unlike those that the run knows", flagged, len(predictions))
        predictions.attrs["excluded"] = excluded
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
        table = given(images, self.series)
        whole = join([*self.explanations(self.pieces(table, batch_size), label, method, batch_size)])
        _warn_of(whole.excluded, len(table))
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
        return explained(self._members, decoded(parts, self.settings, workers), label, method, batch_size)

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
            trainers = [stack.enter_context(predicting(*member)) for member in self._members]
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

    @property
    def _members(self) -> list[tuple[Run, Classifier]]:
        return [*zip(self.runs, self.networks, strict=True)]

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


def _warn_of(excluded: Mapping[object, str], images: int) -> None:
    """Names the images that cannot be read, of so many."""
    if excluded:
        named = first_few(f"{image}: {reason}" for image, reason in excluded.items())
        log.warning("%d of %d images cannot be read and are left out: %s", len(excluded), images, named)
