"""How a run's images became what its network sees, and other data that is prepared alike."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from lungdet.machine.commands import key_of
from lungdet.runs.folder import Run
from lungdet.runs.identity import PREPARATION


def other_data(run: Run, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The `data` group of a configuration, with images prepared as the run's own but where these words say otherwise.

    What it refers to (${seed}, ..) is answered by the run; where images are kept by the configuration.
    """
    joined = OmegaConf.merge(run.config, {"outputs": config.outputs})
    joined.data = config.data
    keys = {key_of(override) for override in overrides}
    for key, value in preparation(run).items():
        if f"data.{key}" not in keys:
            joined.data[key] = value
    return joined.data


def preparation(run: Run) -> dict:
    """How the run's files became what its network sees: the keys of a `data` group that other images have to share.

    `bits` is the depth that its 16-bit files were read with, by dataset where they differ; it is not decided anew, or
    one bright pixel among new images would darken them all.
    """
    config, depths = run.config.data, run.data["bits"]
    bits = config.bits
    if not isinstance(bits, int) and depths:
        bits = depths if len({*depths.values()}) > 1 else next(iter(depths.values()))
    return {key: config[key] for key in PREPARATION} | {"bits": bits}
