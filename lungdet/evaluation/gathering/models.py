"""Models: which runs are one model under several seeds, what it is called, and which models are compared."""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lungdet.data.manifest import short_hash
from lungdet.evaluation.gathering.parts import ALONE, FOLDS, SOURCES, Replicate, common, part_of
from lungdet.evaluation.gathering.results import EvaluationError, Result, Skipped
from lungdet.page.wording import FLAGS, MODEL_NAMES
from lungdet.runs.folder import Run
from lungdet.runs.identity import NOT_THE_MODEL

STARTED_FROM = "model.backbone.init_from"
"""The run whose backbone one starts from: another folder for each seed, and the same start if that is one model."""
FILES = {"data.table": ("images", "patients", "labels"), "data.split_file": ("split",)}
"""A user's own files, and what is read from each: that makes a run the model that it is, not where the file lies."""
CONTROLS = {"cnn_mlp", "cnn_lstm_shuffled", "cnn_lstm_frozen", "cnn_lstm_shuffled_frozen", "pool", "length_only"}
"""The roles of models that nobody would choose: they show where a gain comes from."""


class Model(str):
    """A model of a comparison: the module of its class, and the settings that tell it from others of that class.

    It is the text that `metrics.json` files its results under, `cnn_lstm model.sequence=columns`. Nothing reads that
    text: what a model is stands in its fields, and `page.wording.label` makes its name for people of them.

    Attributes:
        base: `cnn`, `cnn_lstm`, ..
        settings: by configuration key, in order; always those of `FLAGS` that are set.
        backbone: the name of convolutional layers that are not the study's.
    """

    base: str
    settings: Mapping[str, object]
    backbone: str | None

    def __new__(cls, base: str, settings: Mapping[str, object] | None = None, backbone: str | None = None) -> "Model":
        """A model of these facts."""
        settings = settings or {}
        model = super().__new__(cls, " ".join([base, *[f"{key}={value}" for key, value in settings.items()]]))
        model.base, model.settings, model.backbone = base, settings, backbone
        return model

    @property
    def flags(self) -> tuple[str, ...]:
        """What makes a CNN-LSTM a control, in the words of `FLAGS`."""
        return tuple(word for flag, word in FLAGS.items() if self.settings.get(flag) is True)

    @property
    def role(self) -> str:
        """What it is to a comparison, as `conf/model` calls it: the study's two are `cnn` and `cnn_lstm`.

        See `CONTROLS`.
        """
        return "_".join([self.base, *self.flags])

    def without(self, keys: Collection[str]) -> "Model":
        """The model as it is called where these settings need not be told."""
        return Model(self.base, {key: v for key, v in self.settings.items() if key not in keys}, self.backbone)


def group(results: Sequence[Result]) -> tuple[dict[Model, list[Replicate]], list[Skipped]]:
    """Runs by model, and those that were left out since not every model was run on their fold or held-out source.

    Runs whose configuration is equal but for `NOT_THE_MODEL` are one model under several seeds; runs that differ in
    `data.fold` (or `data.held_out`) alone are one seed of it. Seeds are in order. Models of one class are told apart
    by the keys in which they differ.

    Raises:
        EvaluationError: one model has two runs of one seed: averaged, that seed would count twice and the spread
            over seeds would come out too small; which of them to leave out is not ours to choose.
    """
    identities: dict[tuple, dict[int, dict[str, Result]]] = {}
    for result in sorted(results, key=lambda result: (result.seed, part_of(result.run).name)):
        seeds = identities.setdefault(tuple(sorted(identity(result.run).items())), {})
        part = part_of(result.run)
        before = seeds.setdefault(result.seed, {}).setdefault(part.name, result)
        if before is not result:
            scope = "" if part.kind == ALONE else f" on {part.name}"
            raise EvaluationError(
                f"{before.run.folder} and {result.run.folder} are the same model with the same seed {result.seed}"
                f"{scope}; name the runs to evaluate: 'runs=[A,B]'"
            )
    by_class: dict[str, list[tuple]] = {}
    for key in identities:
        by_class.setdefault(module(dict(key)["model._target_"]), []).append(key)
    models = {}
    for base in sorted(by_class):
        differing = differences([dict(key) for key in by_class[base]])
        for key in sorted(by_class[base]):
            replicates = [Replicate(parts) for parts in identities[key].values()]
            run = replicates[0].first.run
            backbone = OmegaConf.select(run.config, "model.backbone.name")
            models[Model(base, _settings(run, differing), backbone)] = replicates
    return common(models)


def pairs(models: Mapping[Model, Mapping[str, str]]) -> list[tuple[Model, Model]]:
    """Which models are compared: each with the CNN-LSTM of its settings that it is most like, and none is left out.

    Of a grid of dropout rates, say, each CNN meets the CNN-LSTM of its own rate, and not every other one. Without a
    CNN-LSTM, a control being none, those alike in every setting but their class; where none are, each with each.

    Args:
        models: each one's configuration, see `identity`.
    """
    every = list(itertools.combinations(models, 2))

    def unlike(first: Model, second: Model, network: bool = False) -> int:
        """In how many settings that both have two models differ; with `network` those of the models themselves."""
        a, b = models[first], models[second]
        keys = (a.keys() & b.keys()) - {"split", *FLAGS}
        return sum(a[key] != b[key] for key in keys if key.startswith("model.") is network)

    lstms = [model for model in models if model.role == "cnn_lstm"]
    apart = {
        (model, lstm): unlike(model, lstm, network=True)
        for model in models
        for lstm in lstms
        if model.role != "cnn_lstm" and not unlike(model, lstm)
    }
    least: dict[Model, int] = {}
    for (model, lstm), count in apart.items():
        for member in (model,) if model.role in CONTROLS else (model, lstm):  # a CNN-LSTM needs no control of its own
            least[member] = min(count, least.get(member, count))
    with_lstm = [
        (model, lstm)
        for (model, lstm), count in apart.items()
        if count == least[model] or (model.role not in CONTROLS and count == least[lstm])
    ]
    classes = {model: configuration["model._target_"] for model, configuration in models.items()}
    by_class = [pair for pair in every if classes[pair[0]] != classes[pair[1]] and not unlike(*pair)]
    return with_lstm or by_class or every


def kinds(models: Mapping[Model, Sequence[Replicate]]) -> dict[Model, Run]:
    """A run of each network, optimizer and averaging, which decide what a step costs; of several alike the first's."""
    first: dict[str, Model] = {}
    for model, replicates in models.items():
        if not replicates[0].results:  # another system, which cost somebody else something
            continue
        configuration = identity(replicates[0].first.run).items()
        deciding = ("model.", "optimizer.", "trainer.averaging")
        stepped = sorted((key, value) for key, value in configuration if key.startswith(deciding))
        first.setdefault(str(stepped), model)
    return {model: models[model][0].first.run for model in first.values()}


def identity(run: Run) -> dict[str, str]:
    """What makes a run the model that it is: its configuration without `NOT_THE_MODEL`, flat, as text, and its split.

    Of `STARTED_FROM` it holds the class and a hash of the identity of the run that it started from, or `None`; of each
    of `FILES` a hash of what the run read from it, or `None`.
    """
    flat: dict[str, str] = {}
    _flatten(run.config, "", flat)
    if (start := run.start) is not None:
        flat[STARTED_FROM] = start_name(start)
    for key in named_files(run):
        read = run.environment["data"]["identity"]
        flat[key] = short_hash("".join(str(read[kind]["hash"]) for kind in FILES[key]))[:8]
    part = part_of(run)
    if part.kind == ALONE:
        return flat | {"split": run.environment["split"]["hash"]}
    flat.pop({FOLDS: "data.fold", SOURCES: "data.held_out"}[part.kind], None)
    return flat | {"split": part.family}


def named_files(run: Run) -> dict[str, Path]:
    """Where those of `FILES` lay that a run has read."""
    paths = {key: OmegaConf.select(run.config, key) for key in FILES}
    return {key: Path(path) for key, path in paths.items() if path is not None}


def start_name(run: Run) -> str:
    """The run that others start from as their names say it: its module and a hash of its identity, `cnn-1a2b3c4d`.

    The runs of one model under several seeds have one name.
    """
    digest = short_hash(json.dumps(identity(run), sort_keys=True))
    return f"{module(run.config.model._target_)}-{digest[:8]}"


def differences(identities: Sequence[Mapping[str, str]], shared_only: bool = False) -> list[str]:
    """The keys in which configurations differ, or with `shared_only` those among them that every one has.

    `split`, a hash, is among them only where nothing else tells two apart.
    """
    keys = sorted(set().union(*identities))
    if shared_only:
        keys = [key for key in keys if all(key in identity for identity in identities)]
    differing = [key for key in keys if len({identity.get(key) for identity in identities}) > 1]
    settings = [key for key in differing if key != "split"]
    apart, in_all = (len({tuple(map(identity.get, keys)) for identity in identities}) for keys in (settings, differing))
    return settings if apart == in_all else differing


def module(target: str) -> str:
    """`lungdet.models.cnn_lstm.CNNLSTM` -> `cnn_lstm`; `clinic.cnn.Net`, which is not the study's -> `cnn.Net`."""
    path, _, kind = target.rpartition(".")
    room, _, name = path.rpartition(".")
    return f"{name}.{kind}" if name in MODEL_NAMES and room != "lungdet.models" else name or target


def _settings(run: Run, differing: Sequence[str]) -> dict[str, object]:
    """What tells a model from others of its class, and what makes it a control.

    A key that it lacks is `none`, but for one of an optimizer's, say, that is of another class: the class is told.
    """
    facts: dict[str, object] = {**identity(run)}
    facts |= {flag: OmegaConf.select(run.config, flag) for flag in FLAGS if flag in facts}
    facts |= {key: f"{path.stem}-{facts[key]}" for key, path in named_files(run).items()}
    keys = {*differing, *[flag for flag in FLAGS if facts.get(flag) is True]}
    settings = [key for key in sorted(keys) if key in facts or f"{key.rpartition('.')[0]}._target_" not in keys]
    return {key: facts.get(key, "none") for key in settings}


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
