"""A run in columns, so that a table of runs can be sorted, filtered and drawn by them: what it is, what it came to."""

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lungdet.page.wording import FLAGS
from lungdet.runs.folder import Run
from lungdet.runs.identity import NOT_THE_EXPERIMENT, fingerprint


def setting(run: Run) -> dict[str, Any]:
    """The configuration, each group with a name, and what was found as the run began: sizes, hashes, hardware.

    Args:
        run: that has recorded what it trains on (`Run.begin`).
    """
    facts, config = run.environment, run.config
    values = configuration(config)
    values["data"] |= {
        "datasets": "+".join(sorted(facts["data"]["sources"])),
        "fingerprint": facts["data"]["fingerprint"],
    }
    split = facts["split"]
    counted = ("hash", "images", "patients", "abnormal")
    parts = {part: {key: counts[key] for key in counted} for part, counts in split["parts"].items()}
    return values | {
        "split": {"name": split["name"], "hash": split["hash"], **parts},
        **{key: facts["data"][key] for key in ("images", "patients")},
        "hardware": {key: facts["hardware"][key] for key in ("device", "processor", "cores")},
        "computes": fingerprint(config),
        "git": facts["git"],
        "versions": facts["versions"],
        "processes": len(facts["processes"]),
        **{key: facts[key] for key in ("parameters", "precision", "memory_format")},
    }


def configuration(config: DictConfig) -> dict[str, Any]:
    """What of a configuration makes the experiment, with a name of model, backbone and data."""
    groups = {key: value for key, value in config.items() if key not in NOT_THE_EXPERIMENT}
    values = OmegaConf.to_container(OmegaConf.create(groups))
    values["model"]["name"] = model_name(config.model)
    values["data"]["name"] = module(config.data)
    if backbone := values["model"].get("backbone"):
        backbone["name"] = backbone.get("name") or backbone["_target_"].rpartition(".")[2]
    return values


def outcome(run: Run) -> dict[str, float]:
    """What a finished run came to: its best epoch and what was measured there, its test part, what it cost.

    What is undefined is left out. Epochs are counted from 0, as in metrics.csv.
    """
    facts, epochs = run.environment, run.epochs.set_index("epoch")
    best = epochs.loc[facts["best_epoch"]]
    measured = best[[name for name in best.index if name.startswith(("train/", "val/"))]]
    values = {
        "best_epoch": facts["best_epoch"],
        "epochs": facts["epochs"],
        **{f"best/{name}": float(value) for name, value in measured.items()},
        **{f"test/{name}": value for name, value in facts["test"].items()},
        **{f"cost/{name}": facts[name] for name in ("fit_seconds", "images_per_second", "peak_memory_bytes")},
    }
    return {name: value for name, value in values.items() if value == value}  # NaN equals nothing


def tags(run: Run) -> list[str]:
    """The name of its model, and of the experiments that the command line named."""
    words = OverridesParser.create().parse_overrides([*run.environment["overrides"]])
    values = [word.value() for word in words if word.key_or_group == "experiment"]
    experiments = [name for value in values if value for name in ([value] if isinstance(value, str) else value)]
    return [model_name(run.config.model), *experiments]


def model_name(config: DictConfig) -> str:
    """The module of a model's class, and in what it is a control: `cnn_lstm_shuffled`."""
    flags = [word for flag, word in FLAGS.items() if config.get(flag.removeprefix("model."))]
    return "_".join([module(config), *flags])


def module(config: Mapping[str, Any]) -> str:
    """The module that a configuration's class is defined in: `lungdet.data.sources.phantom.PhantomDataModule` is
    `phantom`.
    """
    return config["_target_"].split(".")[-2]
