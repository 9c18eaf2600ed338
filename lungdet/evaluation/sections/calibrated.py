"""Calibrated: whether probabilities mean what they say, before and after temperature scaling fitted on validation.

Each run has a temperature of its own, with findings one for each; it scales that run's own test images alone.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit

from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.gathering.results import Result
from lungdet.evaluation.sections.contract import Section
from lungdet.evaluation.statistics.calibration import RANGE, reliability, share_interval, temperature
from lungdet.evaluation.statistics.cases import BINS, calibration_bin, or_none
from lungdet.evaluation.statistics.measure import as_block, estimated, lacking
from lungdet.page import figures
from lungdet.page.document import Columns, Details, Figure, Table, items
from lungdet.page.sentences import undefined
from lungdet.page.wording import finding_name, join, label, metric_name, number, with_interval

METRICS = ("calibration_error", "brier", "log_loss")
STAGES = {"before": "as predicted", "after": "scaled"}


def of_model(replicates: Sequence[Tested], draws: int) -> dict:
    """Calibration on the test part before and after temperature scaling, means over seeds.

    A label that lacks a temperature in some run is not scaled. With findings, numbers before and after are means over
    those that have one and are there both present and absent.

    Args:
        replicates: of one model.
        draws: redrawn test parts.

    Returns:
        `temperatures`: each run's by label, null where there is none, beside its seed and part; `unscaled`: by label
        why there is none; `over`: the labels that means are over, all of them where none is scaled; `before` and
        `after`: blocks of the metrics, `after` null where nothing is scaled; `reliability`: for one label, by stage
        each bin's mean probability (`said`), share of abnormal images (`are`) with its 95 % `interval` and images a
        seed, null where empty.
    """
    labels, tables = replicates[0].labels, {"before": [replicate.test for replicate in replicates]}
    fitted = [{part: _fitted(result, labels) for part, result in replicate.parts.items()} for replicate in replicates]
    unscaled: dict[str, str] = {}
    for replicate, by_part in zip(replicates, fitted, strict=True):
        if not by_part:
            unscaled = dict.fromkeys(labels, NO_VALIDATION)
        for part, temperatures in by_part.items():
            place = f"seed {replicate.seed}, {part}" if len(by_part) > 1 else f"seed {replicate.seed}"
            lack = {name: f"{value.reason} ({place})" for name, value in temperatures.items() if math.isnan(value)}
            unscaled = lack | unscaled
    over = [name for name in labels if name not in unscaled]
    if over:
        tables["after"] = [
            _scaled(replicate, temperatures, over) for replicate, temperatures in zip(replicates, fitted, strict=True)
        ]
    if len(labels) > 1:
        over = [name for name in over or labels if lacking(tables["before"][0], name) is None]
    return {
        "temperatures": [
            {"seed": replicate.seed, "part": part, **{name: or_none(value) for name, value in temperatures.items()}}
            for replicate, by_part in zip(replicates, fitted, strict=True)
            for part, temperatures in by_part.items()
        ],
        "unscaled": unscaled,
        "over": over,
        "after": None,
        **{
            stage: as_block(test=estimated(predictions, tuple(over) or labels[:1], draws, METRICS))
            for stage, predictions in tables.items()
        },
        "reliability": {
            stage: _bins(predictions, labels[0]) for stage, predictions in tables.items() if len(labels) == 1
        },
    }


def tell(summary: dict) -> list:
    """Each model's temperature in a sentence, the metrics before and after, and the reliability diagram."""
    blocks = {model: block["calibrated"] for model, block in summary["models"].items()}
    rows, reasons = [], {}
    for model, block in blocks.items():
        for stage, words in STAGES.items():
            if block[stage] is None:
                continue
            cells = [with_interval(block[stage], "test", metric) for metric in METRICS]
            rows.append([label(model), words, *cells])
            reasons |= dict.fromkeys(block[stage]["undefined"].get("test", {}).values())
    notes = [HOW, *undefined(reasons)]
    if any(_at_an_end(value) for block in blocks.values() for value in _temperatures(block)):
        notes.append(AT_AN_END)
    if summary["task"] != "abnormal":
        notes.append(_over(blocks))
    sentences = items([sentence(model, block) for model, block in blocks.items()], "model")
    table = Table(["Model", "Probabilities", *[metric_name(metric) for metric in METRICS]], rows, 2, notes)
    details = Details("Before and after scaling", [table])
    bins = {model: block["reliability"].get("before") for model, block in blocks.items()}
    drawn = {model: of_model for model, of_model in bins.items() if of_model and max(of_model["images"]) >= ENOUGH}
    return (
        [Columns([[_picture(drawn)], [*sentences, details]])]
        if 0 < len(drawn) <= figures.MOST_LINES
        else [*sentences, details]
    )


SECTION = Section(
    "Calibration",
    measure=lambda study: study.of_each("calibrated", lambda model: of_model(study.models[model], study.draws)),
    tell=tell,
    claim=(38,),
)


def sentence(model: str, block: dict) -> str:
    """A model's temperature and what scaling by it does to the calibration error."""
    temperatures = _temperatures(block)
    if not temperatures:
        return f"{label(model)}: no temperature can be fitted ({'; '.join(dict.fromkeys(block['unscaled'].values()))})."
    middle = float(np.exp(np.mean(np.log(temperatures))))
    clause = f"{label(model)}: temperature {middle:.2f}"
    if len(temperatures) > 1:
        clause += f" (geometric mean of {len(temperatures)}, {min(temperatures):.2f} to {max(temperatures):.2f})"
    sure = "too sure of itself" if middle > 1 else "not sure enough"
    sure = sure if abs(middle - 1) > NEAR_ONE else "about as sure as it should be"
    ended = [_at_an_end(value) for value in temperatures]
    end = f"{'' if all(ended) else 'some '}at an end of what is sought, which says little"
    clause += f", {end}" if any(ended) else f", so on validation it was {sure}"
    before, after = (block[stage]["test"]["calibration_error"] for stage in STAGES)
    if before is None or after is None:
        return f"{clause}."
    return f"{clause}; scaling takes the calibration error on test from {before:.3f} to {after:.3f}."


NO_VALIDATION = "no validation predictions of it are known"
NEAR_ONE = 0.05
ENOUGH = 5  # images in a bin, to draw it
HOW = (
    f"Decimals, the smaller the better. The calibration error is over {BINS} equal bins of probability; chance alone "
    "makes it larger than 0, the more so the fewer images, and its 95 % interval is about what is left without chance, "
    "so it can lie below the number. Temperature: what log-odds are divided by so that the log loss on each run's "
    "validation images is least. It moves no probability across 0.5 and changes no ranking of a run's images."
)
ENDS = (1.2 * RANGE[0], RANGE[1] / 1.05)
AT_AN_END = (
    f"Temperatures are sought from {RANGE[0]:g} to {RANGE[1]:g}. At the upper end validation finds log-odds no better "
    "than saying 0.5, at the lower it finds no mistake in them; neither says how sure the model should be."
)


def _at_an_end(temperature: float) -> bool:
    """Whether a temperature lies where the search for it ended, and not where the loss is least."""
    return not ENDS[0] < temperature < ENDS[1]


def _temperatures(block: dict) -> list[float]:
    """Of all runs and labels that are scaled."""
    without = {"seed", "part", *block["unscaled"]}
    return [value for run in block["temperatures"] for name, value in run.items() if name not in without]


def _fitted(result: Result, labels: Sequence[str]) -> dict[str, float]:
    return {name: temperature(result.val[f"target_{name}"], result.val[f"logit_{name}"]) for name in labels}


def _scaled(replicate: Tested, fitted: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> pd.DataFrame:
    """A replicate's test predictions, each part's at its own run's temperatures."""
    tables = [
        result.test.assign(**{f"logit_{name}": result.test[f"logit_{name}"] / fitted[part][name] for name in labels})
        for part, result in replicate.parts.items()
    ]
    return pd.concat(tables).sort_values("image_id", ignore_index=True)


def _bins(tables: Sequence[pd.DataFrame], name: str) -> dict:
    """The reliability diagram of all seeds' predictions together."""
    y, logit = (np.concatenate([table[f"{kind}_{name}"] for table in tables]) for kind in ("target", "logit"))
    mean, are, images = reliability(y, logit)
    ends = share_interval(are, _patients(tables, name))
    return {
        "said": [or_none(value) for value in mean],
        "are": [or_none(value) for value in are],
        "interval": [None if math.isnan(low) else [float(low), float(high)] for low, high in zip(*ends, strict=True)],
        "images": [float(count) for count in images / len(tables)],
    }


def _patients(tables: Sequence[pd.DataFrame], name: str) -> np.ndarray:
    """How many patients have a labelled image in each bin, under whichever seed, (BINS,)."""
    # By the first seed's ids: another may have been trained under another key of them.
    table = pd.concat([table.assign(patient_id=tables[0]["patient_id"]) for table in tables])
    table = table[table[f"target_{name}"].notna()]
    bins = calibration_bin(expit(table[f"logit_{name}"].to_numpy(np.float64)))
    return np.array([table.loc[bins == place, "patient_id"].nunique() for place in range(BINS)])


def _over(blocks: Mapping[str, dict]) -> str:
    models: dict[str, list[str]] = {}
    for model, block in blocks.items():
        without = [finding_name(name) for name in block["unscaled"] if name not in block["over"]]
        extent = f"over {number(len(block['over']), 'finding')}"
        models.setdefault(extent + (f", without {join(without)}" if without else ""), []).append(label(model))
    means = [f"means of {join(names)} are {extent}" for extent, names in models.items()]
    reason = (
        "A finding without a temperature in some run is in no mean: "
        if any("without" in extent_of for extent_of in models)
        else ""
    )
    return f"{reason}{'; '.join(means)}."


def _picture(drawn: Mapping[str, dict]) -> Figure:
    """A colour a model, a mark a bin that holds enough images."""
    predicted, marks, words = {}, {}, []
    for model, bins in drawn.items():
        full = [i for i in range(BINS) if bins["images"][i] >= ENOUGH]
        predicted[label(model)] = [bins["said"][i] for i in full]
        marks[label(model)] = [
            (share, share - bins["interval"][i][0], bins["interval"][i][1] - share)
            for i, share in ((i, bins["are"][i]) for i in full)
        ]
        pairs = [f"{bins['said'][i]:.2f} said, {bins['are'][i]:.2f} are" for i in full]
        words.append(f"{label(model)}: {'; '.join(pairs)}")
    return Figure(
        "reliability",
        figures.reliability(marks, predicted),
        "Reliability",
        f"Probability said and share of abnormal images, bin by bin. {'. '.join(words)}.",
        f"{BINS} equal bins, as predicted, without those of fewer than {ENOUGH} images a seed; 95 % intervals of as "
        "many cases as a bin has patients. Dotted: as said.",
    )
