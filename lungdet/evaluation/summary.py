"""The numbers of a report: metrics of every model, baseline and dataset, as plain values that `metrics.json` holds.

A model's number is the mean over its seeds, beside the sample standard deviation. What is undefined is None, and
`undefined` says why. Nothing here chooses anything by test data: thresholds come from validation.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd
from omegaconf import OmegaConf

from lungdet.evaluation.gathering import grouping
from lungdet.evaluation.gathering.grouping import CONTROLS, differences, identity, module, role, start_name
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.results import Result, Skipped
from lungdet.evaluation.sections import (
    by_finding,
    by_part,
    calibrated,
    earlier_visits,
    ensemble,
    flattery,
    gap,
    generalisation,
    image_quality,
    recurrence,
    referral,
    search,
    sensitivity,
    shortcuts,
    subgroups,
)
from lungdet.evaluation.statistics import metrics, paired, thresholds
from lungdet.evaluation.statistics.measure import Cuts, Scores, counts, measured, over, scored
from lungdet.evaluation.statistics.metrics import Undefined
from lungdet.evaluation.statistics.thresholds import Threshold
from lungdet.page.wording import FURTHER, STUDY
from lungdet.runs.learnt import learnt

BASELINES = {"always_abnormal": 1.0, "always_normal": 0.0, "validation_share": None}
"""Constant answers; None is the share of abnormal images (or of those with the finding) in validation, 0.5
where validation knows nothing of a finding."""
PUBLISHED = {
    "cnn": {"accuracy": 0.925, "precision": 0.908, "recall": 0.897, "f1": 0.902},
    "cnn_lstm": {"accuracy": 0.941, "precision": 0.925, "recall": 0.919, "f1": 0.922},
}
"""The study's own table, on other images than anybody's here."""
READING = {
    "test": "mean over seeds on the test part at threshold 0.5; null where undefined, `undefined` says why; "
    "with task=findings the mean over findings (`macro` says which), each under `findings`",
    "test_interval": "95 % interval over redrawn test patients and, from three seeds on, seeds; of calibration_error "
    "about the error less what chance adds",
    "comparisons": "second minus first at threshold 0.5; p_holm: adjusted for the study's four metrics and AUROC of "
    "all pairs; p_permutation: exchanging the models patient by patient, seeds not counted",
    "test_sd": "sample standard deviation over seeds; null with one seed, or where undefined",
    "at_validation_threshold": "the same at the threshold that each run's validation predictions chose",
    "parts": "folds or held-out sources; `test` pools their images, each tested once; `over_parts`: mean over parts",
    "recurrence": "each CNN-LSTM minus its controls in AUROC, on `all` cases and on those with two or more `earlier` "
    "visits; `helps`: better than the matched and the shuffled control, shown in each; p_holm: over these comparisons, "
    "and over those with other models apart; empty: no control is here",
    "series": "CNN-LSTM minus CNN in AUROC by length of the series, and by what changed since the visit before "
    "(appeared against still absent, still there against cleared, there against absent where unchanged); `abnormal` of "
    "`labelled` cases are positive; `few`: too small, not in p_holm's family; empty: not measured",
    "search": "of each search for hyper-parameters the run with the lowest validation loss, which alone is evaluated, "
    "and all that was `tried`; `loss`: validation; empty: no run is of a search",
    "sensitivity_by_finding": "recall on the images that carry a finding, of a model that calls normal or abnormal",
    "shortcuts": "what is reached without reading the lungs, fitted and tested on the same images; null: not recorded",
    "source_alone_auroc": "0.5 for a single dataset; null where the test part holds one class",
}
"""What the keys of `metrics.json` mean."""

COSTS = ("parameters", "fit_seconds", "epochs", "best_epoch", "images_per_second", "peak_memory_bytes")


def summarise(
    models: Mapping[str, Sequence[Replicate]],
    skipped: Sequence[Skipped],
    rule: str,
    at: float | None,
    out: Path,
    draws: int,
    external: str | None = None,
    costs: dict | None = None,
) -> dict:
    """Everything a report states, JSON-ready.

    Args:
        models: the replicates of each model, tested on the same images (see `compare`).
        skipped: runs that could not be evaluated.
        rule: of the threshold chosen on validation, see `thresholds.RULES`; `at` its value where it takes one.
        at: see `rule`.
        out: the folder of the report; run folders are named relative to it.
        draws: redrawn test parts that intervals are made of.
        external: what other data was scored, or None for the runs' own test part.
        costs: what `costs.measure` returned, or None where it was not asked for.
    """
    results = [result for some in models.values() for one in some for result in one.results]
    replicate = next(iter(models.values()))[0]  # tested on what all were tested on
    task = replicate.first.run.config.task
    data, parts = _data(replicate, results, external), None if external else by_part.described(models)
    scores = {name: _model(some, rule, at, out, draws, parts is not None) for name, some in models.items()}
    identities = {name: identity(some[0].first.run) for name, some in models.items()}
    roles = {name: role(one) for name, one in identities.items()}
    pairs = grouping.pairs(identities)
    gaps = {name: gap.measured(some, draws) for name, some in models.items()}
    degraded = {name: None if external else image_quality.measured(some, draws) for name, some in models.items()}
    for name, one in scores.items():
        one.block["gap"] = gaps[name].block
        one.block["image_quality"] = degraded[name] and degraded[name].block
    estimates = {name: one.estimates for name, one in scores.items()}
    return {
        "reading": READING,
        "task": task,
        "models": {name: one.block for name, one in scores.items()},
        "comparisons": paired.compared(
            estimates,
            {name: [one.test for one in some] for name, some in models.items()},
            replicate.labels,
            pairs,
        ),
        "combined": ensemble.numbers(models, [pair for pair in pairs if roles[pair[0]] not in CONTROLS], draws),
        "gap_comparisons": gap.compared(gaps, pairs),
        "image_quality_comparisons": image_quality.compared(degraded, pairs),
        "recurrence": recurrence.numbers(models, roles, estimates, pairs, draws),
        "series": earlier_visits.numbers(models, roles, pairs, draws),
        "generalisation": None
        if external
        else generalisation.numbers(models, {name: one.block["settings"] for name, one in scores.items()}, draws),
        "search": search.numbers(models, lambda folder: _relative(folder, out)),
        "efficiency": costs,
        "draws": draws,
        "baselines": {name: _baseline(replicate, value) for name, value in BASELINES.items()},
        "published": {} if data["synthetic"] or task != "abnormal" else PUBLISHED,
        "threshold": {"rule": rule, "at": at, "meaning": thresholds.RULES[rule]},
        "parts": parts,
        "split": _split(replicate, results),
        "data": data,
        "settings_that_differ": differences(list(identities.values()), shared_only=True),
        "not_evaluated": [
            {"run": _relative(one.folder, out), "reason": one.reason} for one in skipped if one.elsewhere is None
        ],
        "evaluated_elsewhere": [
            {"run": _relative(one.folder, out), "reason": one.reason, "report": one.elsewhere}
            for one in skipped
            if one.elsewhere is not None
        ],
    }


def patients_known(replicate: Replicate, external: str | None) -> bool:
    """Whether anything says which images are of one patient: as the run recorded it, or of other data its predictions.

    A table without patients names each image as its own.
    """
    if external is None:
        return replicate.first.run.data["patients_known"]
    return not (replicate.test["patient_id"] == replicate.test["image_id"]).all()


def source_alone(test: pd.DataFrame) -> float:
    """AUROC of an answer that knows an image's source and nothing of its pixels: the source's own share of abnormal.

    The shares are those of the test images themselves, so this is the most that the source could give away.
    """
    share = test.groupby("dataset").target_abnormal.transform("mean").fillna(0)
    return metrics.auroc(test.target_abnormal, share)


def _model(some: Sequence[Replicate], rule: str, at: float | None, out: Path, draws: int, by_parts: bool) -> Scores:
    results = [result for one in some for result in one.results]
    labels = some[0].labels
    chosen = {r.run.folder: thresholds.for_run(r.run.folder, r.val, labels, rule, at) for r in results}
    cuts = [_cuts(one, chosen) for one in some]
    tables = [one.test for one in some]
    environments = [result.run.environment for result in results]
    plain = [{label: one.as_dict() for label, one in chosen[result.run.folder].items()} for result in results]
    whole = scored(tables, labels, cuts, draws)
    block = {
        **whole.block,
        "datasets": {
            name: scored([table[table.dataset == name] for table in tables], labels, cuts, draws).block
            for name in sorted(tables[0].dataset.unique())
        },
        "shortcuts": shortcuts.numbers(some),
        "subgroups": subgroups.numbers(some, cuts, draws),
        "referral": referral.numbers(some, cuts, draws),
        "calibrated": calibrated.numbers(some, draws),
        "flattery": flattery.numbers(some, cuts, rule, at),
    }
    if some[0].first.run.config.task == "abnormal":
        block |= {"thresholds": [one["abnormal"] for one in plain]}
        block |= {"sensitivity_by_finding": sensitivity.numbers(some, cuts, draws)}
    else:
        block |= {"findings": by_finding.numbers(some, cuts, plain, draws)}
    if by_parts:
        block |= by_part.numbers(some, cuts, draws)
    block |= {
        "settings": _settings(some[0].first) | {"learnt_from": sorted(set().union(*map(_learnt_from, results)))},
        "seeds": [one.seed for one in some],
        "runs": [
            {
                "run": _relative(result.run.folder, out),
                "seed": result.seed,
                "part": part,
                "started": result.run.environment.get("started"),
                "git": result.run.environment.get("git"),
                "start": _start(result),
                "threshold": chosen[result.run.folder]["abnormal"].as_dict()["value"] if len(labels) == 1 else None,
                "test": {k: _none(v) for k, v in measured(result.test, labels).items()},
            }
            for one in some
            for part, result in one.parts.items()
        ],
        **{cost: _mean([environment.get(cost) for environment in environments]) for cost in COSTS},
        "precision": sorted({str(environment.get("precision", "unknown")) for environment in environments}),
        "hardware": sorted({str(environment.get("hardware", {}).get("device")) for environment in environments}),
        "model": some[0].first.run.config.model._target_,
    }
    return Scores(block, whole.estimates)


def _start(result: Result) -> dict | None:
    """The run that this one started from: its folder then, when it was started, and its name."""
    start = result.run.start
    if start is None:
        return None
    return {"run": start.config.run_dir, "started": start.environment.get("started"), "name": start_name(start)}


def _settings(result: Result) -> dict:
    """What experiments vary: the class and its role, what it reads, and what it was trained on.

    `frozen`: whether its convolutional layers stayed as they began; None of a model without.
    """
    config, data = result.run.config.model, result.run.config.data
    train_on = data.get("train_on")
    return {
        "base": module(config._target_),
        "role": role(identity(result.run)),
        "sequence": config.get("sequence"),
        "frozen": OmegaConf.select(config, "backbone.frozen"),
        "train_on": [train_on] if isinstance(train_on, str) else None if train_on is None else list(train_on),
        "train_fraction": data.get("train_fraction", 1.0),
        "train_prevalence": data.get("train_prevalence"),
        "train": result.run.environment["split"]["parts"].get("train"),
    }


def _cuts(one: Replicate, chosen: Mapping[Path, Mapping[str, Threshold]]) -> Cuts:
    """Each label's threshold on the pooled test images: each image's is that of the run that predicted it."""
    if len(one.parts) == 1:
        return {label: chosen[one.first.run.folder][label].logit for label in one.labels}
    found: dict[str, float | pd.Series] = {}
    for label in one.labels:
        values = {part: chosen[result.run.folder][label].logit for part, result in one.parts.items()}
        missing = [part for part, value in values.items() if math.isnan(value)]
        if missing:
            found[label] = Undefined(f"{missing[0]}: {getattr(values[missing[0]], 'reason', 'it is NaN')}")
            continue
        of_image = pd.concat([pd.Series(values[part], one.parts[part].test["image_id"]) for part in one.parts])
        found[label] = one.test["image_id"].map(of_image)
    return found


def _baseline(replicate: Replicate, answer: float | None) -> dict:
    """A constant answer on the whole test part and on each dataset."""
    parts = []
    for result in replicate.results:
        said = dict.fromkeys(replicate.labels, answer)
        if answer is None:
            known = {label: result.val[f"target_{label}"].dropna() for label in replicate.labels}
            said = {label: some.mean() if len(some) else 0.5 for label, some in known.items()}  # 0.5: nothing is known
        parts.append(result.test.assign(**{f"logit_{label}": metrics.log_odds(value) for label, value in said.items()}))
    constant = pd.concat(parts, ignore_index=True)

    def block(rows: pd.DataFrame) -> dict:
        mean, _, reasons = over([measured(rows, replicate.labels, names=STUDY + FURTHER)])
        return {"test": mean, "undefined": {"test": reasons} if reasons else {}}

    return {**block(constant), "datasets": {name: block(rows) for name, rows in constant.groupby("dataset")}}


def _learnt_from(result: Result) -> set[str]:
    """The sources that a run has images of in training or validation, or a run that it started from."""
    return {*learnt(result.run)["dataset"]}


def _data(replicate: Replicate, results: Sequence[Result], external: str | None) -> dict:
    """What the report says of the data: the environment's own facts, and counts of what was tested.

    Of the sources tested on, `known_sources` were learnt from by a run that is tested on them, and `new_sources` were
    not by one. `unsearched` says why images could not be compared with those that a run has learnt from. An
    `external_test` is on other data, of no known source, none of it learnt from under another name.
    """
    test, recorded = replicate.test, replicate.first.run.environment.get("data", {})
    tested = [({*result.test.dataset}, _learnt_from(result)) for result in results]
    known = set().union(*[here & sources for here, sources in tested])
    facts = [result.test.attrs["scored"] if external else result.run.environment for result in results]
    unsearched = {tuple(run.items()) for own in facts for run in own.get("unsearched", [])}
    return recorded | {
        "external": external,
        "patients_known": patients_known(replicate, external),
        "external_test": bool(external) and not known and not unsearched,
        "known_sources": sorted(known),
        "new_sources": sorted(set().union(*[here - sources for here, sources in tested])),
        "learnt_from": sorted(set().union(*[sources for _, sources in tested])),
        "unsearched": [dict(run) for run in sorted(unsearched)],
        "scored": {key: max(own[key] for own in facts) for key in ("excluded", "copies")} if external else None,
        "synthetic": any(name.startswith("phantom") for name in test.dataset),
        "test": counts(test),
        "test_datasets": {name: counts(rows) for name, rows in test.groupby("dataset")},
        "parts": {
            part: {
                **{name: counts(table) for name, table in (("val", result.val), ("test", result.test))},
                "val_datasets": {name: counts(rows) for name, rows in result.val.groupby("dataset")},
            }
            for part, result in replicate.parts.items()
        },
        "source_alone_auroc": _none(source_alone(test)),
    }


def _split(replicate: Replicate, results: Sequence[Result]) -> dict:
    """The split as the first run recorded it; of several parts, each one's images under `by_part`."""
    split = replicate.first.run.environment["split"]
    fractions = replicate.first.run.config.data.get("fractions")
    return split | {
        "hashes": sorted({result.run.environment["split"]["hash"] for result in results}),
        "fractions": None if fractions is None else list(fractions),
        "by_part": {part: result.run.environment["split"]["parts"] for part, result in replicate.parts.items()},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else fmean(values)


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _relative(folder: Path, out: Path) -> str:
    """A run folder as seen from the report, so that both can be moved together."""
    return Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()
