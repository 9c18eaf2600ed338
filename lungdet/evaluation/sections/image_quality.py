"""Image quality: what noise, blur, wrong exposure and compression of the test images cost each model."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import pandas as pd

from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.bootstrap import FEWER
from lungdet.evaluation.statistics.estimates import mean, minus
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import Scores, as_block, estimated
from lungdet.page import figures, sentences
from lungdet.page.document import Columns, Details, Figure, Items, Table
from lungdet.page.sentences import SIGNIFICANT
from lungdet.page.wording import difference, figure, interval, label, listed, number, p_value, signed, with_interval

METRICS = ("auroc", "accuracy")
SIDES = ("as they are:", "degraded:")

UNTOUCHED = {"noise": 0.0, "blur": 0.0, "exposure": 1.0, "compression": 100.0}
"""The level of each degradation that is the image as it is (see `lungdet.data.serving.degrade`)."""
UNITS = {
    "noise": ("deviation {:g} grey levels", "deviation in grey levels"),
    "blur": ("deviation {:g} pixels", "deviation in pixels"),
    "exposure": ("gamma {:g}", "gamma, brighter to darker"),
    "compression": ("JPEG quality {:g}", "JPEG quality"),
}
"""What the levels of each are: one in words, and the axis."""


def of_model(replicates: Sequence[Replicate], draws: int) -> Scores | None:
    """AUROC and accuracy at threshold 0.5 on degraded test images, and the drop from the images as they are.

    Drops are paired: the same patients are redrawn for both. None where a run predicted no degraded images.

    Returns:
        The block, with `levels`: by degradation and level as text, `test` and `drop` by metric with `_sd`, `_interval`
        and `undefined`; and `drops`: by degradation, AUROC's drop as the mean over its levels, with `drop_p_holm`,
        adjusted for their number. The estimates are of these mean drops, by degradation.
    """
    tables = [_degraded(replicate) for replicate in replicates]
    if any(table is None for table in tables):
        return None
    labels, draws = replicates[0].labels, min(draws, FEWER)
    whole = estimated([replicate.test for replicate in replicates], labels, draws, METRICS)
    keys = set.intersection(*[set(table.groupby(["degradation", "level"]).groups) for table in tables])
    levels: dict[str, dict[str, dict]] = {}
    drops: dict[str, list[Estimate]] = {}
    for kind, level in sorted(keys, key=_place):
        degraded = [table[(table["degradation"] == kind) & (table["level"] == level)] for table in tables]
        estimates = estimated(degraded, labels, draws, METRICS)
        dropped = {name: minus(whole[name], estimates[name], SIDES) for name in METRICS}
        drops.setdefault(kind, []).append(dropped["auroc"])
        levels.setdefault(kind, {})[f"{level:g}"] = as_block(test=estimates, drop=dropped)
    means = {kind: mean(of_levels) for kind, of_levels in drops.items()}
    [losses] = paired.adjust([paired.from_zero(means)]) if means else [{"metrics": {}}]
    p = {kind: cell["p_holm"] for kind, cell in losses["metrics"].items()}
    return Scores({"draws": draws, "levels": levels, "drops": as_block(drop=means) | {"drop_p_holm": p}}, means)


def compared(scores_by_model: Mapping[str, Scores | None], pairs: Sequence[tuple[str, str]]) -> list[dict]:
    """The pairs' differences of AUROC's drop by degradation, as `paired.compared` has them; Holm's p is over them all.

    Args:
        scores_by_model: what `of_model` gave for each.
        pairs: see `models.pairs`.
    """
    compared = []
    for first, second in pairs:
        pair = [scores for scores in (scores_by_model[first], scores_by_model[second]) if scores is not None]
        if len(pair) == 2:
            kinds = [kind for kind in pair[0].estimates if kind in pair[1].estimates]
            estimates = [{kind: scores.estimates[kind] for kind in kinds} for scores in pair]
            compared.append(paired.compare(first, estimates[0], second, estimates[1]))
    return paired.adjust([comparison for comparison in compared if comparison["metrics"]])


def tell(summary: dict) -> list:
    """What each degradation costs each model, and whether the models differ in it.

    Args:
        summary: with each model's `image_quality`, and `image_quality_comparisons`.
    """
    blocks = {model: block["image_quality"] for model, block in summary["models"].items()}
    known = {model: block for model, block in blocks.items() if block is not None}
    if not known:
        return []
    keys = {
        (kind, float(level)) for block in known.values() for kind, levels in block["levels"].items() for level in levels
    }
    keys = sorted(keys, key=_place)
    rows = [["as they are", *[with_interval(summary["models"][model], "test", "auroc") for model in known]]]
    for kind, level in keys:
        cells = [_cell(block["levels"].get(kind, {}).get(f"{level:g}")) for block in known.values()]
        rows.append([called(kind, level), *cells])
    notes = [
        "AUROC on the test part, each image degraded in one way that training did not show; after the semicolon its "
        "drop from the images as they are, with the 95 % interval of the same patients redrawn for both. These "
        "intervals are each level's own: of many drops the largest is too large by selection alone. Accuracy stands in "
        "`metrics.json`.",
        *[f"{label(model)} predicted no degraded images." for model in blocks.keys() - known.keys()],
    ]
    items = [_worst(label(model), block) for model, block in known.items()]
    for comparison in summary["image_quality_comparisons"]:
        items += [
            sentences.difference(comparison, kind, "auroc", f"drop in AUROC under {kind}, the mean over its levels,")
            for kind in comparison["metrics"]
        ]
    table = Table(["Test images", *[label(model) for model in known]], rows, 1, notes)
    picture = _picture(summary, known, keys)
    return [Columns([[picture], [Items(items)]]), Details("Every level, with intervals", [table])]


def measure(study: Study) -> dict:
    """What `of_model` finds, for every model, and `compared` for every pair; of other data nothing is degraded."""
    scores_by_model = {
        model: None if study.external else of_model(replicates, study.draws)
        for model, replicates in study.models.items()
    }
    return {
        "models": {model: {"image_quality": scores and scores.block} for model, scores in scores_by_model.items()},
        "image_quality_comparisons": compared(scores_by_model, study.pairs),
    }


def advice(summary: dict) -> list[list[str]]:
    """Which model for poor images: the one that loses less under each degradation where that is shown."""
    comparisons = summary["image_quality_comparisons"]
    verdicts = [
        f"{label(comparison['first' if cell['difference'] > 0 else 'second'])} loses less under {kind}, which is shown"
        for comparison in comparisons
        for kind, cell in comparison["metrics"].items()
        if sentences.significant(comparison, kind)
    ]
    if not comparisons:
        return []
    advised = "; ".join(verdicts) or "no difference in what that costs is shown: as for images as they are"
    return [["Noisy, blurred, badly exposed or compressed images", advised, "[Image quality](#image-quality)"]]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """What poor images cost."""
    if summary["data"]["external"] or any(block["image_quality"] for block in summary["models"].values()):
        return []
    command = "`python train.py resume=RUN degrade=standard` for each run"
    return [Unmeasured("What noise, blur, wrong exposure and compression cost", command)]


SECTION = Section("Image quality", "image-quality", measure=measure, tell=tell, advice=advice, unmeasured=unmeasured)


def called(kind: str, level: float) -> str:
    """A degradation as tables call it."""
    return f"{kind}, {level_name(kind, level)}"


def level_name(kind: str, level: float) -> str:
    """How much an image is degraded, in the unit of the kind."""
    size = UNITS[kind][0].format(level)
    return size + (" (brighter)" if level < 1 else " (darker)") if kind == "exposure" and level != 1 else size


def _degraded(replicate: Replicate) -> pd.DataFrame | None:
    """Of all parts, each image once for every degradation and level that all parts have."""
    tables = [result.degraded for result in replicate.results]
    if any(table is None for table in tables):
        return None
    keys = [set(table.groupby(["degradation", "level"]).groups) for table in tables]
    pooled = pd.concat(tables, ignore_index=True).sort_values("image_id", ignore_index=True)
    everywhere = pd.MultiIndex.from_frame(pooled[["degradation", "level"]]).isin(list(set.intersection(*keys)))
    return pooled[everywhere]


def _place(key: tuple[str, float]) -> tuple:
    """Degradations in their usual order, levels from mild to severe, exposure from bright to dark."""
    kind, level = key
    return [*UNTOUCHED].index(kind), -level if kind == "compression" else level


def _cell(block: dict | None) -> str:
    if block is None:
        return "not predicted"
    drop = difference(block["drop"]["auroc"], block["drop_interval"]["auroc"], "auroc")
    return drop if drop == "undefined" else f"{figure('auroc', block['test']['auroc'])}; {drop}"


def _worst(model: str, block: dict) -> str:
    """Which degradation hurts a model most, at which level, and whether that is more than being the worst of many."""
    drops = {kind: drop for kind, drop in block["drops"]["drop"].items() if drop is not None}
    if not drops:
        return f"{model}: no drop is defined."
    worst = max(drops, key=drops.__getitem__)
    between = interval(block["drops"]["drop_interval"][worst], "auroc", signed)
    p = block["drops"]["drop_p_holm"][worst]
    verdict = "a loss is shown" if p is not None and p < SIGNIFICANT and drops[worst] > 0 else "no loss is shown"
    verdict += "" if p is None else f" (p {p_value(p)}, adjusted for all {number(len(drops), 'degradation')})"
    drop_by_level = {level: degraded["drop"]["auroc"] for level, degraded in block["levels"][worst].items()}
    level = max(drop_by_level, key=drop_by_level.__getitem__)
    at = level_name(worst, float(level))
    return (
        f"{model} loses most under {worst}: {signed('auroc', drops[worst])} of AUROC as the mean over its levels, "
        f"{between}: {verdict}; {signed('auroc', drop_by_level[level])} at the worst of them, {at}."
    )


def _picture(summary: dict, known: Mapping[str, dict], keys: Sequence[tuple[str, float]]) -> Figure:
    """A panel a degradation, from the image as it is on; a line a model."""
    panels = []
    for kind, of_kind in groupby(keys, key=lambda key: key[0]):
        untouched = UNTOUCHED[kind]
        places = sorted({untouched, *[level for _, level in of_kind]}, key=lambda level: _place((kind, level)))
        lines = {
            label(model): [
                summary["models"][model] if level == untouched else block["levels"].get(kind, {}).get(f"{level:g}")
                for level in places
            ]
            for model, block in known.items()
        }
        ticks = ["as is" if level == untouched else f"{level:g}" for level in places]
        names = (f"{kind}: {UNITS[kind][1]}", "AUROC")
        panels.append(figures.Panel(lines, "test", range(len(places)), ticks, names, 0.5, 0.08))
    element = figures.panels(panels, 2.3, "image-quality", {"sharey": True})
    alt = listed(
        {
            called(kind, level): [
                f"{label(model)} {with_interval(block['levels'][kind][f'{level:g}'], 'test', 'auroc')}"
                for model, block in known.items()
                if f"{level:g}" in block["levels"].get(kind, {})
            ]
            for kind, level in keys
        }
    )
    return Figure(
        "image-quality",
        element,
        "AUROC by degradation and level",
        f"{alt}.",
        "With 95 % intervals, beside the images as they are. Dotted: chance.",
    )
