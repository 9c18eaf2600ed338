"""A model that has just been trained predicts with its best weights: the run's own parts, and its test part poorer."""

from collections.abc import Sequence

import lightning
import pandas as pd

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.serving.degrade import Degradation
from lungdet.errors import InputError
from lungdet.models.classifier import Classifier
from lungdet.runs.folder import Run
from lungdet.runs.predictions import prediction_table


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
