"""Referral: how accurate a model is on the images that it is surest of, if a reader takes the others.

An image is the surer the further its probability is from 0.5, the threshold that it is called at (selective
prediction, Geifman and El-Yaniv 2017, arXiv 1705.08500). Of images that are equally sure a share is kept: what counts
is what keeping some of them at random gives on average.
"""

import math
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.sections.contract import Section, Study, thresholds_of
from lungdet.evaluation.statistics.bootstrap import multiplicities
from lungdet.evaluation.statistics.cases import Case, Sums, Undefined
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import Cuts, as_block, lacking, withdraw_certain
from lungdet.evaluation.statistics.scales import SHARE, UNBOUNDED, Scale
from lungdet.machine import hardware
from lungdet.page import figures
from lungdet.page.document import Columns, Details, Figure, Table, items
from lungdet.page.sentences import scope_of, undefined, with_verdict, without_interval
from lungdet.page.wording import (
    figure,
    finding_name,
    label,
    listed,
    mean_count,
    metric_name,
    percent,
    points,
    with_interval,
)

KEPT = tuple(range(100, 45, -5))
"""Shares of the images that a model keeps, in per cent, the rest going to a reader."""
LISTED = (100, 90, 80, 70, 50)
QUOTED = 80
METRICS = {
    "accuracy": "no label is known, or no finding both present and absent",
    "recall": "no image that is kept is abnormal",
    "specificity": "no image that is kept is normal",
}
"""What is measured on the images that are kept, and why it may be undefined."""


def of_model(replicates: Sequence[Tested], cuts: Sequence[Cuts], draws: int) -> dict:
    """What a model reaches at 0.5 on the images that it keeps, and its confusion matrix on all; means over seeds.

    With findings the images are sorted for each finding by itself, and numbers are means over the findings that are
    there both present and absent.

    Args:
        replicates: of one model.
        cuts: of each replicate, see `measure.scored`.
        draws: redrawn test parts.

    Returns:
        `kept`: by per cent kept a block of accuracy, recall, specificity and `gain`, the accuracy less that on all
        images; `risk`: a block of `area`, the mean error over 1 to 100 % kept (the area under the risk-coverage
        curve), and of `error`, that on all images, which the area is where images are referred at random;
        `confusion`: by label the counts at both thresholds.
    """
    tables, labels = [replicate.test for replicate in replicates], replicates[0].labels
    by_metric = curves(tables, labels, draws)
    patients, resting = int(tables[0]["patient_id"].nunique()), _resting(tables[0], labels)

    def estimate(values: np.ndarray, metric: str = "accuracy", share: float = 1.0, scale: Scale = SHARE) -> Estimate:
        by_seed = [Undefined(METRICS[metric]) if math.isnan(value) else float(value) for value in values[:, 0]]
        return Estimate(by_seed, values[:, 1:], patients, max(1, int(share * resting[metric])), scale)

    blocks, whole = {}, by_metric["accuracy"][:, :, -1]
    for per_cent in KEPT:
        at = {name: values[:, :, per_cent - 1] for name, values in by_metric.items()}
        reached = {name: estimate(values, name, per_cent / 100) for name, values in at.items()}
        gain = estimate(at["accuracy"] - whole, scale=UNBOUNDED)
        blocks[str(per_cent)] = as_block(test=reached | {"gain": gain})
        withdraw_certain(blocks[str(per_cent)], "test", {"gain": gain})
    risk = {"area": estimate(1 - by_metric["accuracy"].mean(axis=-1)), "error": estimate(1 - whole)}
    return {
        "kept": blocks,
        "risk": as_block(test=risk),
        "confusion": {name: _counted(tables, name, cuts) for name in labels},
    }


def curves(tables: Sequence[pd.DataFrame], labels: Sequence[str], draws: int) -> dict[str, np.ndarray]:
    """Each metric by seed, test part (as it is, then redrawn ones) and per cent kept, (S, 1 + B, 100)."""
    over = _measurable(tables[0], labels)
    patient, patients = pd.factorize(tables[0]["patient_id"])
    drawn = [np.ones((1, len(patients)), np.int32)]
    if len(patients) > 1:
        drawn += [times for _, times in multiplicities(len(patients), draws, 0)]
    by_seed = []
    for table in tables:
        by_label = [_of_label(table, name, patient, drawn) for name in over]
        by_label = np.array(by_label or np.full((1, len(METRICS), 1, 100), np.nan))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # undefined for every finding: NaN
            mean = np.nanmean(by_label, axis=0)
        mean[:, 0] = by_label[:, :, 0].mean(axis=0)  # what is undefined for one finding has no mean
        by_seed.append(mean)
    return dict(zip(METRICS, np.stack(by_seed, axis=1), strict=True))


def _measurable(table: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    return [name for name in labels if len(labels) == 1 or lacking(table, name) is None]


def _of_label(table: pd.DataFrame, name: str, patient: np.ndarray, drawn: Sequence[np.ndarray]) -> np.ndarray:
    """The metrics of all draws, some (b, P) at a time, by per cent kept, (metrics, 1 + B, 100)."""
    y, logit = (table[f"{kind}_{name}"].to_numpy(np.float64) for kind in ("target", "logit"))
    sure = np.abs(logit)  # as far from 0.5 as the probability is, but without ties near 0 and 1
    order = np.argsort(-sure, kind="stable")
    order = order[~np.isnan(y[order])]
    if not len(order):
        return np.full((len(METRICS), sum(map(len, drawn)), 100), np.nan)
    abnormal, called, patient = y[order] == 1, logit[order] > 0, patient[order]
    steps = np.concatenate([[0], np.flatnonzero(np.diff(sure[order])) + 1, [len(order)]])  # equally sure: one step

    def measured(times: np.ndarray) -> np.ndarray:
        weight = np.take(times, patient, axis=1)
        images, positive = _running(weight), _running(weight * abnormal)
        kept = np.arange(1, 101) * images[:, -1:] / 100
        at = np.array([np.searchsorted(row, goal) for row, goal in zip(images[:, steps], kept, strict=True)]).clip(1)
        ends = steps[at - 1], steps[at]
        first, last = (np.take_along_axis(images, end, axis=1) for end in ends)

        def up_to(total: np.ndarray) -> np.ndarray:
            """A running count (b, N + 1) of as many images as are kept, (b, 100)."""
            before, after = (np.take_along_axis(total, end, axis=1) for end in ends)
            return before + (kept - first) / (last - first) * (after - before)

        with np.errstate(divide="ignore", invalid="ignore"):  # no image of a class: NaN
            tp, tn = up_to(_running(weight * (abnormal & called))), up_to(_running(weight * ~(abnormal | called)))
            return np.stack([(tp + tn) / kept, tp / up_to(positive), tn / up_to(images - positive)])

    with ThreadPoolExecutor(hardware.cores()) as pool:
        return np.concatenate(list(pool.map(measured, drawn)), axis=1)


def _running(counts: np.ndarray) -> np.ndarray:
    """Running sums (b, N + 1) from 0; int32 is several times as fast as int64."""
    total = np.zeros((len(counts), counts.shape[1] + 1), np.int32)
    np.cumsum(counts, axis=1, dtype=np.int32, out=total[:, 1:])
    return total


def _resting(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, int]:
    """Patients that each metric rests on if all images are kept, of findings the rarest's."""
    over = _measurable(table, labels)
    return {
        metric: min(
            (table.loc[table[f"target_{name}"].isin(classes), "patient_id"].nunique() for name in over), default=0
        )
        for metric, classes in (("accuracy", (0, 1)), ("recall", (1,)), ("specificity", (0,)))
    }


def tell(summary: dict) -> list:
    """What referring a fifth gains, the curve, and a table of what is reached on the images that are kept."""
    blocks = {model: block["referral"] for model, block in summary["models"].items()}
    sentences = items([sentence(model, block) for model, block in summary["models"].items()], "model")
    reached = {m: b for m, b in blocks.items() if b["kept"]["100"]["test"]["accuracy"] is not None}
    if not reached:
        return sentences
    rows = [
        [label(model), str(per_cent), *[with_interval(block["kept"][str(per_cent)], "test", m) for m in METRICS]]
        for model, block in reached.items()
        for per_cent in LISTED
    ]
    risk = [
        [label(model), *[with_interval(block["risk"], "test", m) for m in ("area", "error")]]
        for model, block in reached.items()
    ]
    sorting = "" if summary["task"] == "abnormal" else " for each finding by itself; means over findings"
    notes = [
        f"Per cent at threshold 0.5, of the images whose probability is furthest from it{sorting}. An undefined recall "
        "or specificity: no image of that class is kept. What the reader gets wrong is not counted."
    ]
    below = [
        "Mean share of errors over all shares kept, as a decimal: the smaller the better. Where images are referred at "
        "random it is the error on all images."
    ]
    tables = [
        Table(["Model", "Kept, %", *[metric_name(metric) for metric in METRICS]], rows, 2, notes),
        Table(["Model", "Area under risk-coverage", "Error on all images"], risk, 1, below),
    ]
    words = [*sentences, Details("At each share that is kept", tables)]
    return [Columns([[_picture(reached)], words])] if len(reached) <= figures.MOST_LINES else words


def measure(study: Study) -> dict:
    """What `of_model` finds, for every model."""
    return study.of_each("referral", lambda model: of_model(study.models[model], study.cuts[model], study.draws))


SECTION = Section("What to refer to a reader", "referral", measure=measure, tell=tell)


def sentence(model: str, block: dict) -> str:
    """What referring the least certain images to a reader gains, as a person quotes it."""
    kept = block["referral"]["kept"]
    all_images, on_kept = (kept[str(per_cent)]["test"]["accuracy"] for per_cent in (100, QUOTED))
    if on_kept is None:
        return f"{label(model)}: no accuracy is defined ({kept[str(QUOTED)]['undefined']['test']['accuracy']})."
    gain, ends = (kept[str(QUOTED)][key]["gain"] for key in ("test", "test_interval"))
    size, unit = points("accuracy", abs(gain))
    clause = f"{label(model)}: referring the {100 - QUOTED} % of images that it is least sure of to a reader"
    if float(size) == 0:
        clause += f" leaves accuracy on the rest at {percent(all_images)}"
    else:
        changes = "raises" if gain > 0 else "lowers"
        clause += f" {changes} accuracy on the rest from {percent(all_images)} to {percent(on_kept)}, by {size}{unit}"
    if ends is None:
        return without_interval(clause, kept[str(QUOTED)]["undefined"]["test_interval"]["gain"], "gain")
    scope = scope_of(block["seeds"])
    verdict = (
        f"a gain is shown{scope}" if ends[0] > 0 else f"a loss is shown{scope}" if ends[1] < 0 else "no gain is shown"
    )
    return with_verdict(clause, "accuracy", ends, verdict)


def matrices(summary: dict) -> list[Figure]:
    """The confusion matrices as a picture, at the threshold asked for; without models that have none."""
    key, words = next(iter(thresholds_of(summary).items()))
    counts = {label(m): b["referral"]["confusion"]["abnormal"][key] for m, b in summary["models"].items()}
    counts = {name: of_model for name, of_model in counts.items() if of_model is not None}
    if not counts:
        return []
    fields = {name: [of_model[kind] for kind in KINDS] for name, of_model in counts.items()}
    spelt = {
        name: [f"{KINDS[kind]} {mean_count(of_model[kind])}" for kind in KINDS] for name, of_model in counts.items()
    }
    several = any(len(block["seeds"]) > 1 for block in summary["models"].values())
    means = "means over seeds, " if several else ""
    caption = f"Images at {words}, {means}and their share of the abnormal or normal ones."
    return [Figure("confusion", figures.confusion(fields), "Confusion matrices", f"{listed(spelt)}.", caption)]


def matrix(summary: dict, key: str) -> Table:
    """The confusion matrix at a threshold: a row a model, for findings a row a finding and model."""
    findings, rows, reasons = summary["task"] != "abnormal", [], {}
    models = summary["models"]
    for name, first in next(iter(models.values()))["referral"]["confusion"].items():
        counts = first["test"]
        if findings and not (counts["tp"] + counts["fn"] and counts["fp"] + counts["tn"]):
            continue  # not measured, as elsewhere
        for model, block in models.items():
            confusions = block["referral"]["confusion"][name]
            cells = ["undefined"] * 4
            if confusions[key] is not None:
                cells = [mean_count(confusions[key][kind]) for kind in KINDS]
            elif key in confusions["undefined"]:
                reasons[confusions["undefined"][key]] = None
            rows.append([*([finding_name(name)] if findings else []), label(model), *cells])
    several = any(len(block["seeds"]) > 1 for block in models.values())
    notes = [
        f"Images with a known label at {thresholds_of(summary)[key]}" + (", means over seeds." if several else ".")
    ]
    notes += undefined(reasons)
    return Table([*(["Finding"] if findings else []), "Model", *KINDS.values()], rows, 1 + findings, notes)


KINDS = {
    "tp": "Abnormal, called so",
    "fn": "Abnormal, called normal",
    "fp": "Normal, called abnormal",
    "tn": "Normal, called so",
}


def _counted(tables: Sequence[pd.DataFrame], name: str, cuts: Sequence[Cuts]) -> dict:
    """A label's confusion matrix at both thresholds, mean over seeds; None where there is no threshold."""
    known = tables[0][f"target_{name}"].notna().to_numpy()
    block: dict = {"undefined": {}}
    for key, at in (("test", [0.0] * len(tables)), ("at_validation_threshold", [cut[name] for cut in cuts])):
        matrices = []
        for table, cut in zip(tables, at, strict=True):
            cut = cut.loc[table.index].to_numpy()[known] if isinstance(cut, pd.Series) else cut
            if np.isnan(cut).any():
                block["undefined"][key] = f"there is no threshold: {getattr(cut, 'reason', 'it is NaN')}"
                continue
            y, logit = (table[f"{kind}_{name}"].to_numpy(np.float64)[known] for kind in ("target", "logit"))
            matrices.append(Case(y, logit, cut).total()[:4])
        whole = key not in block["undefined"]
        block[key] = dict(zip(Sums._fields[:4], map(float, np.mean(matrices, axis=0)), strict=True)) if whole else None
    return block


def _picture(blocks: dict[str, dict]) -> Figure:
    element = figures.referral({label(model): list(block["kept"].values()) for model, block in blocks.items()}, KEPT)
    words = listed(
        {
            label(model): [
                f"{figure('accuracy', block['kept'][str(per_cent)]['test']['accuracy'])} on {per_cent} %"
                for per_cent in LISTED
            ]
            for model, block in blocks.items()
        }
    )
    return Figure(
        "referral",
        element,
        "Accuracy on the images that a model is surest of",
        f"In per cent: {words}.",
        "At threshold 0.5, the others going to a reader, with 95 % intervals.",
    )
