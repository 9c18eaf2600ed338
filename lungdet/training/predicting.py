"""A model predicts with its best weights: the run's own parts, its test images in poorer quality, other radiographs."""

import logging
from collections.abc import Callable, Mapping, Sequence

import lightning
import numpy as np
import pandas as pd
from omegaconf import DictConfig

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.serving.degrade import Degradation
from lungdet.data.serving.views import ITSELF, View, name
from lungdet.data.store.store import Store
from lungdet.errors import InputError, RunError, first_few
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


def predict(run: Run, trainer: lightning.Trainer, model: Classifier, data: RadiographDataModule) -> dict[str, float]:
    """Predict with the best epoch's weights and write it down: a sample of training, validation, test.

    Returns:
        The test part's loss and metrics.

    Raises:
        InputError: there is no best epoch.
    """
    best = run.checkpoint("best")
    if not run.epochs["val/loss"].notna().any():
        raise InputError(
            f"{run.folder}: the validation loss was never a number, so training diverged; lower model.learning_rate, "
            "or set trainer.gradient_clip_val=1.0"
        )
    sample = data.loader(data.train_sample(), training=False)
    trainer.predict(model, sample, ckpt_path=best, return_predictions=False)
    run.write_predictions("train", predicted(model, data, "train"))
    trainer.validate(model, datamodule=data, ckpt_path=best, verbose=False)
    run.write_predictions("val", predicted(model, data, "val"))
    (test,) = trainer.test(model, datamodule=data, ckpt_path=best, verbose=False)
    run.write_predictions("test", predicted(model, data, "test"))
    return {name.removeprefix("test/"): value for name, value in sorted(test.items())}


def predict_degraded(
    run: Run,
    trainer: lightning.Trainer,
    model: Classifier,
    data: RadiographDataModule,
    degradations: Sequence[Degradation],
) -> None:
    """Predict the test images in each poorer quality and write down a row an image, kind and level, if there is any."""
    tables, best = [], run.checkpoint("best")
    for degradation in degradations:
        images = data.loader(data.rows("test"), training=False, degradation=degradation)
        trainer.predict(model, images, ckpt_path=best, return_predictions=False)
        table = predicted(model, data, "test")
        values = table.loc[:, table.columns.str.startswith(("logit_", "probability_"))]
        tables.append(table[["image_id"]].assign(degradation=degradation.kind, level=degradation.level).join(values))
    if tables:
        run.write_predictions("degraded_test", pd.concat(tables, ignore_index=True))


def predicted(model: Classifier, data: RadiographDataModule, part: str) -> pd.DataFrame:
    """What the model has just predicted, with the hashes of the split and of the part that the images are of."""
    rows, logit = (model.predictions[key].numpy() for key in ("row", "logit"))
    table = prediction_table(data.manifest.iloc[rows], model.labels, logit)
    table.attrs = {"split": data.split.hash, "part": data.split.part_hash(part)}
    return table


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
