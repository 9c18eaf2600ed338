"""Weights from another run: a backbone starts where that run's ended, and never on patients it is tested on."""

from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig, OmegaConf

from lungdet.runs import RunError, load_run

if TYPE_CHECKING:
    from lungdet.data.datamodule import RadiographDataModule
    from lungdet.models.backbone import Backbone

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
    said = f"model.backbone.init_from={folder}"
    run = load_run(folder)
    kept = torch.load(run.checkpoint("best"), weights_only=True, map_location="cpu")["state_dict"]
    weights = {name.removeprefix(PREFIX): value for name, value in kept.items() if name.startswith(PREFIX)}
    own = {name: value.shape for name, value in backbone.state_dict().items()}
    unlike = [name for name in own if name not in weights or weights[name].shape != own[name]]
    unlike += [name for name in weights if name not in own]
    if unlike:
        theirs = OmegaConf.to_container(run.config.model.backbone)
        raise RunError(
            f"{said}: its backbone is another one, {theirs}; {len(unlike)} of its weights do not fit, first {unlike[0]}"
        )
    backbone.load_state_dict(weights)


def require_unseen(folder: str, data: "RadiographDataModule") -> None:
    """Passes only a run that learnt from nobody who is validated or tested on here; nor did those that it started from.

    Args:
        folder: the run's.
        data: set up.

    Raises:
        RunError: some are; up to five are named.
    """
    run = load_run(folder)
    for part, learnt in (("test", ("train", "val")), ("val", ("train",))):
        both = sorted(run.patients(*learnt) & set(data.manifest["patient_id"].iloc[data.rows(part)]))
        if both:
            raise RunError(
                f"model.backbone.init_from={folder}: that run learnt from {len(both)} patient(s) of this run's {part} "
                f"part: {', '.join(both[:5])}{' ..' if len(both) > 5 else ''}. Give both runs the same data, "
                "data.split and data.split_seed"
            )
    if before := OmegaConf.select(run.config, "model.backbone.init_from"):
        require_unseen(before, data)


def untrained(model: DictConfig) -> DictConfig:
    """The same model's configuration, its weights fetched from nowhere: for one that gets its own, or needs none."""
    model = model.copy()
    for key, nothing in (("pretrained", False), ("weights", None), ("init_from", None)):
        if OmegaConf.select(model, f"backbone.{key}"):
            OmegaConf.update(model, f"backbone.{key}", nothing)
    return model
