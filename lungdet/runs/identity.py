"""What makes two runs the same, the same model, or of the same data: which keys of a configuration decide what."""

import hashlib
import json

from omegaconf import DictConfig, OmegaConf

from lungdet.errors import RunError
from lungdet.machine.commands import key_of
from lungdet.runs.folder import Run

NOT_THE_EXPERIMENT = ("run_dir", "resume", "outputs", "logger", "sweep", "hydra", "trust", "known", "find")
"""Groups that decide where a run lies, how it goes on, who is told and what is expected, not what it computes."""
NOT_THE_DATA = ("store", "num_workers", "loader")
"""Keys of `data` that decide how its images are served, not which they are."""
AFTER_THE_FIT = "degrade"
"""A group that can be asked of a finished run without training on."""
NOT_THE_MODEL = frozenset((*NOT_THE_EXPERIMENT, *NOT_THE_DATA, AFTER_THE_FIT, "seed", "root", "pseudonymize"))
"""Keys, in any group, that never make two runs different models: nor do the seed and where images and keys lie."""
PREPARATION = ("image_size", "resize", "visits")
"""Keys of `data` that decide what a network sees of an image file: it cannot score images that differ in one."""
LOSS_IS_ANOTHER = (
    "seed", "task", "data.fold", "data.held_out", "data.split", "data.split_seed", "data.train_on", "data.limit",
    "model.class_weights",
)  # fmt: skip
"""Keys that change what the validation loss is of or measured on: a search over one finds the easiest, not the best."""

PLANS_NO_END = ("torch.optim.lr_scheduler.ReduceLROnPlateau", "torch.optim.lr_scheduler.ConstantLR")
"""Schedules under which an epoch is trained alike however many follow; under others, more epochs are another run."""
OF_EPOCHS = ("trainer.max_epochs", "trainer.early_stopping", "trainer.gradient_clip_val", "trainer.compile")
"""What a run that goes on may be told anew and trains on for."""
MAY_CHANGE = (
    *OF_EPOCHS, "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    *(f"data.{key}" for key in ("root", "table", "split_file", "pseudonymize", *NOT_THE_DATA)), "logger", AFTER_THE_FIT,
)  # fmt: skip
"""All that `resume=RUN` may tell a run anew: the rest stands in its checkpoint, or would make it another run."""

_UNCOUNTED = {
    "ids": "patients go by other ids, as under another key, data.pseudonymize",
    "pixels": "files of other names, sizes or times of change",
    "split": "the file or list that it is read from names other parts",
}


def fingerprint(config: DictConfig) -> str:
    """What a configuration computes, in sixteen letters and digits: equal for runs that would end alike."""
    values = {}
    for key in config:
        if key not in NOT_THE_EXPERIMENT:
            value = config[key]
            values[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    values["data"] = {key: value for key, value in (values.get("data") or {}).items() if key not in NOT_THE_DATA}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def decides(override: str) -> bool:
    """Whether a word of the command line decides what a run computes, not only where it lies or how it is told."""
    group, _, key = key_of(override).partition(".")
    return group not in NOT_THE_EXPERIMENT and not (group == "data" and key in NOT_THE_DATA)


def require_data(run: Run, identity: dict[str, dict], split: str | None = None) -> None:
    """Passes only the data that a run is of, where it has recorded any.

    Args:
        run: which may be trained on, or taken for done.
        identity: of the data as they are now, see `RadiographDataModule.identity`.
        split: its hash as drawn now, where it is: from the same data another version may draw another one.

    Raises:
        RunError: they differ; the message says in what.
    """
    recorded = run.environment.get("data", {}).get("identity", {})
    if not recorded and not run.finished and not run.can_continue:
        return
    if missing := identity.keys() - recorded.keys():
        path = run.folder / "environment.json"
        raise RunError(f"{path} does not say which {', '.join(sorted(missing))} the run is of; start a new run")
    differing = [kind for kind in identity if recorded[kind]["hash"] != identity[kind]["hash"]]
    if differing[:1] == ["images"]:  # of other images the rest is other, too
        differing = ["images"]
    if differing:
        kinds = "; ".join(_difference(kind, recorded[kind], identity[kind]) for kind in differing)
        raise RunError(
            f"{run.folder} is a run of other data: {kinds}. Put them back as they were, or train on them as they "
            "are in another folder (sweep.name=NAME, hydra.run.dir=FOLDER)"
        )
    before = run.environment.get("split")
    if split is not None and before is not None and before["hash"] != split:
        raise RunError(
            f"{run.folder} was trained on split {before['hash']} ({before['name']}), the data now give split "
            f"{split}: start a new run"
        )


def _difference(kind: str, before: dict, now: dict) -> str:
    """`labels (96 known, 48 positive then; 96 known, 47 positive now)`."""
    earlier, present = (
        ", ".join(f"{count:,} {unit}" for unit, count in facts.items() if unit != "hash") for facts in (before, now)
    )
    return f"{kind} ({earlier} then; {present} now)" if earlier else f"{kind} ({_UNCOUNTED[kind]})"
