"""What a section of the report is: one object, which says what it measures, how it tells it, and what follows from it.

Every module of this package defines one or more; `SECTIONS` lists them in the report's order, and summary, answer,
caveats, report and checklist walk that list. A section of which nothing was measured is no section of the report: it
says what is lacking in its `unmeasured`, and the report's last section lists that with the commands that measure it.
"""

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lungdet.evaluation.explanations.explainer import Explainer
from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.gathering.results import Result, Skipped
from lungdet.evaluation.statistics.cases import Undefined
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import Cuts, Scores
from lungdet.evaluation.statistics.thresholds import Threshold
from lungdet.page import document
from lungdet.page.document import Block, Text
from lungdet.page.wording import join, label


@dataclass(frozen=True)
class Study:
    """The runs of one report, with peers if there are any, and what is computed once for all its sections.

    Attributes:
        models: the replicates of each model, all tested on the same images; peers come last.
        identities: the configuration of each that has runs, see `models.identity`.
        settings: what experiments vary, of each that has runs, see `summary.settings`.
        pairs: which models are compared, see `models.pairs` and `peers.pairs`.
        thresholds: by run folder, or a peer's file, and label, chosen on validation predictions.
        cuts: the same by model, for each replicate's pooled test images.
        scores: each model's metrics on the whole test part.
        draws: redrawn test parts that intervals are made of.
        rule: that thresholds are chosen by, see `thresholds.RULES`; `at` is its value where it takes one.
        at: see `rule`.
        asked: whether the rule was asked for; tables are then at its thresholds, else at 0.5.
        external: what other data was scored; None for the runs' own test part.
        out: the report's folder.
        skipped: runs that could not be evaluated.
        costs: what `costs.measure` found, or None where it was not asked for.
        explainer: gives heat maps of the test images, or None where they were not asked for.
    """

    models: Mapping[Model, Sequence[Tested]]
    identities: Mapping[Model, Mapping[str, str]]
    settings: Mapping[Model, Mapping[str, object]]
    pairs: Sequence[tuple[Model, Model]]
    thresholds: Mapping[Path, Mapping[str, Threshold]]
    cuts: Mapping[Model, Sequence[Cuts]]
    scores: Mapping[Model, Scores]
    draws: int
    rule: str
    at: float | None
    asked: bool
    external: str | None
    out: Path
    skipped: Sequence[Skipped]
    costs: dict | None
    explainer: Explainer | None

    @property
    def first(self) -> Replicate:
        """A replicate, for what all share: images tested, labels, task."""
        return next(iter(self.models.values()))[0]

    @property
    def of_runs(self) -> "Study":
        """The study without peers, for what test predictions alone do not tell."""
        models = {model: replicates for model, replicates in self.models.items() if replicates[0].results}
        return replace(self, models=models, pairs=[pair for pair in self.pairs if {*pair} <= models.keys()])

    @property
    def labels(self) -> tuple[str, ...]:
        """What the models predict."""
        return self.first.labels

    @property
    def task(self) -> str:
        """Normal against abnormal (`abnormal`), or finding by finding (`findings`)."""
        return self.first.first.run.config.task

    @property
    def sheets(self) -> dict[str, dict]:
        """What is known of each dataset that was tested or learnt from, see `lungdet.data.manifest.Sheet`."""
        return {name: facts for result in self.results for name, facts in result.sheets.items()}

    @property
    def synthetic(self) -> bool:
        """Whether drawn images were tested."""
        return any(self.sheets[name]["synthetic"] for name in self.first.test["dataset"].unique())

    @property
    def patients_known(self) -> bool:
        """Whether anything says which images are of one patient."""
        return self.first.patients_known(self.external is not None)

    @property
    def results(self) -> list[Result]:
        """Every run."""
        return [
            result for replicates in self.models.values() for replicate in replicates for result in replicate.results
        ]

    @property
    def estimates(self) -> dict[Model, dict[str, Estimate]]:
        """Each model's estimates on the whole test part at threshold 0.5, by metric."""
        return {model: scores.estimates for model, scores in self.scores.items()}

    def tested(self, model: Model) -> tuple[list[pd.DataFrame], tuple[str, ...], Sequence[Cuts], int]:
        """What a model is measured on, as `measure.scored` takes it: a table a seed, labels, thresholds and draws."""
        return [replicate.test for replicate in self.models[model]], self.labels, self.cuts[model], self.draws

    def of_each(self, key: str, measure: Callable[[Model], object]) -> dict:
        """What is measured of every model, as a section adds it to their blocks."""
        return {"models": {model: {key: measure(model)} for model in self.models}}

    def stored(self, model: Model) -> list[dict[str, dict]]:
        """The thresholds of a model's runs as `thresholds.json` has them, by label."""
        return [
            {label: self.thresholds[place][label].as_dict() for label in self.labels}
            for replicate in self.models[model]
            for place in replicate.places
        ]

    def relative(self, folder: Path) -> str:
        """A run folder as seen from the report, so that both can be moved together."""
        return Path(os.path.relpath(folder.resolve(), self.out.resolve())).as_posix()


class Unmeasured(NamedTuple):
    """What these runs do not tell, and the command that measures it, or why there is none."""

    question: str
    remedy: str


@dataclass(frozen=True)
class Written(document.Section):
    """A section as a report has it, with the items of CLAIM 2024 that it answers."""

    claim: tuple[int, ...] = ()


@dataclass(frozen=True)
class Section:
    """A section of the report; all but the title is left out where a section has none of it.

    Attributes:
        title: the heading, or how it follows from the summary.
        anchor: what links call the section, by default made of the title.
        measure: what it adds to the summary, JSON-ready; under `models` what it adds to each model's block.
        meanings: what the keys that it adds mean, where a name does not tell.
        tell: its text and tables, made of the summary alone; a section without a block is left out of the report.
        show: what stands below and needs predictions or logs themselves.
        caveats: what readers of the whole report have to keep in mind, a sentence each.
        verdicts: what it adds to the answer at the head of the report, a sentence each.
        advice: which model it speaks for: rows of a situation, what is advised, and a link to what that rests on.
        unmeasured: what it would tell of other runs, or of these if asked.
        claim: the items of CLAIM 2024 that it answers, by number (see `claim.ITEMS`).
    """

    title: str | Callable[[dict], str]
    anchor: str | None = None
    measure: Callable[[Study], dict] = lambda study: {}
    meanings: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[dict], Sequence[Block]] = lambda summary: []
    show: Callable[[dict, Study], Sequence[Block]] = lambda summary, study: []
    caveats: Callable[[dict], list[str]] = lambda summary: []
    verdicts: Callable[[dict], list[str]] = lambda summary: []
    advice: Callable[[dict], list[list[str]]] = lambda summary: []
    unmeasured: Callable[[dict], list[Unmeasured]] = lambda summary: []
    claim: tuple[int, ...] = ()

    def written(self, summary: dict, study: Study) -> Written | None:
        """The section as the report has it, or None where there is nothing to say."""
        blocks = [*self.tell(summary), *self.show(summary, study)]
        if not blocks:
            return None
        title = self.title if isinstance(self.title, str) else self.title(summary)
        return Written(title, blocks, self.anchor, self.claim)


def of_runs(section: Section) -> Section:
    """A section on what test predictions alone do not tell: it is handed study and summary without peers."""

    def show(summary: dict, study: Study) -> list[Block]:
        runs = without_peers(summary)
        blocks = [*section.tell(runs), *section.show(runs, study.of_runs)]
        peers = [label(model) for model in summary["models"] if model not in runs["models"]]
        if blocks and peers:
            blocks.append(Text(f"Without {join(peers)}, of which test predictions alone are known."))
        return blocks

    def narrowly(words: Callable[[dict], object]) -> Callable[[dict], object]:
        return lambda summary: words(without_peers(summary))

    return replace(
        section,
        title=section.title if isinstance(section.title, str) else narrowly(section.title),
        measure=lambda study: section.measure(study.of_runs),
        tell=lambda summary: [],
        show=show,
        caveats=narrowly(section.caveats),
        verdicts=narrowly(section.verdicts),
        advice=narrowly(section.advice),
        unmeasured=narrowly(section.unmeasured),
    )


def without_peers(summary: dict) -> dict:
    """The summary of the models that have runs."""
    return narrowed(summary, {model for model, block in summary["models"].items() if "peer" not in block})


def narrowed(summary: dict, models: Collection[Model]) -> dict:
    """The summary of these models and of the comparisons among them."""
    compared = {
        key: [comparison for comparison in summary[key] if {comparison["first"], comparison["second"]} <= {*models}]
        for key in ("comparisons", "image_quality_comparisons")
        if key in summary
    }
    return summary | {"models": {m: block for m, block in summary["models"].items() if m in models}} | compared


def cuts_of(replicate: Tested, chosen: Sequence[Mapping[str, Threshold]]) -> Cuts:
    """Each label's threshold on all test images of a replicate, where each of its parts has one for its own images.

    Args:
        replicate: with one part or several.
        chosen: of each part by label.
    """
    if len(chosen) == 1:
        return {name: chosen[0][name].logit for name in replicate.labels}
    cuts: dict[str, float | pd.Series] = {}
    for name in replicate.labels:
        by_part = {part: of_part[name].logit for part, of_part in zip(replicate.parts, chosen, strict=True)}
        missing = [f"{part}: {logit.reason}" for part, logit in by_part.items() if math.isnan(logit)]
        if missing:
            cuts[name] = Undefined(missing[0])
            continue
        images = [table["image_id"] for table in replicate.tables]
        of_image = pd.concat([pd.Series(*pair) for pair in zip(by_part.values(), images, strict=True)])
        cuts[name] = replicate.test["image_id"].map(of_image)
    return cuts


def judged_by(summary: dict) -> tuple[str, ...]:
    """The metrics that models are judged by, the answer's first: accuracy and AUROC, of findings AUROC alone."""
    return ("accuracy", "auroc") if summary["task"] == "abnormal" else ("auroc",)


def thresholds_of(summary: dict) -> dict[str, str]:
    """The thresholds that tables are at, in words by the key of what is measured there: the one asked for first."""
    rule = summary["threshold"]
    at = "" if rule["at"] is None else f" {rule['at']:g}"
    chosen = (
        f"threshold{at}" if rule["rule"] == "fixed" else f"the threshold that `{rule['rule']}{at}` chose on validation"
    )
    words = {"test": "threshold 0.5", "at_validation_threshold": chosen}
    return dict(reversed(words.items())) if rule["asked"] else words
