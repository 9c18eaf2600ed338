"""A finished run scores other radiographs with its best epoch's weights."""

import logging

import lightning
import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from lungdet import hardware, tracking
from lungdet.runs import Run, RunError, prediction_table

log = logging.getLogger(__name__)


def score(run: Run, data_config: DictConfig) -> pd.DataFrame:
    """Predictions of all these images but those that the run was trained or tuned on.

    Args:
        run: a run with a best checkpoint.
        data_config: a `data` group; its image size and resize have to be the run's.

    Returns:
        See `lungdet.runs.prediction_table`.

    Raises:
        RunError: the images would be prepared otherwise than in training, or all belong to patients of the run.
    """
    for key in ("image_size", "resize"):
        if data_config[key] != run.config.data[key]:
            raise RunError(
                f"{run.folder} was trained with data.{key}={run.config.data[key]}, and data.{key}={data_config[key]} "
                "is asked for; prepare both alike"
            )
    data = instantiate(data_config)
    data.prepare_data()
    rows = _unseen(run, data.store.manifest)
    model = instantiate(run.config.model)
    model.load_state_dict(torch.load(run.checkpoint("best"), weights_only=True, map_location="cpu")["state_dict"])
    trained = run.config.trainer
    arithmetic = hardware.choose(trained.precision, trained.memory_format, trained.accelerator)
    model.to(memory_format=getattr(torch, arithmetic.memory_format))
    tracking.quieten()
    trainer = lightning.Trainer(
        accelerator=trained.accelerator,
        devices=1,
        precision=arithmetic.precision,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.test(model, dataloaders=data.loader(rows, training=False), verbose=False)
    found = model.predictions
    return prediction_table(data.store.manifest.iloc[found["row"].numpy()], model.labels, found["logit"].numpy())


def _unseen(run: Run, manifest: pd.DataFrame) -> "pd.Index":
    """Rows of patients whom the run has neither trained nor chosen its best epoch on."""
    split = pd.read_csv(run.folder / "split.csv")
    known = manifest["image_id"].isin(split.loc[split["split"] != "test", "image_id"])
    patients = manifest.loc[known, "patient_id"].unique()
    seen = manifest["patient_id"].isin(patients)
    if seen.all():
        raise RunError(
            f"{run.folder}: every one of these {len(manifest)} images belongs to a patient it was trained on"
        )
    if seen.any():
        log.warning(
            "%d images of %d patients are left out: %s was trained or tuned on them",
            seen.sum(),
            len(patients),
            run.name,
        )
    return manifest.index[~seen].to_numpy()
