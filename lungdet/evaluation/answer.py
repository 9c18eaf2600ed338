"""What the numbers allow one to say: the answer in a sentence or two."""

from lungdet.evaluation.sections import SECTIONS, by_part, choice
from lungdet.evaluation.sections.contract import judged_by, thresholds_of, without_peers
from lungdet.page import sentences
from lungdet.page.wording import figure, in_a_sentence, interval, join, label, number, percent

CALLED = ("recall", "specificity")
"""What a rule for thresholds weighs against each other."""
MOST_QUOTED = 3
"""So many comparisons are quoted in the answer; of more it says how many there are."""
MOST_NAMED = 4
"""So many models are named in it, likewise."""


def answer(summary: dict) -> str:
    """Who is ahead by how much, whether that shows anything, against which trivial answer, and is it the recurrence."""
    verdicts = [verdict for section in SECTIONS for verdict in section.verdicts(summary)]
    summary = choice.without_controls(summary)
    test, models = summary["data"]["test"], summary["models"]
    measure = judged_by(summary)[0]
    reached = {name: block["test"][measure] for name, block in models.items()}
    external = summary["data"]["external"]
    images = f"{'synthetic ' if summary['data']['synthetic'] else ''}{'image' if external else 'test image'}"
    patients = f" of {number(test['patients'], 'patient')}" if summary["data"]["patients_known"] else ""
    data = f" of other data, {external}" if external else by_part.tested(summary)
    scope = f"On {number(test['images'], images)}{patients}{data} ({seeds(without_peers(summary))})"
    if None in reached.values():
        reasons = {r for block in models.values() for r in block["undefined"].get("test", {}).values()}
        return f"{scope} no {in_a_sentence(measure)} is defined: {'; '.join(sorted(reasons))}."
    sentence = f"{scope} {_compared(summary, measure, reached)}"
    sentence += f" {_against_trivial(summary, reached)}" if measure == "accuracy" else " Chance has 0.500."
    sentence += _as_asked(summary)
    return " ".join([sentence, *verdicts])


def _compared(summary: dict, measure: str, reached: dict[str, float]) -> str:
    """The models' numbers beside each other, and what they show."""
    counted = next(iter(summary["models"].values())).get("macro", {}).get("findings")
    noun = "accuracy" if measure == "accuracy" else f"mean AUROC over {number(counted, 'finding')}"
    noun += " judged here" if summary["not_judged"] and measure != "accuracy" else ""
    noun += " at threshold 0.5" if summary["threshold"]["asked"] and measure == "accuracy" else ""
    unit = " %" if measure == "accuracy" else ""
    values = [f"{figure(measure, value)}{unit} for {label(name)}" for name, value in reached.items()]
    comparisons = summary["comparisons"]
    if not comparisons:
        [[name, value]] = reached.items()
        ends = next(iter(summary["models"].values()))["test_interval"][measure]
        sentence = f"{label(name)}'s {noun} is {figure(measure, value)}{unit} ({interval(ends, measure, figure)})"
        return f"{sentence}; no other model is here to compare."
    if len(comparisons) == 1:
        return f"{noun} is {join(values)}: {sentences.difference(comparisons[0], measure)}"
    differing = [comparison for comparison in comparisons if sentences.significant(comparison, measure)]
    verdict = f"a difference in {noun} is shown in {len(differing)} of {len(comparisons)} comparisons"
    if len(differing) > MOST_QUOTED or not differing:
        return f"{verdict}." if differing else f"no difference in {noun} is shown in {len(comparisons)} comparisons."
    return f"{verdict}: {' '.join(sentences.difference(comparison, measure) for comparison in differing)}"


def _as_asked(summary: dict) -> str:
    """What models reach at the threshold of the rule that was asked for; empty where none was."""
    if not summary["threshold"]["asked"]:
        return ""
    key, at = next(iter(thresholds_of(summary).items()))
    reached = []
    if len(summary["models"]) > MOST_NAMED:  # the table beside it says it
        return ""
    for model, block in summary["models"].items():
        values = {metric: block[key][metric] for metric in CALLED}
        if {*values.values()} == {None}:
            lacking = (
                "has no such threshold" if "peer" in block else f"has no {join([*CALLED], 'and no')} defined there"
            )
            reached.append(f"{label(model)} {lacking}")
            continue
        shares = [f"{m} {'undefined' if share is None else percent(share)}" for m, share in values.items()]
        reached.append(f"{label(model)} {join(shares)}")
    return f" At {at}: {'; '.join(reached)}."


def _against_trivial(summary: dict, accuracy: dict[str, float]) -> str:
    trivial, name = max(
        (summary["baselines"][name]["test"]["accuracy"], name) for name in ("always_abnormal", "always_normal")
    )
    missed = [label(model) for model, value in accuracy.items() if value <= trivial]
    constant = f"{name.replace('_', '-')}, which reads no image, has {percent(trivial)}"
    if not missed:
        return f"{constant.capitalize()}."
    if len(missed) == len(accuracy) > MOST_NAMED:
        return f"None of the {len(missed)} models beats a trivial answer: {constant}."
    subject = join(missed) if len(missed) <= MOST_NAMED else f"{len(missed)} of {len(accuracy)} models"
    return f"{subject} {'does' if len(missed) == 1 else 'do'} not beat a trivial answer: {constant}."


def seeds(summary: dict) -> str:
    """How many seeds the models have."""
    counts = [len(block["seeds"]) for block in summary["models"].values()]
    if len(set(counts)) == 1:
        return number(counts[0], "seed")
    return f"{join([str(count) for count in counts])} seeds"
