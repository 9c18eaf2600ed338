"""Comparison: which runs are one model under several seeds, and which may be paired because they met the same test."""

import itertools
from collections.abc import Sequence

import numpy as np
from omegaconf import DictConfig, OmegaConf

from lungdet.evaluation.results import EvaluationError, Result

NOT_THE_MODEL = {"hydra", "logger", "outputs", "resume", "run_dir", "wandb", "seed", "root", "store", "num_workers"}
"""Keys that never make two runs different models, wherever they stand: where things lie, who logs, and the seed."""


def require_pairs(results: Sequence[Result], hashes: bool = True) -> None:
    """Passes only runs that were tested on the same images with the same labels.

    Args:
        results: the runs.
        hashes: whether the test parts' hashes must agree too; not where other data was scored.

    Raises:
        EvaluationError: two runs differ; both are named, with both hashes.
    """
    first, *others = results
    for other in others:
        both = f"runs {first.run.folder} and {other.run.folder} cannot be compared"
        if hashes and first.test_hash != other.test_hash:
            raise EvaluationError(
                f"{both}: their test parts differ (hash {first.test_hash} and {other.test_hash}). Train both with the "
                "same data, data.split and data.split_seed, or evaluate them one at a time"
            )
        if not first.test.image_id.equals(other.test.image_id):
            alone = sorted(set(first.test.image_id) ^ set(other.test.image_id))
            raise EvaluationError(
                f"{both}: {len(alone)} image(s) were predicted by one alone, the first is {alone[0]} "
                f"(hash {first.test_hash} and {other.test_hash})"
            )
        same = np.array_equal(first.test.target_abnormal, other.test.target_abnormal, equal_nan=True)
        if not same:
            differ = (first.test.target_abnormal != other.test.target_abnormal) & first.test.target_abnormal.notna()
            name = first.test.image_id[differ].iloc[0] if differ.any() else "one without a label"
            raise EvaluationError(
                f"{both}: their labels differ, first on {name} (hash {first.test_hash} and {other.test_hash}); they "
                "were trained with different tables or releases of the labels"
            )


def group(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs by model: runs whose configuration is equal but for `NOT_THE_MODEL` are one model under several seeds.

    A model's name is the module of its class (`cnn`, `cnn_lstm`); where two share it, the keys in which they differ
    are appended (`cnn_lstm model.sequence=columns`). Seeds are in order.

    Raises:
        EvaluationError: one model has two runs of one seed: averaged, that seed would count twice and the spread
            over seeds would come out too small; which of them to leave out is not ours to choose.
    """
    identities: dict[tuple, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        identities.setdefault(tuple(sorted(identity(result).items())), []).append(result)
    for same in identities.values():
        for one, two in itertools.pairwise(same):
            if one.seed == two.seed:
                raise EvaluationError(
                    f"{one.run.folder} and {two.run.folder} are the same model with the same seed {one.seed}; name the "
                    "runs to evaluate: 'runs=[A,B]'"
                )
    bases: dict[str, list[tuple]] = {}
    for key in identities:
        bases.setdefault(_module(dict(key)["model._target_"]), []).append(key)
    models = {}
    for base in sorted(bases):
        differing = differences([dict(key) for key in bases[base]])
        for key in sorted(bases[base]):
            suffix = [f"{name}={dict(key).get(name, 'none')}" for name in differing]
            models[" ".join([base, *suffix])] = identities[key]
    return models


def identity(result: Result) -> dict[str, str]:
    """What makes a run the model that it is: the configuration, flat, without `NOT_THE_MODEL`, and the split."""
    flat: dict[str, str] = {"split": result.run.environment["split"]["hash"]}
    _flatten(result.run.config, "", flat)
    return flat


def differences(identities: Sequence[dict[str, str]], shared_only: bool = False) -> list[str]:
    """The keys in which configurations differ, or with `shared_only` those among them that every one has."""
    keys = sorted(set().union(*identities))
    if shared_only:
        keys = [key for key in keys if all(key in one for one in identities)]
    return [key for key in keys if len({one.get(key) for one in identities}) > 1]


def _flatten(config: DictConfig, prefix: str, into: dict[str, str]) -> None:
    for key in config:
        if key in NOT_THE_MODEL:
            continue
        value = config[key]
        if isinstance(value, DictConfig):
            _flatten(value, f"{prefix}{key}.", into)
        else:
            plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            into[f"{prefix}{key}"] = str(plain)


def _module(target: str) -> str:
    """`lungdet.models.cnn_lstm.CNNLSTM` -> `cnn_lstm`."""
    return target.split(".")[-2] if "." in target else target
