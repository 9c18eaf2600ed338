"""By finding: the section of models that tell findings apart (`task=findings`)."""

from collections.abc import Sequence

from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.sections.contract import Section, Study
from lungdet.evaluation.statistics.measure import Cuts, scored
from lungdet.findings import TASKS
from lungdet.page.document import Details, Figure, Table, Text
from lungdet.page.marked import marked
from lungdet.page.sentences import undefined
from lungdet.page.wording import finding_name, join, label, metric_name, number, with_interval


def of_model(replicates: Sequence[Tested], cuts: Sequence[Cuts], thresholds: Sequence[dict], draws: int) -> dict:
    """A block like the model's own for each finding, with the thresholds that each run chose for it."""
    return {
        finding: scored([replicate.test for replicate in replicates], (finding,), cuts, draws).block
        | {"thresholds": [chosen[finding] for chosen in thresholds]}
        for finding in replicates[0].labels
    }


def tell(summary: dict) -> list:
    """Two tables by finding with its support, every model beside the others: without and with a threshold.

    Where no finding can be measured, a text that says why; nothing of models that call normal or abnormal.
    """
    if summary["task"] == "abnormal":
        return []
    first = next(iter(summary["models"].values()))
    if not _measured(first):
        return [Text(over(summary))]
    ranked = [
        "An image that shows the finding counts as abnormal, one that is known not to as normal. AUROC and average "
        "precision need no threshold; chance is 0.5 for the one and the share of abnormal images for the other."
    ]
    ranked += [f"Not measured: {join(names)}: {why}." for why, names in _by_reason(first["macro"]["left_out"]).items()]
    if {"nodule", "mass"} & set(_measured(first)):
        ranked.append("Nodule and mass are a proxy for cancer, not cancer.")
    called = ["Per cent, at the threshold that validation chose for the finding."]
    reasons = {
        reason
        for model in summary["models"].values()
        for finding in _measured(model)
        for name, reason in model["findings"][finding]["undefined"].get("at_validation_threshold", {}).items()
        if name in ("recall", "specificity")
    }
    called += undefined(dict.fromkeys(sorted(reasons)))
    return [
        Text(over(summary)),
        _table(summary, "test", ("auroc", "average_precision"), ranked),
        Details("At thresholds", [_table(summary, "at_validation_threshold", ("recall", "specificity"), called)]),
    ]


def measure(study: Study) -> dict:
    """What `of_model` finds, for every model that tells findings apart."""
    not_judged = [name for name in TASKS[study.task] if name not in study.labels]
    if study.task == "abnormal":
        return {"not_judged": not_judged}
    findings = study.of_each(
        "findings",
        lambda model: of_model(study.models[model], study.cuts[model], study.stored(model), study.draws),
    )
    return {"not_judged": not_judged} | findings


def caveats(summary: dict) -> list[str]:
    """What the runs predict and nobody is judged on."""
    if not summary["not_judged"]:
        return []
    names = join([finding_name(finding) for finding in summary["not_judged"]])
    return [f"By request (`labels`) nothing is measured of {names}, which the runs predict too, and no mean counts it."]


SECTION = Section(
    "Finding by finding",
    measure=measure,
    meanings={"not_judged": "findings that the runs predict and this evaluation was asked (`labels`) to leave out"},
    tell=tell,
    caveats=caveats,
    claim=(12, 38, 39),
)


def _table(summary: dict, key: str, metrics: Sequence[str], notes: list[str]) -> Table:
    models = summary["models"]
    first = next(iter(models.values()))
    columns = [f"{metric_name(metric)}, {label(model)}" for metric in metrics for model in models]
    rows = []
    for finding in _measured(first):
        blocks = [block["findings"][finding] for block in models.values()]
        support = f"{blocks[0]['abnormal']:,} / {blocks[0]['labelled']:,}"
        rows.append(
            [finding_name(finding), support, *[with_interval(block, key, name) for name in metrics for block in blocks]]
        )
    mean = [with_interval(block, key, name) for name in metrics for block in models.values()]
    rows.append([f"mean over {number(len(rows), 'finding')}", "", *mean])
    return Table(["Finding", "Abnormal / known", *columns], rows, 1, notes)


def _measured(model: dict) -> list[str]:
    """The findings that have both classes among the test images."""
    return [finding for finding in model["findings"] if finding not in model["macro"]["left_out"]]


def over(summary: dict) -> str:
    """A sentence on what the means are over."""
    counted = next(iter(summary["models"].values()))["macro"]
    if not counted["findings"]:
        remark = "; ".join(f"{join(names)}: {reason}" for reason, names in _by_reason(counted["left_out"]).items())
        return f"No finding can be measured, so there is no mean over findings: {remark}."
    judged = number(counted["of"], "finding")
    if summary["not_judged"]:
        judged = f"the {judged} that `labels` asks for"
    alike = "each counting alike however rare it is"
    if counted["left_out"]:
        return (
            f"Means are over {counted['findings']} of {judged}, {alike}; the others lack images with or without "
            "them in the test part and are left out."
        )
    return f"Means are over {'' if summary['not_judged'] else 'all '}{judged}, {alike}."


def pictures(summary: dict) -> list[Figure]:
    """AUROC by finding, a mark a model; no figure where no finding can be measured."""
    names = _measured(next(iter(summary["models"].values())))
    models = {
        label(model): {name.replace("_", " "): block["findings"][name] for name in names}
        for model, block in summary["models"].items()
    }
    return [marked("findings", "AUROC by finding", models, "With 95 % intervals. Dotted: chance.")] if names else []


def _by_reason(left_out: dict[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for finding, reason in left_out.items():
        reasons.setdefault(reason, []).append(finding_name(finding))
    return reasons
