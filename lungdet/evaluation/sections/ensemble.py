"""Combined: the mean of two models' probabilities, which the study suggests, beside the mean of two seeds of one model.

Two networks averaged are nearly always better than one, whatever they are. What counts is whether two unlike ones are
better than two alike.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import pandas as pd

from lungdet.evaluation.gathering.models import CONTROLS, Model
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured, judged_by
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import as_block, estimated
from lungdet.evaluation.statistics.metrics import STUDY, ensemble
from lungdet.page import sentences
from lungdet.page.document import Details, Table, items
from lungdet.page.wording import SHARES, figure, in_a_sentence, interval, label, metric_name, with_interval


def measure(study: Study) -> dict:
    """For each pair of models: metrics of the mean of both, of each one's own two-seed mean, and the differences.

    Seed by seed both models are averaged, and each seed with the next of its own model. These means share networks, so
    their spread over seeds says nothing; intervals and p-values are about the choice of test patients only. Controls
    are combined with nothing.
    """
    combinations = []
    for first, second in [pair for pair in study.pairs if pair[0].role not in CONTROLS]:
        by_seed = [{replicate.seed: replicate.test for replicate in study.models[name]} for name in (first, second)]
        shared = [seed for seed in by_seed[0] if seed in by_seed[1]]
        if not shared:
            continue
        of_first, of_second = ([tables[seed] for seed in shared] for tables in by_seed)
        labels = study.labels
        members = {f"{a} + {b}": (a, b) for a, b in ((first, second), (first, first), (second, second))}
        rows = {f"{first} + {second}": [_mean(a, b, labels) for a, b in zip(of_first, of_second, strict=True)]}
        for name, tables in ((first, of_first), (second, of_second)):
            if len(tables) > 1:
                together = zip(tables, [*tables[1:], tables[0]][: len(tables) if len(tables) > 2 else 1], strict=False)
                rows[f"{name} + {name}"] = [_mean(a, b, labels) for a, b in together]
        estimates = {name: _patients_only(estimated(tables, labels, study.draws)) for name, tables in rows.items()}
        of_both, *controls = rows
        blocks = {name: as_block(test=by_metric) for name, by_metric in estimates.items()}
        compared = paired.compared(estimates, rows, labels, [(control, of_both) for control in controls])
        combinations.append({"models": blocks, "comparisons": compared, "seeds": shared, "members": members})
    return {"combined": combinations}


def tell(summary: dict) -> list:
    """The table of combinations beside the single models, and the sentences."""
    combinations = summary["combined"]
    if not combinations:
        return []
    rows, quoted = [], []
    for combination in combinations:
        [of_both, *controls] = combination["models"]
        called = {mean: _called(*combination["members"][mean]) for mean in combination["models"]}
        for name in combination["members"][of_both]:
            rows.append([label(name), *[with_interval(summary["models"][name], "test", m) for m in STUDY]])
        rows += [
            [_capitalised(called[mean]), *[with_interval(block, "test", metric) for metric in STUDY]]
            for mean, block in combination["models"].items()
        ]
        measure = judged_by(summary)[0]
        if not controls:
            block = combination["models"][of_both]
            value, ends = (block[key][measure] for key in ("test", "test_interval"))
            unit = " %" if measure in SHARES and value is not None else ""
            reached = f"{in_a_sentence(measure)} {figure(measure, value)}{unit}, {interval(ends, measure, figure)}"
            quoted.append(f"{_capitalised(called[of_both])}: {reached}.")
        quoted += [
            _capitalised(sentences.difference(comparison, measure, called=called.__getitem__))
            for comparison in combination["comparisons"]
        ]
    notes = [
        f"At threshold 0.5, probabilities averaged seed by seed, {_seeds(combinations)}; of one model each seed with "
        "the next. Intervals of combinations and what is said of them are about the choice of test patients only.",
    ]
    table = Table(["Model", *map(metric_name, STUDY)], rows, 1, notes)
    return [*items(quoted, "sentence"), Details("The means beside the single models", [table])]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """Whether two unlike networks are better than two alike, where no seed has a second to be averaged with."""
    if not summary["comparisons"] or any(combination["comparisons"] for combination in summary["combined"]):
        return []
    question = "Whether the mean of two unlike networks is better than that of two alike"
    return [Unmeasured(question, "`python train.py -m model=cnn,cnn_lstm seed=0,1`")]


SECTION = Section("The mean of both models", "ensemble", measure=measure, tell=tell, unmeasured=unmeasured, claim=(27,))


def _seeds(combinations: Sequence[dict]) -> str:
    """The seeds that both models have."""
    texts = dict.fromkeys(", ".join(map(str, combination["seeds"])) for combination in combinations)
    return f"{'seeds' if any(len(c['seeds']) > 1 for c in combinations) else 'seed'} {' or '.join(texts)}"


def _called(first: Model, second: Model) -> str:
    """The mean of two models, or of two seeds of one, within a sentence."""
    return f"the mean of two {label(first)}s" if first == second else f"the mean of {label(first)} and {label(second)}"


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _mean(first: pd.DataFrame, second: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    names = [f"logit_{name}" for name in labels]
    return first.assign(**{name: ensemble(np.stack([first[name], second[name]])) for name in names})


def _patients_only(estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The means over seeds as one network's: their spread is not that of independent seeds."""
    return {
        name: estimate._replace(values=[fmean(estimate.values)], draws=estimate.draws.mean(axis=0, keepdims=True))
        for name, estimate in estimates.items()
    }
