"""Explanations: whether heat maps point at disease, beside maps that know nothing of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lungdet.errors import InputError
from lungdet.evaluation.explanations import pointing
from lungdet.evaluation.explanations.explainer import Explainer
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.results import Result
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.bootstrap import FEWER
from lungdet.evaluation.statistics.estimates import minus
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.localisation import MEASURES, estimate
from lungdet.evaluation.statistics.measure import as_block
from lungdet.page.document import Details, Table, Text, items
from lungdet.page.sentences import SIGNIFICANT
from lungdet.page.wording import METHODS, interval, label, number, p_value, percent, signed, with_interval

COLUMNS = {"pointing": "Hottest place inside", "energy": "Heat inside", "overlap": "Overlap", "lungs": "Heat in lungs"}
WITHOUT_NETWORK = {
    "random": "smooth noise",
    "centre": "the image's centre",
    "usual": "the usual place, of other patients",
}

MEANINGS = {
    "over_centre": "a method's map minus the centre's, on the same images; p_holm is over models and methods",
}
NOTES = [
    "A region is the publisher's box or, of phantoms, the true mask of what is drawn; with task=abnormal all of an "
    "image's regions are one. All test images with a region count, those that a network calls normal, too. Hottest "
    "place inside: the pointing game; heat inside: the share of all heat; overlap: intersection over union of the "
    "region and as many of the hottest pixels as it has. A map that is the same everywhere gets the region's "
    "share of the image.",
    "A map of a network with random weights shows what the method makes of any network; one that points as well "
    "says nothing of what was learnt. Noise is drawn by the image's name; the centre is a hill in the middle; the "
    "usual place is the mean region of the other patients, which no network had to find. p is adjusted for all "
    "models and methods.",
]


def measure(study: Study) -> dict:
    """How well each method's maps point at known regions, for every model and for maps that know nothing.

    Returns:
        `explanations`, None where it was not asked for: `images`, `patients`, `regions`, `maps` (those of no network),
        and `reasons`, why models are not measured; and each model's `explanations`, by map `test` with intervals and
        `over_centre`.
    """
    if study.explainer is None:
        return {"explanations": None}
    facts: dict = {"methods": [*study.explainer.methods], "maps": {}, "reasons": {}}
    blocks, differences, draws = {}, [], min(study.draws, FEWER)
    for model, replicates in study.models.items():
        try:
            table = _measured(study, replicates)
        except InputError as error:
            facts["reasons"][model] = str(error)
            continue
        if table is None:
            facts["reasons"][model] = "of none of the test images is it known where disease is"
            continue
        first = table[(table["seed"] == replicates[0].seed) & (table["map"] == "centre")]
        facts |= {
            "images": int(first["image_id"].nunique()),
            "patients": int(first["patient_id"].nunique()),
            "regions": len(first),
        }
        estimates = {name: _estimates(rows, draws) for name, rows in table.groupby("map")}
        facts["maps"] = {name: as_block(test=estimates[name]) for name in pointing.KNOWS_NOTHING}
        blocks[model] = {}
        for name in sorted(estimates.keys() - facts["maps"].keys()):
            over = {key: minus(value, estimates["centre"][key]) for key, value in estimates[name].items()}
            blocks[model][name] = as_block(test=estimates[name], over_centre=over)
            if name in study.explainer.methods:
                comparison = paired.from_zero({"pointing": over["pointing"]})
                blocks[model][name]["pointing_over_centre"] = comparison["metrics"]["pointing"]
                differences.append(comparison)
    paired.adjust(differences)
    return {"explanations": facts, "models": {model: {"explanations": blocks.get(model)} for model in study.models}}


def tell(summary: dict) -> list:
    """Whether each model's maps point at disease better than the centre does, and how all maps fare."""
    facts = summary["explanations"]
    if facts is None:
        return []
    lines = [Text(f"{label(model)} is not measured: {reason}.") for model, reason in facts["reasons"].items()]
    models = {model: block["explanations"] for model, block in summary["models"].items() if block["explanations"]}
    if not models:
        return lines
    known = [measure for measure in COLUMNS if measure in facts["maps"]["centre"]["test"]]
    sentences = [
        _sentence(label(model), method, maps, facts) for model, maps in models.items() for method in facts["methods"]
    ]
    measured = {
        f"{label(model)}: {METHODS[method]}{words}": maps[f"{method}{key}"]
        for model, maps in models.items()
        for method in facts["methods"]
        for key, words in (("", ""), (" random weights", ", random weights"))
    }
    measured |= {words: facts["maps"][name] for name, words in WITHOUT_NETWORK.items()}
    rows = [[name, *[with_interval(block, "test", key) for key in known]] for name, block in measured.items()]
    table = Table(["Map", *[COLUMNS[measure] for measure in known]], rows, 1, [_how_many(facts)])
    return [
        *lines,
        *items(sentences, "method"),
        table,
        Details("How maps were measured", [*map(Text, NOTES)]),
    ]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """Whether maps point at disease."""
    if summary["explanations"] is not None or summary["data"]["external"]:
        return []
    command = "`python evaluate.py runs=FOLDER explain=gradcam`"
    return [
        Unmeasured("Whether heat maps of the networks point at disease better than the image's centre does", command)
    ]


SECTION = Section(
    "Where the networks look",
    "explanations",
    measure=measure,
    meanings=MEANINGS,
    tell=tell,
    unmeasured=unmeasured,
    claim=(31,),
)


def _measured(study: Study, replicates: Sequence[Replicate]) -> pd.DataFrame | None:
    """What `pointing.measured` finds under every seed; None where no region is known."""
    tables = []
    for replicate in replicates:
        of_runs = [_of_run(study.explainer, result, replicate.labels) for result in replicate.results]
        tables += [table.assign(seed=replicate.seed) for table in of_runs if table is not None]
    return pd.concat(tables, ignore_index=True) if tables else None


def _of_run(explainer: Explainer, result: Result, labels: Sequence[str]) -> pd.DataFrame | None:
    with explainer.opened(result.run) as opened:
        targets = pointing.regions(opened, result.test, labels)
        return pointing.measured(opened, explainer.methods, targets, result.test) if targets else None


def _estimates(rows: pd.DataFrame, draws: int) -> dict[str, Estimate]:
    """Each measure that is known of every image, over images and seeds."""
    rows = rows.sort_values(["seed", "image_id", "label"])
    seeds = rows["seed"].nunique()
    patient = pd.factorize(rows["patient_id"])[0].reshape(seeds, -1)[0]
    values = {name: rows[name].to_numpy(np.float64).reshape(seeds, -1) for name in MEASURES}
    return {name: estimate(value, patient, draws) for name, value in values.items() if not np.isnan(value).any()}


def _sentence(model: str, method: str, maps: Mapping[str, dict], facts: dict) -> str:
    """Whether the map points at disease better than the centre does, and what one of random weights does."""
    block, name = maps[method], METHODS[method]
    gap, ends = block["over_centre"]["pointing"], block["over_centre_interval"]["pointing"]
    p = block["pointing_over_centre"]["p_holm"]
    verdict = "is not shown to point at disease better than the image's centre does"
    if p is not None and p < SIGNIFICANT:
        verdict = f"points at disease {'better' if gap > 0 else 'worse'} than the image's centre does"
    random, centre, usual = (
        percent(test["pointing"])
        for test in (maps[f"{method} random weights"]["test"], *(facts["maps"][m]["test"] for m in ("centre", "usual")))
    )
    hits = f"{percent(block['test']['pointing'])} of cases, the centre in {centre}"
    difference = f"a difference of {signed('pointing', gap)} points, {interval(ends, 'pointing', signed)}"
    difference += "" if p is None else f", adjusted p {p_value(p)}"
    return (
        f"{model}'s {name} {verdict}: its hottest place lies in a known region in {hits}, {difference}. The same "
        f"network with random weights: {random}; the place where other patients' regions lie: {usual}."
    )


def _how_many(facts: dict) -> str:
    return (
        f"In per cent, with 95 % intervals over patients: {number(facts['regions'], 'region')} in "
        f"{number(facts['images'], 'image')} of {number(facts['patients'], 'patient')}."
    )
