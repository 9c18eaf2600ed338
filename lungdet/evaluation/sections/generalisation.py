"""Generalisation: what a model is worth on a source that it was not trained on, source by source."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from lungdet.evaluation.gathering.parts import SOURCES, Replicate
from lungdet.evaluation.sections.choice import preferred
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured, judged_by
from lungdet.evaluation.sections.sweep import Sweep, measured_by, missing, sweep
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.estimates import mean, minus, turned
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import as_block, estimated
from lungdet.page import figures, sentences
from lungdet.page.document import Columns, Details, Figure, Items, Table
from lungdet.page.wording import (
    in_a_sentence,
    interval,
    join,
    label,
    listed,
    metric_name,
    points,
    signed,
    with_interval,
)

METRICS = ("auroc", "accuracy")
SIDES = ("on the own source", "on another source")


def measure(study: Study) -> dict:
    """What `across_sources` finds; nothing of other data."""
    return {"generalisation": None if study.external else across_sources(study.models, study.settings, study.draws)}


def across_sources(models: Mapping[str, Sequence[Replicate]], settings: Mapping[str, dict], draws: int) -> dict | None:
    """How far results fall from the source a model was trained on to the others, mean over the sources trained on.

    None unless runs were trained on several single sources that are tested on, too.

    Args:
        models: the replicates of each model.
        settings: of each, as the summary has them: `train_on` names the sources it was trained on.
        draws: redrawn test parts.

    Returns:
        `lines`: by line of models (a model's name without `train_on`) the `sources` it is the mean over, and by metric
        `others`, the mean on sources not trained on, and `drop` to it from the own (`_sd`, `_interval`, `undefined`),
        and `fall`, whether the drop is shown: `counts_seeds`, and `metrics` with p; or `reason`, why there is none.
        `comparisons`: of each two lines on the same sources, for `others` and `drop`, as `paired.compared` has them.
        Holm's p is over all of these and the lines' falls.
    """
    swept = sweep({"models": {name: {"settings": values} for name, values in settings.items()}}, "train_on")
    tested = sorted(next(iter(models.values()))[0].test["dataset"].unique())
    estimates, lines = {}, {}
    for line, names in swept.lines.items():
        by_source = {
            value[0]: models[name]
            for value, name in names.items()
            if value and value[0] in tested and [value[0]] == [*value] == settings[name]["learnt_from"]
        }
        if len(by_source) < 2:
            continue
        lines[line] = {"sources": sorted(by_source), "undefined": {}}
        if not _seeds(by_source):
            lines[line]["reason"] = _apart(by_source)
            continue
        estimates[line] = _away(by_source, tested, draws)
        lines[line] |= as_block(**estimates[line]) | {"fall": paired.from_zero(estimates[line]["drop"])}
    pairs = [pair for pair in combinations(estimates, 2) if len({tuple(lines[line]["sources"]) for line in pair}) == 1]
    compared = {
        key: [paired.compare(first, estimates[first][key], second, estimates[second][key]) for first, second in pairs]
        for key in ("others", "drop")
    }
    falls = [lines[line]["fall"] for line in estimates]
    paired.adjust([*falls, *compared["others"], *compared["drop"]])
    return {"lines": lines, "comparisons": compared} if lines else None


def tell(summary: dict) -> list:
    """Train source by test source, and the fall from the own source to others; nothing where all learnt from all.

    Args:
        summary: with `generalisation`, what `measure` gave.
    """
    swept = sweep(summary, "train_on")
    if swept.values == [None]:
        return []
    tested, metrics = list(summary["data"]["test_datasets"]), METRICS if summary["task"] == "abnormal" else METRICS[:1]
    numbers = summary["generalisation"] or {"lines": {}, "comparisons": {}}
    items = []
    for line, falls in numbers["lines"].items():
        if "reason" in falls:
            items.append(f"{label(line)}'s fall to other sources is not measured: {falls['reason']}.")
        else:
            items += [fall(line, falls, metric) for metric in metrics]
    for key, comparisons in numbers["comparisons"].items():
        items += [sentence(comparison, key, metric) for comparison in comparisons for metric in metrics]
    tables = [_matrix(summary, swept, tested, metric) for metric in metrics]
    words = [Items(items)] if items else []
    return [Columns([[_picture(summary, swept, tested)], words]), Details("The numbers, with intervals", tables)]


def advice(summary: dict) -> list[list[str]]:
    """Which model for a source that was not trained on."""
    comparisons = (summary["generalisation"] or {}).get("comparisons", {}).get("others", [])
    lines = sweep(summary, "train_on").lines
    comparisons = [
        comparison for comparison in comparisons if {comparison["first"], comparison["second"]} <= lines.keys()
    ]
    if not comparisons:
        return []
    advised = "; ".join(_preferred(summary, comparison, lines) for comparison in comparisons)
    return [["A source that was not trained on", advised, "[Generalisation](#generalisation)"]]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """What models are worth on a source they did not learn from; in full, or beside networks of that source."""
    if summary["data"]["external"] or sweep(summary, "train_on").varies:
        return []
    question = "What the models are worth on a source that they were not trained on"
    if summary["parts"] and summary["parts"]["kind"] == SOURCES:
        question = "How far a held-out source is below a network trained on that source itself"
    return [measured_by("cross_dataset", question)]


SECTION = Section("Generalisation", measure=measure, tell=tell, advice=advice, unmeasured=unmeasured)


def _preferred(summary: dict, comparison: dict, lines: Mapping[str, Mapping]) -> str:
    """The lines' first models stand for what they cost."""
    models = {line: next(iter(lines[line].values())) for line in (comparison["first"], comparison["second"])}
    named = {model: label(line) for line, model in models.items()}
    whole = comparison | {"first": models[comparison["first"]], "second": models[comparison["second"]]}
    return preferred(summary, whole, judged_by(summary), named.__getitem__)


def sentence(comparison: dict, key: str, metric: str) -> str:
    """A comparison of two lines (`others` or `drop`) as a person quotes it."""
    noun = {"others": "{} on sources not trained on", "drop": "fall in {} from the own source to others"}[key]
    return sentences.difference(comparison, metric, metric, noun.format(in_a_sentence(metric)))


def fall(line: str, block: dict, metric: str) -> str:
    """A line's fall from its own source to others in a sentence."""
    noun, value = in_a_sentence(metric), block["drop"][metric]
    over = f"mean over training on {join(block['sources'])} alone"
    if value is None:
        return f"{label(line)}'s fall in {noun} to other sources is undefined ({block['undefined']['drop'][metric]})."
    size, unit = points(metric, abs(value))
    direction, ends = "lower" if value > 0 else "higher", block["drop_interval"][metric]
    clause = f"{label(line)}'s {noun} is {size}{unit} {direction} on other sources than on its own"
    if not float(size):
        clause = f"{label(line)}'s {noun} is the same on other sources as on its own"
    if ends is None:
        return sentences.without_interval(f"{clause}, {over}", block["undefined"]["drop_interval"][metric])
    between = interval(ends if value > 0 else [-end for end in ends[::-1]], metric, signed)
    verdict = sentences.verdict(block["fall"]["counts_seeds"], block["fall"]["metrics"][metric]["p_holm"], ends)
    return f"{clause}, {between}, {over}: {verdict}."


def _seeds(by_source: Mapping[str, Sequence[Replicate]]) -> list[int]:
    """Those under which all sources were trained on."""
    return sorted(
        set.intersection(*[{replicate.seed for replicate in replicates} for replicates in by_source.values()])
    )


def _apart(by_source: Mapping[str, Sequence[Replicate]]) -> str:
    """That sources have no seed in common, and which they have."""
    of = {
        source: join([str(seed) for seed in sorted(replicate.seed for replicate in by_source[source])])
        for source in sorted(by_source)
    }
    (first, under), *further = [(source, f"under seed {seeds}") for source, seeds in of.items()]
    clauses = [f"{first} was trained on {under}", *[f"{source} {under}" for source, under in further]]
    return f"no seed in common: {', '.join(clauses)}"


def _away(
    by_source: Mapping[str, Sequence[Replicate]], tested: Sequence[str], draws: int
) -> dict[str, dict[str, Estimate]]:
    """`others` and `drop` by metric: the mean over the sources trained on, of the seeds that all of them have."""
    seeds = _seeds(by_source)
    pairs: dict[str, list[tuple[Estimate, Estimate]]] = {metric: [] for metric in METRICS}  # on the own, on another
    for source, replicates in by_source.items():
        tables = [replicate.test for replicate in replicates if replicate.seed in seeds]
        on = {}
        for turn, name in enumerate(tested):
            estimates = estimated([t[t["dataset"] == name] for t in tables], replicates[0].labels, draws, METRICS)
            on[name] = {m: turned(estimate, turn) for m, estimate in estimates.items()}  # the same for every model
        for metric in METRICS:
            pairs[metric] += [(on[source][metric], on[name][metric]) for name in tested if name != source]
    # Each source trained on has as many others, so these are the means of the sources' means.
    return {
        "others": {m: mean([elsewhere for _, elsewhere in both_sides]) for m, both_sides in pairs.items()},
        "drop": {m: mean([minus(*pair, SIDES) for pair in both_sides]) for m, both_sides in pairs.items()},
    }


def _matrix(summary: dict, swept: Sweep, tested: Sequence[str], metric: str) -> Table:
    rows = []
    for value, line, model in swept.cells:
        cells = ["not run"] * len(tested)
        if model is not None:
            blocks = {name: summary["models"][model]["datasets"][name] for name in tested}
            cells = [
                with_interval(block, "test", metric) + _mark(summary, model, name) for name, block in blocks.items()
            ]
        rows.append([_sources(value), label(line), *cells])
    notes = [
        f"{metric_name(metric)} at threshold 0.5, 95 % intervals" if metric == "accuracy" else "AUROC, 95 % intervals",
        *missing(rows),
    ]
    notes[0] += (
        "; * a source that was trained on. Sources differ in more than the hospital: in what they call abnormal, and "
        "in how many images there are to learn from."
    )
    return Table(["Trained on", "Model", *[f"tested on {name}" for name in tested]], rows, 2, notes)


def _mark(summary: dict, model: str, tested: str) -> str:
    return " *" if tested in summary["models"][model]["settings"]["learnt_from"] else ""


def _sources(value: tuple[str, ...] | None) -> str:
    return "all sources" if value is None else " + ".join(value)


def _picture(summary: dict, swept: Sweep, tested: Sequence[str]) -> Figure:
    """A heat map a line: rows trained on, columns tested on, the own source framed."""
    maps, texts, framed, words = {}, {}, {}, {}
    for line, models in swept.lines.items():
        title = label(line)
        area = np.array([[_auroc(summary, models.get(row), name) for name in tested] for row in swept.values])
        maps[title] = area
        texts[title] = [
            [f"{value:.3f}" if value == value else "undefined" if row in models else "not run" for value in values]
            for row, values in zip(swept.values, area, strict=True)
        ]
        framed[title] = np.array(
            [[row in models and bool(_mark(summary, models[row], name)) for name in tested] for row in swept.values]
        )
        words |= {
            f"{title} trained on {_sources(row)}": [
                f"{name} {with_interval(summary['models'][models[row]]['datasets'][name], 'test', 'auroc')}"
                for name in tested
            ]
            for row in swept.values
            if row in models
        }
    element = figures.heat_maps(maps, texts, framed, list(map(_sources, swept.values)), tested)
    alt = listed(words)
    return Figure(
        "generalisation",
        element,
        "AUROC by source trained on and tested on",
        f"{alt}.",
        "Framed: a source that was trained on.",
    )


def _auroc(summary: dict, model: str | None, tested: str) -> float:
    value = None if model is None else summary["models"][model]["datasets"][tested]["test"]["auroc"]
    return np.nan if value is None else value
