"""The numbers of a report: what every section measures, as plain values that `metrics.json` holds.

A model's number is the mean over its seeds, beside the sample standard deviation. What is undefined is None, and
`undefined` says why. Nothing here chooses anything by test data: thresholds come from validation.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from lungdet.data.serving.views import ITSELF
from lungdet.evaluation.explanations.explainer import Explainer
from lungdet.evaluation.gathering import peers
from lungdet.evaluation.gathering.models import Model, identity, pairs
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.gathering.results import Result, Skipped
from lungdet.evaluation.sections import SECTIONS
from lungdet.evaluation.sections.contract import Study, cuts_of
from lungdet.evaluation.statistics import thresholds
from lungdet.evaluation.statistics.measure import scored
from lungdet.evaluation.statistics.thresholds import Threshold
from lungdet.findings import TASKS

log = logging.getLogger(__name__)


def summarise(study: Study) -> dict:
    """Everything a report states, JSON-ready: what each section measures, under `models` by model."""
    meanings = {key: meaning for section in SECTIONS for key, meaning in section.meanings.items()}
    summary = {"reading": meanings, "task": study.task, "models": {model: {} for model in study.models}}
    for section in SECTIONS:
        measured = section.measure(study)
        for model, block in measured.pop("models", {}).items():
            summary["models"][model] |= block
        summary |= measured
    return summary


def study_of(
    models: Mapping[Model, Sequence[Tested]],
    skipped: Sequence[Skipped],
    rule: str | None,
    at: float | None,
    out: Path,
    draws: int,
    external: str | None = None,
    costs: dict | None = None,
    explainer: Explainer | None = None,
) -> Study:
    """What all sections need to know of the models: who they are, their thresholds, their scores.

    The thresholds are stored in the runs' folders.

    Args:
        models: the replicates of each model, tested on the same images (see `gathering.models`), then peers.
        skipped: runs that could not be evaluated.
        rule: of the threshold chosen on validation, see `thresholds.RULES`; None, where none is asked for, is
            `thresholds.USUAL`.
        at: the rule's value where it takes one.
        out: the folder of the report; run folders are named relative to it.
        draws: redrawn test parts that intervals are made of.
        external: what other data was scored, or None for the runs' own test part.
        costs: what `costs.measure` returned, or None where it was not asked for.
        explainer: gives heat maps, or None where they were not asked for.
    """
    results = [result for replicates in models.values() for replicate in replicates for result in replicate.results]
    labels = results[0].labels
    asked, rule = rule is not None, rule or thresholds.USUAL
    trained = {model: replicates for model, replicates in models.items() if replicates[0].results}
    others = {model: replicates for model, replicates in models.items() if model not in trained}
    chosen = _thresholds(results, rule, at, asked)
    chosen |= {peer.path: thresholds.unvalidated(labels, rule, at) for [peer] in others.values()}
    cuts = {
        model: [cuts_of(replicate, [chosen[place] for place in replicate.places]) for replicate in replicates]
        for model, replicates in models.items()
    }
    scores = {
        model: scored([replicate.test for replicate in replicates], labels, cuts[model], draws)
        for model, replicates in models.items()
    }
    for model in others:
        fixed = {name: estimate._replace(fixed=True) for name, estimate in scores[model].estimates.items()}
        scores[model] = scores[model]._replace(estimates=fixed)
    identities = {model: identity(replicates[0].first.run) for model, replicates in trained.items()}
    return Study(
        models=models,
        identities=identities,
        settings={model: settings(model, replicates) for model, replicates in trained.items()},
        pairs=[*pairs(identities), *peers.pairs(trained, others)],
        thresholds=chosen,
        cuts=cuts,
        scores=scores,
        draws=draws,
        rule=rule,
        at=at,
        asked=asked,
        external=external,
        out=out,
        skipped=skipped,
        costs=costs,
        explainer=explainer,
    )


def settings(model: Model, replicates: Sequence[Replicate]) -> dict:
    """What experiments vary of a model: the class and its role, what it reads, and what it was trained on.

    `frozen`: whether its convolutional layers stayed as they began; None of a model without. `learnt_from`: the sources
    of its training and validation images, and those of the runs that it started from.
    """
    result = replicates[0].first
    network, data = result.run.config.model, result.run.config.data
    train_on = data.get("train_on")
    return {
        "base": model.base,
        "role": model.role,
        "sequence": network.get("sequence"),
        "frozen": OmegaConf.select(network, "backbone.frozen"),
        "train_on": [train_on] if isinstance(train_on, str) else None if train_on is None else list(train_on),
        "train_fraction": data.get("train_fraction", 1.0),
        "train_prevalence": data.get("train_prevalence"),
        "train": result.run.environment["split"]["parts"]["train"],
        "learnt_from": sorted(
            set().union(*[result.learnt_from for replicate in replicates for result in replicate.results])
        ),
    }


def _thresholds(
    results: Sequence[Result], rule: str, at: float | None, asked: bool
) -> dict[Path, dict[str, Threshold]]:
    """Each run's thresholds by its folder and by label, chosen on its own validation part.

    Those that are stored are of all that a run predicts, whatever is judged here.
    """
    labels, named = TASKS[results[0].run.config.task], rule if at is None else f"{rule} {at}"
    if all(result.views == (ITSELF,) for result in results):
        scope = "each run" if asked else "each run that has none"
        log.info("thresholds: rule %s on validation predictions, kept as thresholds.json in %s", named, scope)
        return {r.run.folder: thresholds.for_run(r.run.folder, r.val, labels, rule, at, asked) for r in results}
    # A run's own thresholds are for who predicts an image as it is.
    log.info("thresholds: rule %s on validation predictions of the same views", named)
    return {r.run.folder: thresholds.chosen_on(r.val, labels, rule, at) for r in results}
