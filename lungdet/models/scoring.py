"""A finished run scores other radiographs with its best epoch's weights."""

import logging
from contextlib import nullcontext

import lightning
import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from lungdet import hardware, tracking
from lungdet.models.pretraining import untrained
from lungdet.runs import Run, RunError, prediction_table

log = logging.getLogger(__name__)

PREPARATION = ("image_size", "resize", "bits", "visits")
"""Keys of a `data` group that have to be the run's: how files become what a network sees."""


def score(run: Run, data_config: DictConfig) -> pd.DataFrame:
    """Predictions of all these images but those that the run was trained or tuned on.

    Args:
        run: a run with a best checkpoint.
        data_config: a `data` group, in `PREPARATION` equal to the run's.

    Returns:
        See `lungdet.runs.prediction_table`.

    Raises:
        RunError: the images would be prepared otherwise than in training, or all belong to patients of the run.
    """
    for key in PREPARATION:
        if data_config[key] != run.config.data.get(key, data_config[key]):
            raise RunError(
                f"{run.folder} was trained with data.{key}={run.config.data[key]}, and data.{key}={data_config[key]} "
                f"is asked for; leave data.{key} out and the run's own is taken"
            )
    model = instantiate(untrained(run.config.model))
    data = instantiate(data_config, visits=model.visits)
    data.prepare_data()
    rows = _unseen(run, data.store.manifest)
    model.load_state_dict(torch.load(run.checkpoint("best"), weights_only=True, map_location="cpu")["state_dict"])
    trained = run.config.trainer
    arithmetic = hardware.choose(trained.precision, trained.memory_format, trained.accelerator)
    model.to(memory_format=getattr(torch, arithmetic.memory_format))
    tracking.quieten()
    data.trainer = trainer = lightning.Trainer(
        accelerator=trained.accelerator,
        devices=1,
        precision=arithmetic.precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with hardware.memory_kept() if model.visits == 1 else nullcontext():  # as in training
        trainer.test(model, dataloaders=data.loader(rows, training=False), verbose=False)
    found = model.predictions
    return prediction_table(data.store.manifest.iloc[found["row"].numpy()], model.labels, found["logit"].numpy())


def _unseen(run: Run, manifest: pd.DataFrame) -> "pd.Index":
    """Rows of patients whom the run has neither trained nor chosen its best epoch on, whichever images it had."""
    seen = manifest["patient_id"].isin(run.patients("train", "val"))
    if seen.all():
        raise RunError(
            f"{run.folder}: every one of these {len(manifest)} images belongs to a patient it was trained or tuned on, "
            f"the first to {manifest['patient_id'].iloc[0]}; if these are other people, give their table a column "
            "dataset with another name"
        )
    if seen.any():
        log.warning(
            "%d images of %d patients are left out: %s was trained or tuned on them",
            seen.sum(),
            manifest.loc[seen, "patient_id"].nunique(),
            run.name,
        )
    return manifest.index[~seen].to_numpy()
