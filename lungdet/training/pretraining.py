"""Weights from elsewhere: a backbone starts where another run's ended, or with published weights.

It never is tested on patients that the other run learnt from, nor on a dataset that published weights have seen.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from lungdet.data.datamodule import RadiographDataModule
from lungdet.errors import InputError, RunError, first_few
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


def origin(model: DictConfig) -> dict | None:
    """What is known of published weights that a model begins with; None of one that begins with none, or with a run's.

    Args:
        model: the configuration, `model.backbone.weights`, `origin`, `seen` and `pretrained` among it.

    Returns:
        `weights`: the file's name, or timm's of what the hub has; `sha256`: the file's; `origin`: the name of those in
        `lungdet.models.origins`, or None; `seen`: the datasets that they learnt from, or None where it is not known.

    Raises:
        InputError: it is said of no weights whose they are, or `seen` is no list.
    """
    if OmegaConf.select(model, "backbone.init_from") is not None:  # they replace all others
        return None
    keys = ("pretrained", "weights", "origin", "seen")
    pretrained, file, name, seen = (OmegaConf.select(model, f"backbone.{key}") for key in keys)
    if seen is not None and not OmegaConf.is_list(seen):
        raise InputError(f"model.backbone.seen={seen}: a list of datasets is needed, 'model.backbone.seen=[{seen}]'")
    if file is None:
        if name is not None or seen is not None:
            raise InputError(
                f"model.backbone.origin={name}, model.backbone.seen={seen}: of which weights? "
                "set model.backbone.weights=FILE"
            )
        return _from_hub(model.backbone.name) if pretrained else None
    known = [*([] if name is None else origins.named(name).seen), *(seen or ())]
    return {
        "weights": Path(file).name,
        "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(),
        "origin": name,
        "seen": None if name is None and seen is None else sorted(set(known)),
    }


def require_outside(facts: Sequence[dict], images: pd.DataFrame, where: str) -> None:
    """Passes only images of datasets that no published weights have seen, as far as that is known.

    Args:
        facts: of the weights, from `origin`.
        images: with their `dataset`.
        where: what they are to be, in messages.

    Raises:
        RunError: some are of such a dataset; which of its images the weights have learnt from nobody can tell.
    """
    for weights in facts:
        count = images["dataset"].isin(weights["seen"] or ()).sum()
        if count:
            datasets = first_few({*images["dataset"]} & {*weights["seen"]})
            raise RunError(
                f"model.backbone.weights={weights['weights']}: these weights have learnt from {datasets}, nobody knows "
                f"from which images, and {count:,} images of {where} are of it. Test on other data (data=NAME, or "
                "data.split=leave_one_source_out data.held_out=NAME), or start from weights that have not seen it"
            )


def _from_hub(name: str) -> dict:
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    imagenet = origins.imagenet(config.tag or "")
    return {
        "weights": f"{config.architecture}.{config.tag}",
        "sha256": None,
        "origin": "imagenet" if imagenet else None,
        "seen": [] if imagenet else None,
    }
