"""Comparison: which runs are one model under several seeds, and which may be paired because they met the same test."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
from omegaconf import DictConfig, OmegaConf

from lungdet.evaluation.gathering.parts import ALONE, FOLDS, SOURCES, Replicate, common, part_of
from lungdet.evaluation.gathering.results import EvaluationError, Result, Skipped
from lungdet.page.wording import FLAGS
from lungdet.runs.folder import Run
from lungdet.runs.identity import NOT_THE_MODEL

STARTED_FROM = "model.backbone.init_from"
"""The run whose backbone one starts from: another folder for each seed, and the same start if that is one model."""
CONTROLS = {"cnn_mlp", "cnn_lstm_shuffled", "cnn_lstm_frozen", "cnn_lstm_shuffled_frozen", "pool", "length_only"}
"""The roles of models that nobody would choose: they show where a gain comes from."""


def require_pairs(results: Sequence[Result], hashes: bool = True) -> None:
    """Passes only runs that were tested on the same images with the same labels.

    Runs on several folds of one cross-validation, or on several held-out sources, are compared part by part.

    Args:
        results: the runs.
        hashes: whether the test parts' hashes must agree too; not where other data was scored.

    Raises:
        EvaluationError: two runs differ; both are named, with both hashes.
    """
    first = results[0]
    parts: dict[str, Result] = {}
    for other in results:
        part = part_of(other.run)
        both = f"runs {first.run.folder} and {other.run.folder} cannot be compared"
        if other.labels != first.labels:
            raise EvaluationError(
                f"{both}: one was trained with task={first.run.config.task}, one with task={other.run.config.task}; "
                "evaluate them one at a time"
            )
        if part.family != part_of(first.run).family:
            raise EvaluationError(_other_test(first, other, both))
        _require_same(parts.setdefault(part.name, other), other, hashes)
    tests = list(parts.values())
    for one, two in itertools.combinations(tests, 2):
        twice = one.test.image_id[one.test.image_id.isin(two.test.image_id)]
        if len(twice):
            raise EvaluationError(
                f"runs {one.run.folder} and {two.run.folder} cannot be taken together: both were tested on "
                f"{len(twice)} image(s), the first is {twice.iloc[0]}; they were split from different data"
            )


def families(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs by what they were tested on and asked: only those of one family can be compared.

    A family's name is the task, and the folds', sources' or test part's, fit for a folder.
    """
    found: dict[str, list[Result]] = {}
    for result in results:
        part = part_of(result.run)
        tested = re.sub(r"[^a-z0-9]+", "-", part.family) if part.kind != ALONE else f"test-{result.test_hash[:8]}"
        found.setdefault(f"{result.run.config.task}-{tested}", []).append(result)
    return found


def broken(families: Mapping[str, Sequence[Result]]) -> dict[str, str]:
    """Which families cannot be evaluated, and why."""
    found = {}
    for name, some in families.items():
        try:
            require_pairs(some)
            group(some)
        except EvaluationError as error:
            found[name] = str(error)
    return found


def require_one_part(results: Sequence[Result]) -> None:
    """Passes only runs of one fold or held-out source, before they score other data.

    Raises:
        EvaluationError: there are several; on the same images their predictions cannot be pooled.
    """
    parts = {part_of(result.run): result.run.folder for result in results}
    if len(parts) > 1:
        one, two, *_ = parts.values()
        raise EvaluationError(
            f"runs {one} and {two} cannot be scored on other data together: they are networks of several folds or "
            "held-out sources; name those of one"
        )


def group(results: Sequence[Result]) -> tuple[dict[str, list[Replicate]], list[Skipped]]:
    """Runs by model, and those that were left out since not every model was run on their fold or held-out source.

    Runs whose configuration is equal but for `NOT_THE_MODEL` are one model under several seeds; runs that differ in
    `data.fold` (or `data.held_out`) alone are one seed of it.

    A model's name is the module of its class (`cnn`, `cnn_lstm`); where two share it, the keys in which they differ
    are appended (`cnn_lstm model.sequence=columns`), and always what makes a CNN-LSTM a control. Seeds are in order.

    Raises:
        EvaluationError: one model has two runs of one seed: averaged, that seed would count twice and the spread
            over seeds would come out too small; which of them to leave out is not ours to choose.
    """
    identities: dict[tuple, dict[int, dict[str, Result]]] = {}
    for result in sorted(results, key=lambda result: (result.seed, part_of(result.run).name)):
        seeds = identities.setdefault(tuple(sorted(identity(result.run).items())), {})
        part = part_of(result.run)
        there = seeds.setdefault(result.seed, {}).setdefault(part.name, result)
        if there is not result:
            where = "" if part.kind == ALONE else f" on {part.name}"
            raise EvaluationError(
                f"{there.run.folder} and {result.run.folder} are the same model with the same seed {result.seed}"
                f"{where}; name the runs to evaluate: 'runs=[A,B]'"
            )
    bases: dict[str, list[tuple]] = {}
    for key in identities:
        bases.setdefault(module(dict(key)["model._target_"]), []).append(key)
    models = {}
    for base in sorted(bases):
        differing = differences([dict(key) for key in bases[base]])
        for key in sorted(bases[base]):
            own = dict(key)
            told = sorted({*differing, *[flag for flag in FLAGS if own.get(flag) == "True"]})
            name = " ".join([base, *[f"{one}={own.get(one, 'none')}" for one in told]])
            models[name] = [Replicate(parts) for parts in identities[key].values()]
    return common(models)


def pairs(models: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Which models are compared: each with the CNN-LSTM of its settings, a control with that which it is most like.

    Without a CNN-LSTM, a control being none, those alike in every setting but their class; where none are, each with
    each.

    Args:
        models: each one's configuration, see `identity`.
    """
    every = list(itertools.combinations(models, 2))

    def unlike(first: str, second: str, network: bool = False) -> int:
        """In how many settings that both have two models differ; with `network` those of the models themselves."""
        a, b = models[first], models[second]
        keys = (a.keys() & b.keys()) - {"split", *FLAGS}
        return sum(a[key] != b[key] for key in keys if key.startswith("model.") is network)

    roles = {name: role(settings) for name, settings in models.items()}
    with_lstm = []
    for model in [name for name in models if roles[name] != "cnn_lstm"]:
        partners = [name for name in models if roles[name] == "cnn_lstm" and not unlike(model, name)]
        if roles[model] in CONTROLS:
            least = min((unlike(model, name, network=True) for name in partners), default=0)
            partners = [name for name in partners if unlike(model, name, network=True) == least]
        with_lstm += [(model, name) for name in partners]
    classes = {name: settings["model._target_"] for name, settings in models.items()}
    by_class = [pair for pair in every if classes[pair[0]] != classes[pair[1]] and not unlike(*pair)]
    return with_lstm or by_class or every


def kinds(models: Mapping[str, Sequence[Replicate]]) -> dict[str, Run]:
    """A run of each kind of network: models that differ in their training alone are one kind, the first one's name."""
    found: dict[str, str] = {}
    for name, some in models.items():
        network = {key: value for key, value in identity(some[0].first.run).items() if key.startswith("model.")}
        found.setdefault(str(sorted(network.items())), name)
    return {name: models[name][0].first.run for name in found.values()}


def identity(run: Run) -> dict[str, str]:
    """What makes a run the model that it is: the configuration, flat, without `NOT_THE_MODEL`, and the split.

    Of `STARTED_FROM` it holds the class and a hash of the identity of the run that it started from, or `None`.
    """
    flat: dict[str, str] = {}
    _flatten(run.config, "", flat)
    if (start := run.start) is not None:
        flat[STARTED_FROM] = start_name(start)
    part = part_of(run)
    if part.kind == ALONE:
        return flat | {"split": run.environment["split"]["hash"]}
    flat.pop({FOLDS: "data.fold", SOURCES: "data.held_out"}[part.kind], None)
    return flat | {"split": part.family}


def start_name(run: Run) -> str:
    """The run that others start from as their names say it: its module and a hash of its identity, `cnn-1a2b3c4d`.

    The runs of one model under several seeds have one name.
    """
    own = identity(run)
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return f"{module(own['model._target_'])}-{digest[:8]}"


def role(identity: Mapping[str, str]) -> str:
    """What a model is to a comparison, as `conf/model` calls it: its module, and what makes a CNN-LSTM a control.

    The study's two are `cnn` and `cnn_lstm`; see `CONTROLS`.
    """
    flags = [word for flag, word in FLAGS.items() if identity.get(flag) == "True"]
    return "_".join([module(identity["model._target_"]), *flags])


def differences(identities: Sequence[dict[str, str]], shared_only: bool = False) -> list[str]:
    """The keys in which configurations differ, or with `shared_only` those among them that every one has.

    `split`, a hash, is among them only where nothing else tells two apart.
    """
    keys = sorted(set().union(*identities))
    if shared_only:
        keys = [key for key in keys if all(key in one for one in identities)]
    found = [key for key in keys if len({one.get(key) for one in identities}) > 1]
    said = [key for key in found if key != "split"]
    told = {tuple(one.get(key) for key in said) for one in identities}
    return said if len(told) == len({tuple(one.get(key) for key in found) for one in identities}) else found


def module(target: str) -> str:
    """`lungdet.models.cnn_lstm.CNNLSTM` -> `cnn_lstm`."""
    return target.split(".")[-2] if "." in target else target


def _require_same(first: Result, other: Result, hashes: bool) -> None:
    """The same images with the same labels, every target that both recorded."""
    both = f"runs {first.run.folder} and {other.run.folder} cannot be compared"
    if hashes and first.test_hash != other.test_hash:
        raise EvaluationError(_other_test(first, other, both))
    if not first.test.image_id.equals(other.test.image_id):
        alone = sorted(set(first.test.image_id) ^ set(other.test.image_id))
        raise EvaluationError(
            f"{both}: {len(alone)} image(s) were predicted by one alone, the first is {alone[0]} "
            f"(hash {first.test_hash} and {other.test_hash})"
        )
    for column in ("patient_id", "dataset"):
        unlike = first.test[column] != other.test[column]
        if unlike.any():
            name = first.test.image_id[unlike].iloc[0]
            raise EvaluationError(
                f"{both}: {column} differs on {int(unlike.sum())} image(s), the first is {name}; they were trained "
                "with different tables"
            )
    for column in first.test.columns.intersection(other.test.columns):
        one, two = first.test[column], other.test[column]
        if column.startswith("target_") and not np.array_equal(one, two, equal_nan=True):
            name = first.test.image_id[(one != two) & ~(one.isna() & two.isna())].iloc[0]
            raise EvaluationError(
                f"{both}: their labels differ, first {column.removeprefix('target_')} on {name} (hash "
                f"{first.test_hash} and {other.test_hash}); they were trained with different tables or releases of "
                "the labels"
            )


def _other_test(first: Result, other: Result, both: str) -> str:
    return (
        f"{both}: their test parts differ (hash {first.test_hash} and {other.test_hash}). Train both with the "
        "same data, data.split and data.split_seed, or evaluate them one at a time"
    )


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
