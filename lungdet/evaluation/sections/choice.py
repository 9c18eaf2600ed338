"""Choice: which model for which amount of data, latency and kind of image, as the measurements say, or that they don't.

The rule: where a difference is shown, the better model; where none is shown, the cheaper one, and the sentence says so.
"""

from collections.abc import Callable, Sequence

from lungdet.evaluation.gathering.grouping import CONTROLS
from lungdet.evaluation.sections import data_need, earlier_visits
from lungdet.evaluation.sections.data_need import Sweep, measured_in, share, sweep
from lungdet.evaluation.statistics import paired
from lungdet.page.document import Table, Text
from lungdet.page.wording import in_a_sentence, join, label

RULE = (
    "Where a difference is shown, the better model is advised; where none is shown, the cheaper one, for no other "
    "reason than that. None shown is not the same as none."
)
NOT_MEASURED = "not measured"


def section(summary: dict) -> list:
    """A table: the situation, what the measurements say, the section that this is based on. Controls are no choice.

    Args:
        summary: with what the other sections need, and `efficiency` (see `costs.measure`) or None.
    """
    summary = without_controls(summary)
    if not summary["comparisons"]:
        return [Text("There is no other model to choose.")]
    rows = [
        *_amounts(summary),
        *_shares(summary),
        *_elsewhere(summary),
        *_quality(summary),
        *_costs(summary),
        *_series(summary),
    ]
    notes = [RULE]
    if not all(one["counts_seeds"] for one in summary["comparisons"]):
        notes.append("With fewer than three seeds a model, all of it is about these very runs.")
    return [Table(["Situation", "What the measurements say", "Based on"], rows, 3, notes)]


def advice(summary: dict, one: dict, metrics: Sequence[str], called: Callable[[str], str] = label) -> str:
    """Which of two models a comparison speaks for, and why."""
    names = join([in_a_sentence(metric) for metric in metrics]).replace(" and ", " or ")
    first, second = called(one["first"]), called(one["second"])
    better = {
        metric: second if one["metrics"][metric]["difference"] > 0 else first
        for metric in metrics
        if paired.shown(one, metric)
    }
    if len(set(better.values())) > 1:
        return "; ".join(f"{model} for {in_a_sentence(metric)}" for metric, model in better.items()) + ": each is shown"
    if better:
        shown = join([in_a_sentence(metric) for metric in better])
        return f"{next(iter(better.values()))}: its better {shown} is shown"
    return f"{cheaper(summary, one, called)}; between {first} and {second} no difference in {names} is shown"


def cheaper(summary: dict, one: dict, called: Callable[[str], str] = label) -> str:
    """The cheaper of two models and the reason: FLOPs, and where they are not measured or the same, parameters."""
    pair = (one["first"], one["second"])
    measured = (summary.get("efficiency") or {}).get("models", {})
    for what, costs in (
        ("{:.4g} against {:.4g} billion FLOPs an image", [measured.get(name, {}).get("flops") for name in pair]),
        ("{:,.0f} against {:,.0f} parameters", [summary["models"][name]["parameters"] for name in pair]),
    ):
        if None in costs or costs[0] == costs[1]:
            continue
        scale = 1e9 if "FLOPs" in what else 1
        said = what.format(*[cost / scale for cost in sorted(costs)])
        return f"{called(pair[costs.index(min(costs))])}, the cheaper one ({said})"
    return "either, as nothing measured tells which is cheaper"


def without_controls(summary: dict) -> dict:
    """The summary of the models that one would choose among, unless there are controls alone."""
    models = {name: one for name, one in summary["models"].items() if one["settings"].get("role") not in CONTROLS}
    if not models:
        return summary
    kept = {
        key: [one for one in summary[key] if {one["first"], one["second"]} <= models.keys()]
        for key in ("comparisons", "image_quality_comparisons")
    }
    return summary | {"models": models} | kept


def _amounts(summary: dict) -> list[list[str]]:
    swept, based = sweep(summary, "train_fraction"), "[Need for data](#need-for-data)"
    if swept.varies:
        return [
            [f"Training on {share(value)} of the patients{_images(summary, swept, value)}", said, based]
            for value, said in _at_each(summary, swept, measured_in(summary))
        ]
    rows = [["More or less training data", NOT_MEASURED, based]]
    if any(sweep(summary, key).varies for key in ("train_prevalence", "train_on")):
        return rows
    said = _each(summary, summary["comparisons"], measured_in(summary))
    here = f"As much training data as here{_images(summary, swept, swept.values[0])}"
    return [[here, said, "[Differences](#differences)"], *rows]


def _shares(summary: dict) -> list[list[str]]:
    swept, based = sweep(summary, "train_prevalence"), "[Imbalance](#imbalance)"
    if not swept.varies:
        return [["Few abnormal images, or few normal ones, to train on", NOT_MEASURED, based]]
    return [
        [f"{share(value) if value else 'As many as in the sources'} of the training images abnormal", said, based]
        for value, said in _at_each(summary, swept, ("auroc",))
    ]


def _elsewhere(summary: dict) -> list[list[str]]:
    found = (summary["generalisation"] or {}).get("comparisons", {}).get("others", [])
    lines = sweep(summary, "train_on").lines
    found = [one for one in found if {one["first"], one["second"]} <= lines.keys()]
    said = "; ".join(_between_lines(summary, one) for one in found) or NOT_MEASURED
    return [["A source that was not trained on", said, "[Generalisation](#generalisation)"]]


def _quality(summary: dict) -> list[list[str]]:
    found = summary["image_quality_comparisons"]
    less = [
        f"{label(one['first'] if of['difference'] > 0 else one['second'])} loses less under {kind}, which is shown"
        for one in found
        for kind, of in one["metrics"].items()
        if paired.shown(one, kind)
    ]
    same = "no difference in what that costs is shown: as for images as they are"
    said = "; ".join(less) or (same if found else NOT_MEASURED)
    return [["Noisy, blurred, badly exposed or compressed images", said, "[Image quality](#image-quality)"]]


def _series(summary: dict) -> list[list[str]]:
    better = [
        f"{label(one['second'] if of['difference'] > 0 else one['first'])} "
        f"{earlier_visits.where(group)}, which is shown"
        for one in summary["series"]
        for group, of in one["metrics"].items()
        if paired.shown(one, group)
    ]
    same = "no difference is shown, however long the series and whatever changed: as for all images"
    said = "; ".join(better) or (same if summary["series"] else NOT_MEASURED)
    return [["Series of a patient's images", said, "[Series of images](#series)"]]


def _costs(summary: dict) -> list[list[str]]:
    """The faster model where the quartiles of the latencies' ratio lie on one side of 1, on a quiet machine."""
    found, said = summary.get("efficiency") or {}, []
    for name, one in found.get("models", {}).items():
        ratio = one.get("ratios", {}).get("latency_ms")
        if (
            ratio is None
            or name not in summary["models"]
            or summary["models"][name]["settings"]["base"] == found["against"].split(" ")[0]
        ):
            continue
        against, this = label(found["against"]), label(name)
        times = f"{this}'s latency is {ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f}) of {against}'s"
        if ratio["low"] <= 1 <= ratio["high"]:
            said.append(f"either: {times}")
        else:
            said.append(f"{this if ratio['high'] < 1 else against}: {times}")
    if said and found.get("quiet") is False:  # ratios mislead then, however close their quartiles
        busy = f"other programs kept {found['others_cores']:.1f} of {found['cores']} cores busy"
        said = [f"{NOT_MEASURED} on a quiet machine: meanwhile {busy}, and no model is advised"]
    return [["An answer as soon as possible, image by image", "; ".join(said) or NOT_MEASURED, "[Cost](#cost)"]]


def _at_each(summary: dict, swept: Sweep, metrics: Sequence[str]) -> list[tuple[data_need.Value, str]]:
    return [
        (value, _each(summary, swept.at(value, summary["comparisons"]), metrics, swept.called))
        for value in swept.values
    ]


def _each(
    summary: dict, comparisons: Sequence[dict], metrics: Sequence[str], called: Callable[[str], str] = label
) -> str:
    return "; ".join(advice(summary, one, metrics, called) for one in comparisons) or NOT_MEASURED


def _between_lines(summary: dict, one: dict) -> str:
    """The lines' first models stand for what they cost."""
    lines = sweep(summary, "train_on").lines
    models = {line: next(iter(lines[line].values())) for line in (one["first"], one["second"])}
    named = {model: label(line) for line, model in models.items()}
    whole = one | {"first": models[one["first"]], "second": models[one["second"]]}
    return advice(summary, whole, measured_in(summary), named.__getitem__)


def _images(summary: dict, swept: Sweep, value: data_need.Value) -> str:
    models = (line[value] for line in swept.lines.values() if value in line)
    images = data_need.trained_on(summary, next(models, None))
    return f" ({images} images)" if images else ""
