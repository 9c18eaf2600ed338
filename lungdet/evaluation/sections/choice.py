"""Choice: which model for which amount of data, latency and kind of image, as the measurements say, or that they don't.

The rule: where a difference is shown, the better model; where none is shown, the cheaper one, and the sentence says so.
Each section speaks for itself (`Section.advice`); the words they share stand here.
"""

from collections.abc import Callable, Sequence

from lungdet.evaluation.gathering.models import CONTROLS
from lungdet.evaluation.sections.contract import Section, narrowed, without_peers
from lungdet.page import sentences
from lungdet.page.document import Table
from lungdet.page.wording import in_a_sentence, join, label

RULE = "Where no difference is shown the cheaper model is advised, for that reason alone: none shown is not none."
NOT_MEASURED = "not measured"
MOST_QUOTED = 3
"""So many comparisons are told one by one, whatever they show."""


def tell(summary: dict) -> list:
    """A table: the situation, what the measurements say, the section that this is based on.

    Args:
        summary: with `advice`, what every section says of the models that one would choose among.
    """
    comparisons = without_controls(summary)["comparisons"]
    if not comparisons or not summary["advice"]:
        return []
    return [Table(["Situation", "What the measurements say", "Based on"], summary["advice"], 3, [RULE])]


SECTION = Section("Which model when", "choice", tell=tell, claim=(41,))


def without_controls(summary: dict) -> dict:
    """The summary of the models that one would choose among, unless the runs are of controls alone."""
    models = {name for name, block in summary["models"].items() if block["settings"].get("role") not in CONTROLS}
    return narrowed(summary, models) if models & without_peers(summary)["models"].keys() else summary


def advised(
    summary: dict, comparisons: Sequence[dict], metrics: Sequence[str], called: Callable[[str], str] = label
) -> str:
    """Which model each of these comparisons speaks for, and why; or that there is none.

    Of many the ones that show nothing are counted.
    """
    quoted = [*comparisons]
    if len(comparisons) > MOST_QUOTED:
        quoted = [pair for pair in comparisons if any(sentences.significant(pair, metric) for metric in metrics)]
    clauses = [preferred(summary, comparison, metrics, called) for comparison in quoted]
    if without := len(comparisons) - len(quoted):
        names = join([in_a_sentence(metric) for metric in metrics], "or")
        clauses.append(
            f"the cheaper one in {without} of {len(comparisons)} comparisons, where no difference in {names} is shown"
        )
    return "; ".join(clauses) or NOT_MEASURED


def preferred(summary: dict, comparison: dict, metrics: Sequence[str], called: Callable[[str], str] = label) -> str:
    """Which of two models a comparison speaks for, and why."""
    names = join([in_a_sentence(metric) for metric in metrics], "or")
    first, second = called(comparison["first"]), called(comparison["second"])
    better = {
        metric: second if comparison["metrics"][metric]["difference"] > 0 else first
        for metric in metrics
        if sentences.significant(comparison, metric)
    }
    if len(set(better.values())) > 1:
        return "; ".join(f"{model} for {in_a_sentence(metric)}" for metric, model in better.items()) + ": each is shown"
    if better:
        metrics_shown = join([in_a_sentence(metric) for metric in better])
        return f"{next(iter(better.values()))}: its better {metrics_shown} is shown"
    return f"{cheaper(summary, comparison, called)}; between {first} and {second} no difference in {names} is shown"


def cheaper(summary: dict, comparison: dict, called: Callable[[str], str] = label) -> str:
    """The cheaper of two models and the reason: FLOPs, and where they are not measured or the same, parameters."""
    pair = (comparison["first"], comparison["second"])
    measured = (summary.get("efficiency") or {}).get("models", {})
    for form, scale, costs in (
        ("{:.4g} against {:.4g} billion FLOPs an image", 1e9, [measured.get(name, {}).get("flops") for name in pair]),
        ("{:,.0f} against {:,.0f} parameters", 1, [summary["models"][name]["parameters"] for name in pair]),
    ):
        if None in costs or costs[0] == costs[1]:
            continue
        sizes = form.format(*[cost / scale for cost in sorted(costs)])
        return f"{called(pair[costs.index(min(costs))])}, the cheaper one ({sizes})"
    return "either, as nothing measured tells which is cheaper"
