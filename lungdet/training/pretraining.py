"""Weights from another run: a backbone starts where that run's ended, and never on patients it is tested on."""

import logging
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from lungdet.errors import RunError, first_few
from lungdet.runs.folder import Run, load_run
from lungdet.runs.learnt import copies, learnt, why_unsearched

if TYPE_CHECKING:
    from lungdet.data.datamodule import RadiographDataModule
    from lungdet.models.backbone import Backbone

log = logging.getLogger(__name__)

PREFIX = "backbone."
"""Opens the names of a backbone's weights in a checkpoint."""


def load(backbone: "Backbone", folder: str) -> None:
    """Give the backbone the weights of a run's best epoch.

    Args:
        backbone: of the same kind and size as the run's.
        folder: the run's.

    Raises:
        RunError: no such run or checkpoint, or its backbone is another one.
    """
    run = start(folder)
    kept = run.weights()
    weights = {name.removeprefix(PREFIX): value for name, value in kept.items() if name.startswith(PREFIX)}
    own = {name: value.shape for name, value in backbone.state_dict().items()}
    unlike = [name for name in own if name not in weights or weights[name].shape != own[name]]
    unlike += [name for name in weights if name not in own]
    if unlike:
        theirs = OmegaConf.to_container(run.config.model.backbone)
        raise RunError(
            f"model.backbone.init_from={folder}: its backbone is another one, {theirs}; {len(unlike)} of its weights "
            f"do not fit, first {unlike[0]}"
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


def require_unseen(run: Run, data: "RadiographDataModule") -> list[dict[str, str]]:
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
        here = data.manifest.iloc[data.rows(part)]
        what = f"model.backbone.init_from={run.folder}: that run, or one that it started from, learnt from"
        advice = "Give both runs the same data, data.split and data.split_seed"
        patients = sorted({*table["patient_id"][table["split"].isin(parts)]} & {*here["patient_id"]})
        if patients:
            raise RunError(
                f"{what} {len(patients)} patient(s) of this run's {part} part: {first_few(patients)}. {advice}"
            )
        copied = copies(run, data.store, parts)
        same = [f"{name} (there {copied.of[name]})" for name in here["image_id"] if name in copied.of]
        if same:
            raise RunError(
                f"{what} {len(same)} image(s) of this run's {part} part under other names: {first_few(same)}. "
                f"Take these out of the data. {advice}"
            )
    for facts in copied.unsearched:
        clause = why_unsearched(facts)
        log.warning("whether an image that is tested here was learnt from under another name is not known %s", clause)
    return copied.unsearched


def untrained(model: DictConfig) -> DictConfig:
    """The same model's configuration, its weights fetched from nowhere: for one that gets its own, or needs none."""
    model = model.copy()
    for key, nothing in (("pretrained", False), ("weights", None), ("init_from", None)):
        if OmegaConf.select(model, f"backbone.{key}"):
            OmegaConf.update(model, f"backbone.{key}", nothing)
    return model
