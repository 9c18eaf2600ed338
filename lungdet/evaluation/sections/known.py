"""Known answer: whether runs of an experiment whose result is published (conf/experiment/known/) come out as it did."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from omegaconf import OmegaConf

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.results import EvaluationError
from lungdet.evaluation.sections.comparability import TRAINED_ON
from lungdet.evaluation.sections.contract import Section, Study
from lungdet.machine.commands import key_of
from lungdet.page.document import Table
from lungdet.page.wording import figure, in_a_sentence, label, metric_name, with_interval
from lungdet.runs.folder import Run


@dataclass(frozen=True)
class Known:
    """What is published of an experiment, as the group `known` of a run's configuration says it.

    Attributes:
        metric: of the report, over all test images.
        published: what the sources report.
        low: the least that an installation which works may be expected to reach, and `high` the most.
        high: see `low`.
        data: the dataset that all test images are of, `images` so many, and `protocol` how they were split.
        images: see `data`.
        protocol: see `data`.
        network: what it was trained with, in words.
        source: who published it, and what the band rests on.

    Raises:
        ValueError: the band is none.
    """

    metric: str
    published: Sequence[float]
    low: float
    high: float
    data: str
    images: int
    protocol: str
    network: str
    source: str

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"low={self.low}, high={self.high}: two numbers from 0 to 1 are needed, the lower first")


def of_run(run: Run) -> Known | None:
    """What is published of a run's experiment; None of any other.

    Raises:
        EvaluationError: its configuration does not say all of it, or says what makes no sense.
    """
    values = OmegaConf.select(run.config, "known")
    if values is None:
        return None
    values = OmegaConf.to_container(values)
    names = [field.name for field in fields(Known)]
    if sorted(values) != sorted(names):
        raise EvaluationError(
            f"{run.folder}/config.yaml: known says {', '.join(values)}; {', '.join(names)} are needed"
        )
    try:
        return Known(**values)
    except (ValueError, TypeError) as error:
        raise EvaluationError(f"{run.folder}/config.yaml: known: {error}") from error


def tell(summary: dict) -> list:
    """A row for each model that has a published result, with its own beside it."""
    blocks = {model: block for model, block in summary["models"].items() if block["known"]}
    if not blocks:
        return []
    rows = [
        [
            label(model),
            metric_name(block["known"]["metric"]),
            with_interval(block, "test", block["known"]["metric"]),
            _band(block["known"]),
            ", ".join(figure(block["known"]["metric"], value) for value in block["known"]["published"]),
            _outcome(block["known"]),
        ]
        for model, block in blocks.items()
    ]
    sources = dict.fromkeys((block["known"]["network"], block["known"]["source"]) for block in blocks.values())
    notes = [f"Published of {network}: {source}." for network, source in sources]
    return [Table(["Model", "Metric", "Here", "Expected", "Published", "Outcome"], rows, 2, notes)]


def verdicts(summary: dict) -> list[str]:
    """That a result is, or is not, where the published one lets expect it."""
    sentences = []
    for model, block in summary["models"].items():
        if (known := block["known"]) and known["differs"] is None and known["place"] is not None:
            value = figure(known["metric"], block["test"][known["metric"]])
            sentences.append(
                f"{label(model)}'s {in_a_sentence(known['metric'])} of {value} is {_outcome(known)}, {_band(known)}, "
                "which published results of this experiment let expect (see [Known answer](#known-answer))."
            )
    return sentences


SECTION = Section(
    "Known answer",
    measure=lambda study: study.of_each("known", lambda model: _of_model(study, model)),
    meanings={
        "place": "inside, below or above the band that is expected of an experiment whose result is published",
        "reaches": "whether the interval of a result outside of that band reaches it",
        "differs": "in what the experiment here is another one, so that it is not compared",
    },
    tell=tell,
    verdicts=verdicts,
)


def place(value: float | None, ends: Sequence[float] | None, known: Known) -> tuple[str | None, bool | None]:
    """Where a result lies: `inside`, `below` or `above` the band, and whether its interval reaches the band."""
    if value is None:
        return None, None
    side = "below" if value < known.low else "above" if value > known.high else "inside"
    return side, None if ends is None else ends[0] <= known.high and known.low <= ends[1]


def _of_model(study: Study, model: Model) -> dict | None:
    known = of_run(study.models[model][0].first.run)
    if known is None:
        return None
    block, differs = study.scores[model].block, differing(study, model, known)
    value, ends = block["test"].get(known.metric), block["test_interval"].get(known.metric)
    side, reaches = place(value, ends, known) if differs is None else (None, None)
    facts = {field.name: getattr(known, field.name) for field in fields(Known)}
    return facts | {"place": side, "reaches": reaches, "differs": differs}


def differing(study: Study, model: Model, known: Known) -> str | None:
    """In what a model's experiment is another one than the published."""
    run, test = study.first.first.run, study.first.test
    if study.synthetic:
        return "synthetic"
    if study.external is not None or {*test["dataset"]} != {known.data}:
        return "data"
    if run.environment["split"]["protocol"] != known.protocol:
        return "protocol"
    if len(test) != known.images:
        return "images"
    if any(_alters(word) for word in run.environment.get("overrides", [])):
        return "network"
    whole = all(study.settings[model][key] == usual for key, usual in TRAINED_ON.items())
    return None if whole else "training"


def _alters(word: str) -> bool:
    """Whether a word of the command line makes another network than the experiment's, or gives it another task."""
    key = key_of(word).replace("/", ".")
    return key.split(".")[0] in ("model", "task") and key not in WEIGHTS


WEIGHTS = tuple(f"model.backbone.{key}" for key in ("weights", "origin", "seen"))
"""Where the same published weights come from."""
DIFFERENCES = {
    "synthetic": "not compared: these images are synthetic",
    "data": "not compared: other images were tested",
    "protocol": "not compared: the images were split in another way",
    "images": "not compared: only a part of the images was tested",
    "network": "not compared: another network or task than the published was trained",
    "training": "not compared: it was trained on a part of the images",
}
"""By what makes an experiment another one."""


def _outcome(known: dict) -> str:
    if known["differs"] is not None:
        return DIFFERENCES[known["differs"]]
    if known["place"] is None:
        return "undefined"
    if known["place"] == "inside":
        return "inside the band"
    return f"{known['place']} the band{', though its interval reaches it' if known['reaches'] else ''}"


def _band(known: dict) -> str:
    return " to ".join(figure(known["metric"], end) for end in (known["low"], known["high"]))
