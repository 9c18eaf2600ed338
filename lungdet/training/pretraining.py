"""Weights from another run: a backbone starts where that run's ended, and never on patients it is tested on."""

import logging

from omegaconf import OmegaConf

from lungdet.data.datamodule import RadiographDataModule
from lungdet.errors import RunError, first_few
from lungdet.models import origins
from lungdet.models.backbone import Backbone
from lungdet.runs.folder import Run, load_run
from lungdet.runs.learnt import copies, learnt, why_unsearched

log = logging.getLogger(__name__)

PREFIX = "backbone."  # opens the names of a backbone's weights in a checkpoint


def load(backbone: Backbone, folder: str) -> None:
    """Give the backbone the weights of a run's best epoch.

    Args:
        backbone: of the same kind and size as the run's.
        folder: the run's.

    Raises:
        RunError: no such run or checkpoint, or its backbone is another one, or expects other pixel values.
    """
    run = start(folder)
    named = {name: value for name, value in run.weights().items() if name.startswith(PREFIX)}
    weights = {name.removeprefix(PREFIX): value for name, value in named.items()}
    shapes = {name: value.shape for name, value in backbone.state_dict().items()}
    misfits = [name for name in shapes if name not in weights or weights[name].shape != shapes[name]]
    misfits += [name for name in weights if name not in shapes]
    if misfits:
        raise RunError(
            f"model.backbone.init_from={folder}: its backbone is another one, "
            f"{OmegaConf.to_container(run.config.model.backbone)}; {len(misfits)} of its weights do not fit, first "
            f"{misfits[0]}"
        )
    name = OmegaConf.select(run.config, "model.backbone.origin")
    if getattr(backbone, "range", None) != (None if name is None else origins.named(name).range):
        raise RunError(
            f"model.backbone.init_from={folder}: its backbone expects other pixel values; set model.backbone.origin="
            f"{'null' if name is None else name}, as there"
        )
    backbone.load_state_dict(weights)


def start(folder: str) -> Run:
    """The run that `model.backbone.init_from` names.

    Raises:
        RunError: it is not there.
    """
    try:
        return load_run(folder)
    except RunError as error:
        raise RunError(f"model.backbone.init_from={error}") from error


def require_unseen(run: Run, data: RadiographDataModule) -> list[dict[str, str]]:
    """Passes only a run that learnt from nobody who is validated or tested on here; nor did those that it started from.

    Args:
        run: whose weights are to be started from.
        data: set up.

    Returns:
        Of which runs among these the images could not be searched for copies, and why; see `Copies`.

    Raises:
        RunError: some are, by their patient or under another name; up to five are named.
    """
    table = learnt(run)
    for part, parts in (("test", ("train", "val")), ("val", ("train",))):
        images = data.manifest.iloc[data.rows(part)]
        leak = f"model.backbone.init_from={run.folder}: that run, or one that it started from, learnt from"
        advice = "Give both runs the same data, data.split and data.split_seed"
        patients = sorted({*table["patient_id"][table["split"].isin(parts)]} & {*images["patient_id"]})
        if patients:
            raise RunError(
                f"{leak} {len(patients)} patient(s) of this run's {part} part: {first_few(patients)}. {advice}"
            )
        copied = copies(run, data.store, parts)
        twins = [f"{name} (there {copied.of[name]})" for name in images["image_id"] if name in copied.of]
        if twins:
            raise RunError(
                f"{leak} {len(twins)} image(s) of this run's {part} part under other names: {first_few(twins)}. "
                f"Take these out of the data. {advice}"
            )
    for facts in copied.unsearched:
        clause = why_unsearched(facts)
        log.warning("whether an image that is tested here was learnt from under another name is not known %s", clause)
    return copied.unsearched
