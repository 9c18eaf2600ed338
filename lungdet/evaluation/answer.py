"""What the numbers allow one to say: the answer in a sentence, and the caveats that apply to it."""

import math
from itertools import pairwise

from lungdet.evaluation.wording import join, label, number, percent

SEEDS_NEEDED = 3
"""With fewer, the spread over seeds cannot be told from a difference between models."""

STUDY_DIFFERENCE = 0.016
"""What the study found between its two models, in accuracy."""


def answer(summary: dict) -> str:
    """One or two sentences: who is ahead by how much, whether that shows anything, and against which trivial answer."""
    test, models = summary["data"]["test"], summary["models"]
    accuracy = {name: block["test"]["accuracy"] for name, block in models.items()}
    external = summary["data"]["external"]
    images = f"{'synthetic ' if summary['data']['synthetic'] else ''}{'image' if external else 'test image'}"
    other = f" of other data, {external}" if external else ""
    where = f"On {number(test['images'], images)} of {number(test['patients'], 'patient')}{other} ({_seeds(summary)})"
    if None in accuracy.values():
        reasons = {r for block in models.values() for r in block["undefined"].get("test", {}).values()}
        return f"{where} no accuracy is defined: {'; '.join(sorted(reasons))}."
    first, *others = models
    if not others:
        said = f"{where} {label(first)}'s accuracy is {percent(accuracy[first])}; no other model is here to compare."
    elif len(others) == 1:
        gap = _gap(accuracy[others[0]] - accuracy[first])
        said = f"{where} {label(others[0])}'s accuracy is {gap} {label(first)}'s; {_verdict(summary)}."
    else:
        gaps = [f"that of {label(name)} {_gap(accuracy[name] - accuracy[first])} it" for name in others]
        said = f"{where} {label(first)}'s accuracy is {percent(accuracy[first])}, {join(gaps)}; {_verdict(summary)}."
    trivial, name = max((block["test"]["accuracy"], name) for name, block in summary["baselines"].items())
    beaten = [model for model in models if accuracy[model] > trivial]
    constant = f"{name.replace('_', '-')}, which reads no image, has {percent(trivial)}"
    if len(beaten) == len(models):
        return f"{said} {constant.capitalize()}."
    missed = [label(model) for model in models if model not in beaten]
    return f"{said} {join(missed)} {'does' if len(missed) == 1 else 'do'} not beat a trivial answer: {constant}."


def is_external(summary: dict) -> bool:
    """Whether other data was scored, none of it from a source that the runs learnt from."""
    return bool(summary["data"]["external"]) and not summary["data"]["known_sources"]


def caveats(summary: dict) -> list[str]:
    """Every caveat that applies to these runs, the heaviest first."""
    data, test = summary["data"], summary["data"]["test"]
    datasets = list(data["test_datasets"])
    sources = sorted({*datasets, *data.get("sources", {})})  # tested on, or learnt from
    found = []
    if data["synthetic"]:
        found.append("The images are synthetic phantoms: nothing here says how a model reads real radiographs.")
    if data["external"] and not is_external(summary):
        found.append(
            f"No external test: {join(data['known_sources'])} was learnt from too; these are images of patients that "
            "the runs had not seen."
        )
    if min(len(block["seeds"]) for block in summary["models"].values()) < SEEDS_NEEDED:
        found.append(
            f"{_seeds(summary).capitalize()} a model: with fewer than {SEEDS_NEEDED} seeds no claim about models can "
            "be made, only about these very runs. Train more: `python train.py -m model=cnn,cnn_lstm seed=0,1,2`."
        )
    if len({tuple(block["seeds"]) for block in summary["models"].values()}) > 1:
        counts = [f"{label(name)} {', '.join(map(str, block['seeds']))}" for name, block in summary["models"].items()]
        found.append(f"The models were not trained with the same seeds: {'; '.join(counts)}.")
    found.append(
        "No intervals are computed yet: the spread over seeds (±) says nothing about the choice of test patients, so "
        "no difference in these tables is shown to be one."
    )
    margin = _margin(summary)
    if margin is not None and margin > STUDY_DIFFERENCE:
        found.append(
            f"The test part is small: with {number(test['patients'], 'patient')} an accuracy is known to about "
            f"±{100 * margin:.0f} points (1.96 standard errors, a patient counted as one case), while the study's two "
            f"models lie {100 * STUDY_DIFFERENCE:.1f} points apart."
        )
    if "chestxray14" in sources:
        found.append(
            "ChestX-ray14's labels were mined from reports by text analysis, not read from the images: a part of "
            "them is wrong, wherever this source was learnt from or tested on."
        )
    if len(sources) > 1:
        found.append(
            f"`abnormal` does not mean the same in {join(sources)}: any of 14 mined tags in ChestX-ray14, "
            "tuberculosis in Montgomery and Shenzhen. Read each dataset apart."
        )
        if len(datasets) > 1 and data["source_alone_auroc"] is not None:
            found.append(
                f"The source alone predicts the label with an AUROC of {data['source_alone_auroc']:.3f} (each image "
                "given its dataset's share of abnormal images): a model may gain as much by recognising the source."
            )
    found += [
        f"{dataset}: every labelled test image is {'abnormal' if counts['abnormal'] else 'normal'} "
        f"({counts['labelled']} images), so metrics that need both are undefined there."
        for dataset, counts in data["test_datasets"].items()
        if counts["labelled"] and counts["abnormal"] in (0, counts["labelled"])
    ]
    found += _about_parts(summary)
    if summary["settings_that_differ"]:
        keys = [f"`{key}`" for key in summary["settings_that_differ"] if key != "model._target_"]
        if keys:
            found.append(f"The models differ in more than their class: {join(keys)}.")
    conditions = {(tuple(block["hardware"]), tuple(block["precision"])) for block in summary["models"].values()}
    if len(conditions) > 1 or any(len(part) > 1 for condition in conditions for part in condition):
        found.append("Not all runs used the same hardware and precision: their times and memory cannot be compared.")
    if summary["not_evaluated"]:
        found.append(
            f"{number(len(summary['not_evaluated']), 'run')} could not be evaluated (listed under Runs); every mean "
            "is over the rest."
        )
    return found


def _about_parts(summary: dict) -> list[str]:
    data, found = summary["data"], []
    unlabelled = data["test"]["images"] - data["test"]["labelled"]
    if unlabelled:
        found.append(f"{number(unlabelled, 'test image')} without a label count in no metric.")
    shares = [part["abnormal"] / part["labelled"] for part in (data["val"], data["test"]) if part["labelled"]]
    if any(abs(one - other) > 0.1 for one, other in pairwise(shares)):
        found.append(
            f"{percent(shares[0])} of the validation images are abnormal and {percent(shares[1])} of the test "
            "images: a threshold chosen on the one need not suit the other."
        )
    return found


def _verdict(summary: dict) -> str:
    seeds = min(len(block["seeds"]) for block in summary["models"].values())
    if seeds < SEEDS_NEEDED:
        return f"{'one seed' if seeds == 1 else f'{seeds} seeds'} and no interval: no difference is shown"
    return "without an interval no difference is shown"


def _margin(summary: dict) -> float | None:
    """1.96 standard errors of the accuracy nearest to .5, if each patient were one case."""
    values = [block["test"]["accuracy"] for block in summary["models"].values()]
    patients = summary["data"]["test"]["patients"]
    if None in values:
        return None
    # A run without an error on few patients is not certain either: one more error is always possible.
    spread = max(max(value * (1 - value), 1 / (patients + 1) * (1 - 1 / (patients + 1))) for value in values)
    return 1.96 * math.sqrt(spread / patients)


def _seeds(summary: dict) -> str:
    counts = [len(block["seeds"]) for block in summary["models"].values()]
    if len(set(counts)) == 1:
        return number(counts[0], "seed")
    return f"{join([str(count) for count in counts])} seeds"


def _gap(difference: float) -> str:
    points = round(100 * difference, 1)
    if points == 0:
        return "the same as"
    size = f"{abs(points):.1f} point{'' if abs(points) == 1 else 's'}"
    return f"{size} {'above' if points > 0 else 'below'}"
