"""A finished run predicts anew: its own parts from several views, or other radiographs than it has learnt from."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.serving.views import ITSELF, View, name
from lungdet.data.store.store import Store
from lungdet.errors import RunError, first_few
from lungdet.instantiation import instantiate
from lungdet.models.classifier import Classifier
from lungdet.runs.folder import Run
from lungdet.runs.identity import PREPARATION, require_data
from lungdet.runs.learnt import copies, learnt, origins, why_unsearched
from lungdet.runs.network import network, predicting
from lungdet.runs.predictions import prediction_table
from lungdet.runs.preparation import preparation
from lungdet.training.published import require_outside

log = logging.getLogger(__name__)


def predict_anew(
    run: Run, data: str | None, other: Callable[[Run], DictConfig] | None, views: Sequence[View], trust: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Predictions in the place of the run's own, by part of its split: the test part's are of other data, if any.

    Those of other data are kept in the run's `predictions/`, under a name that says which views they are of. Of the
    validation part, by which thresholds are chosen, several views are predicted, too.

    Args:
        run: a run with a best checkpoint.
        data: what the other data is called; None without any.
        other: of a run the other data's group, see `score`.
        views: of each image, whose mean is predicted.
        trust: packages whose classes the run and the other data may name.

    Raises:
        RunError: see `predict_views` and `score`.
    """
    if data is None:
        return predict_views(run, views, ["val", "test"], trust)
    tables = predict_views(run, views, ["val"], trust) if len(views) > 1 else {}
    table = score(run, other(run), trust, views)
    called = "-".join(filter(None, [data, name(views)]))
    path = run.folder / "predictions" / f"{called}.parquet"
    if path.is_file() and {*run.predictions(called)["image_id"]} != {*table["image_id"]}:
        log.warning("%s: predictions of other images stood there and are replaced", path)
    run.write_predictions(called, table)
    return tables | {"test": table}


def predict_views(
    run: Run, views: Sequence[View], parts: Sequence[str], trust: Sequence[str] = ()
) -> dict[str, pd.DataFrame]:
    """Predictions of parts of the run's own split, each the mean over these views of an image; nothing is written.

    Raises:
        RunError: the images are no longer those that the run was trained and tested on.
    """
    model = network(run, trust)
    data = instantiate("data", run.config.data, trust, visits=model.visits)
    data.prepare_data()
    data.setup()
    require_data(run, data.identity, data.split.hash)
    logits = _logits(run, model, data, {part: data.rows(part) for part in parts}, views)
    return {part: prediction_table(data.manifest.iloc[data.rows(part)], model.labels, logits[part]) for part in parts}


def score(
    run: Run, data_config: DictConfig, trust: Sequence[str] = (), views: Sequence[View] = (ITSELF,)
) -> pd.DataFrame:
    """Predictions of all these images but those that the run, or one that it started from, was trained or tuned on.

    Args:
        run: a run with a best checkpoint.
        data_config: a `data` group that prepares images as the run did (`preparation`). A depth of its own may be given
            to datasets that the run had no 16-bit file of.
        trust: packages whose classes the run and `data_config` may name.
        views: of each image, whose mean is predicted.

    Returns:
        See `lungdet.runs.predictions`. Its `attrs` say in `scored` how many images could not be used (`excluded`),
        how many were left out as copies of images learnt from (`copies`), why some runs' images could not be compared
        (`unsearched`), what is known of each dataset (`sources`), and where the images are prepared (`store`).

    Raises:
        RunError: the images would be prepared otherwise than in training, all are of patients it has learnt from, or
            some are of a dataset that published weights which it began with have seen.
    """
    for key in PREPARATION:
        _require_same(run, key, preparation(run)[key], data_config[key])
    model = network(run, trust)
    data = instantiate("data", data_config, trust, visits=model.visits)
    data.prepare_data()
    depths = run.data["bits"]
    for dataset, depth in data.store.bits.items():
        _require_same(run, "bits", depths.get(dataset, depth), depth)
    rows, facts = _unseen(run, data.store)
    logits = _logits(run, model, data, {"test": rows}, views)["test"]
    table = prediction_table(data.store.manifest.iloc[rows], model.labels, logits)
    table.attrs["scored"] = facts | {"sources": data.source_facts(), "store": str(data.store.folder)}
    return table


def _logits(
    run: Run, model: Classifier, data: RadiographDataModule, parts: Mapping[str, np.ndarray], views: Sequence[View]
) -> dict[str, np.ndarray]:
    """Log-odds (N, L) of the run's best weights for rows (N,) of the store, the mean over the views, part by part."""
    logits = {}
    with predicting(run, model) as trainer:
        data.trainer = trainer  # on whose device the batches are to lie
        for part, rows in parts.items():
            of_views = []
            for view in views:
                images = data.loader(rows, training=False, degradation=None if view == ITSELF else view)
                trainer.predict(model, images, return_predictions=False)
                of_views.append(model.predictions["logit"].numpy().astype(np.float64))
            logits[part] = np.mean(of_views, axis=0)
    return logits


def _require_same(run: Run, key: str, trained: object, value: object) -> None:
    if trained != value:
        raise RunError(
            f"{run.folder} was trained with data.{key}={trained}, and data.{key}={value} is asked for; leave "
            f"data.{key} out and the run's own is taken"
        )


def _unseen(run: Run, store: Store) -> tuple[np.ndarray, dict]:
    """Rows of patients whom neither the run nor one that it started from has learnt from, whichever images it had.

    Who has an image that was learnt from under another name is such a patient, too. The facts are `score`'s.
    """
    require_outside(origins(run), store.manifest, "these")
    manifest, known, copied = store.manifest, {*learnt(run)["patient_id"]}, copies(run, store)
    familiar = manifest["patient_id"].isin(known)
    twice = manifest["image_id"].isin(copied.of) & ~familiar
    familiar |= manifest["patient_id"].isin(manifest["patient_id"][twice])
    for facts in copied.unsearched:
        log.warning("whether images were learnt from under another name is not known %s", why_unsearched(facts))
    if twice.any():
        named = first_few([f"{name} is {copied.of[name]}" for name in manifest["image_id"][twice]], 3)
        log.warning("%d images are copies of some that %s learnt from: %s", twice.sum(), run.name, named)
    if familiar.all():
        raise RunError(
            f"{run.folder}: every one of these {len(manifest)} images belongs to a patient it was trained or tuned on, "
            f"the first to {manifest['patient_id'].iloc[0]}; if these are other people, give them another "
            "name: data.dataset=NAME, or in a table the column dataset"
        )
    if familiar.any():
        patients = manifest.loc[familiar, "patient_id"].nunique()
        message = "%d images of %d patients are left out: %s was trained or tuned on them"
        log.warning(message, familiar.sum(), patients, run.name)
    facts = {"excluded": len(store.excluded), "copies": int(twice.sum()), "unsearched": copied.unsearched}
    return manifest.index[~familiar].to_numpy(), facts
