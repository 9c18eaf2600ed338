"""Published weights: what is known of those that a backbone begins with; nothing that they have seen is tested on."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from lungdet.data.sources import chestxray14
from lungdet.errors import InputError, RunError, first_few
from lungdet.models import origins

log = logging.getLogger(__name__)


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
    if file is None and not pretrained:
        if name is not None or seen is not None:
            raise InputError(
                f"model.backbone.origin={name}, model.backbone.seen={seen}: of which weights? set "
                "model.backbone.weights=FILE or model.backbone.pretrained=true"
            )
        return None
    facts = _of_hub(model.backbone.name) if file is None else _of_file(Path(file))
    name = name or facts["origin"]
    known = None if name is None and seen is None else [*(origins.named(name).seen if name else ()), *(seen or ())]
    return facts | {"origin": name, "seen": None if known is None else sorted(set(known))}


def require_outside(facts: Sequence[dict], images: pd.DataFrame, where: str) -> None:
    """Passes only images of datasets that no published weights have seen, as far as that is known.

    A dataset is known by its name. What has another name and most of its images called as ChestX-ray14's are is warned
    of where the weights have seen that.

    Args:
        facts: of the weights, from `origin`.
        images: with their `image_id` and `dataset`.
        where: what they are to be, in messages.

    Raises:
        RunError: some are of such a dataset; which of its images the weights have learnt from nobody can tell.
    """
    alike = chestxray14.called_alike(images["image_id"]).groupby(images["dataset"])
    suspects = {name: (called.sum(), len(called)) for name, called in alike if called.mean() > 0.5}
    for weights in facts:
        count = images["dataset"].isin(weights["seen"] or ()).sum()
        if count:
            datasets = first_few({*images["dataset"]} & {*weights["seen"]})
            raise RunError(
                f"model.backbone.weights={weights['weights']}: these weights have learnt from {datasets}, nobody knows "
                f"from which images, and {count:,} images of {where} are of it. Test on other data (data=NAME, or "
                "data.split=leave_one_source_out data.held_out=NAME), or start from weights that have not seen it"
            )
        if "chestxray14" not in (weights["seen"] or ()):
            continue
        for dataset, (called, all_of_it) in suspects.items():
            log.warning(
                "%s: these weights have learnt from chestxray14, and %d of %d images of %s, dataset %s, are called as "
                "its files are (00000001_000): if they are the same radiographs, results flatter; test on others",
                weights["weights"], called, all_of_it, where, dataset,
            )  # fmt: skip


def _of_file(file: Path) -> dict:
    """Nothing in a file says whose its weights are."""
    return {"weights": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "origin": None}


def _of_hub(name: str) -> dict:
    """What timm's name of the weights on the hub says."""
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    imagenet = origins.imagenet(config.tag or "")
    return {
        "weights": f"{config.architecture}.{config.tag}",
        "sha256": None,
        "origin": "imagenet" if imagenet else None,
    }
