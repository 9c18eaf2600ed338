"""A finished run scores other radiographs with its best epoch's weights."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from tempfile import TemporaryDirectory

import lightning
import pandas as pd
import torch
from omegaconf import DictConfig

from lungdet.data.store.store import Store
from lungdet.errors import RunError, first_few
from lungdet.instantiation import instantiate
from lungdet.machine import hardware
from lungdet.runs.folder import Run
from lungdet.runs.identity import PREPARATION
from lungdet.runs.learnt import copies, learnt, why_unsearched
from lungdet.runs.predictions import prediction_table
from lungdet.training import recording
from lungdet.training.pretraining import untrained

log = logging.getLogger(__name__)


def preparation(run: Run) -> dict:
    """How the run's files became what its network sees: the keys of a `data` group that other images have to share.

    `bits` is the depth that its 16-bit files were read with, by dataset where they differ; it is not decided anew, or
    one bright pixel among new images would darken them all.
    """
    own, depths = run.config.data, run.data["bits"]
    bits = own.bits
    if not isinstance(bits, int) and depths:
        bits = depths if len({*depths.values()}) > 1 else next(iter(depths.values()))
    return {key: own[key] for key in PREPARATION} | {"bits": bits}


def score(run: Run, data_config: DictConfig, trust: Sequence[str] = ()) -> pd.DataFrame:
    """Predictions of all these images but those that the run, or one that it started from, was trained or tuned on.

    Args:
        run: a run with a best checkpoint.
        data_config: a `data` group that prepares images as the run did (`preparation`). A depth of its own may be given
            to datasets that the run had no 16-bit file of.
        trust: packages whose classes the run and `data_config` may name.

    Returns:
        See `lungdet.runs.predictions`. Its `attrs` say in `scored` how many images could not be used (`excluded`),
        how many were left out as copies of images learnt from (`copies`), and why some runs' images could not be
        compared (`unsearched`).

    Raises:
        RunError: the images would be prepared otherwise than in training, or all are of patients it has learnt from.
    """
    for key in PREPARATION:
        _require_same(run, key, preparation(run)[key], data_config[key])
    model = instantiate(f"{run.folder}: model", untrained(run.config.model), trust)
    data = instantiate("data", data_config, trust, visits=model.visits)
    data.prepare_data()
    depths = run.data["bits"]
    for dataset, depth in data.store.bits.items():
        _require_same(run, "bits", depths.get(dataset, depth), depth)
    rows, facts = _unseen(run, data.store)
    model.load_state_dict(run.weights())
    accelerator, arithmetic = _here(run)
    model.to(memory_format=getattr(torch, arithmetic.memory_format))
    recording.quieten()
    # In a root of its own: under SLURM, Lightning loads any hpc_ckpt_* that lies there, and not the weights above.
    with TemporaryDirectory() as root, hardware.memory_kept() if model.visits == 1 else nullcontext():  # as in training
        data.trainer = trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=arithmetic.precision,
            default_root_dir=root,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.test(model, dataloaders=data.loader(rows, training=False), verbose=False)
    predictions = model.predictions
    manifest = data.store.manifest.iloc[predictions["row"].numpy()]
    table = prediction_table(manifest, model.labels, predictions["logit"].numpy())
    table.attrs["scored"] = facts
    return table


def _here(run: Run) -> tuple[str, hardware.Arithmetic]:
    """Where and how to compute: as in training, or with a warning as this machine can."""
    trained = run.config.trainer
    accelerator = "cpu" if trained.accelerator == "cpu" else "auto"
    if hardware.computes(trained.precision, accelerator):
        return accelerator, hardware.choose(trained.precision, trained.memory_format, accelerator)
    arithmetic = hardware.choose("auto", trained.memory_format, accelerator)
    precisions = trained.precision, arithmetic.precision
    log.warning("%s was trained in %s, which is for GPUs, and is scored in %s", run.name, *precisions)
    return accelerator, arithmetic


def _require_same(run: Run, key: str, own: object, asked: object) -> None:
    if own != asked:
        raise RunError(
            f"{run.folder} was trained with data.{key}={own}, and data.{key}={asked} is asked for; leave data.{key} "
            "out and the run's own is taken"
        )


def _unseen(run: Run, store: Store) -> tuple["pd.Index", dict]:
    """Rows of patients whom neither the run nor one that it started from has learnt from, whichever images it had.

    Who has an image that was learnt from under another name is such a patient, too. The facts are `score`'s.
    """
    manifest, known, copied = store.manifest, {*learnt(run)["patient_id"]}, copies(run, store)
    seen = manifest["patient_id"].isin(known)
    twice = manifest["image_id"].isin(copied.of) & ~seen
    seen |= manifest["patient_id"].isin(manifest["patient_id"][twice])
    for facts in copied.unsearched:
        log.warning("whether images were learnt from under another name is not known %s", why_unsearched(facts))
    if twice.any():
        named = first_few([f"{name} is {copied.of[name]}" for name in manifest["image_id"][twice]], 3)
        log.warning("%d images are copies of some that %s learnt from: %s", twice.sum(), run.name, named)
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
    facts = {"excluded": len(store.excluded), "copies": int(twice.sum()), "unsearched": copied.unsearched}
    return manifest.index[~seen].to_numpy(), facts
