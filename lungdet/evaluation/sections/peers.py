"""Other systems: whose predictions of the same images stand beside the runs', how they were read, what nobody knows."""

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.sections.contract import Section, Study, judged_by
from lungdet.evaluation.statistics.metrics import CERTAIN
from lungdet.page import sentences
from lungdet.page.document import Details, Table, Text
from lungdet.page.wording import finding_name, join, label, number


def measure(study: Study) -> dict:
    """Each peer's file and how it was read, in the place of what is known of runs."""
    models = {}
    for model, replicates in study.models.items():
        if not replicates[0].results:
            [peer] = replicates
            facts = peer.facts._asdict() | {"file": study.relative(peer.path)}
            models[model] = {"settings": {}, "seeds": [], "runs": [], "peer": facts}
    return {"models": models}


def tell(summary: dict) -> list:
    """Which file each system's predictions are from, which column, how images were told; nothing without one."""
    peers = _peers(summary)
    if not peers:
        return []
    rows = [
        [
            label(model),
            f"`{facts['file']}`",
            _columns(facts["columns"]),
            facts["by"],
            f"{facts['rows']:,}",
            f"{facts['others']:,}",
        ]
        for model, facts in peers.items()
    ]
    notes = ["Rows of images that were not tested here are not read."]
    if any(facts["certain"] or facts["decisions"] for facts in peers.values()):
        notes.append(
            f"A probability of exactly 0 or 1 has no log-odds; {-CERTAIN:.0f} and {CERTAIN:.0f} are taken, so that the "
            f"log loss of a mistake among them is {CERTAIN:.0f} nats and not infinite."
        )
    for model, facts in peers.items():
        reasons = {False: "of which these images tell nothing either", True: "which nobody is judged on"}
        for beyond, reason in reasons.items():
            names = [finding_name(name) for name in facts["lacking"] if (name in summary["not_judged"]) is beyond]
            if names:
                notes.append(f"{label(model)} says nothing of {join(names)}, {reason}.")
    table = Table(["System", "File", "Column", "Images told", "Rows", "Not tested"], rows, 4, notes)
    text = (
        f"{join([label(model) for model in peers])} {'is' if len(peers) == 1 else 'are'} judged by predictions of the "
        "runs' own test images, against the runs' labels, by the same metrics, on the same redrawn patients. What "
        "validation, training or several seeds would tell is not known and stands nowhere in this report."
    )
    return [Text(text), Details("How the predictions were read", [table])]


def caveats(summary: dict) -> list[str]:
    """What nobody knows of the systems, and what decisions or certain probabilities make of metrics."""
    peers = _peers(summary)
    if not peers:
        return []
    names = join([label(model) for model in peers])
    rule = summary["threshold"]["rule"]
    at = (
        "0.5, or at the threshold that was given"
        if rule == "fixed"
        else "0.5 (or at one that `threshold.rule=fixed` gives)"
    )
    doubts = [
        f"Whether {names} had learnt from these test patients is not known: if so, that flatters. No threshold comes "
        f"from validation: accuracy, recall and the like are at {at}."
    ]
    for model, facts in peers.items():
        if facts["decisions"]:
            of = "" if summary["task"] == "abnormal" else f" of {join([finding_name(f) for f in facts['decisions']])}"
            doubts.append(
                f"{label(model)} gives decisions (0 or 1) and no probabilities{of}: its AUROC is that of a single "
                "operating point, the mean of its recall and specificity; log loss and calibration say little of it."
            )
        if facts["certain"]:
            count = sum(facts["certain"].values())
            doubts.append(
                f"Of {label(model)} {number(count, 'value')} {'is' if count == 1 else 'are'} exactly 0 or 1: its log "
                "loss rests on how these are taken ([how](#other-systems))."
            )
    return doubts


def verdicts(summary: dict) -> list[str]:
    """Beside a difference that is claimed: that a system may have learnt from the patients tested."""
    measure, peers = judged_by(summary)[0], _peers(summary)
    claimed = [comparison for comparison in summary["comparisons"] if sentences.significant(comparison, measure)]
    named = [model for model in peers if any(model in (pair["first"], pair["second"]) for pair in claimed)]
    if not named:
        return []
    return [f"Whether {join([label(model) for model in named])} had learnt from these test patients is not known."]


SECTION = Section(
    "Other systems",
    measure=measure,
    meanings={
        "peer": "another system, by predictions of the test images alone: its file, how many `rows` it has and how "
        "many are of `others` than the tested images, `by` what images were told, the `columns` read; `decisions`: "
        "labels of which it has 0 and 1 alone; `certain`: how many other probabilities are exactly 0 or 1"
    },
    tell=tell,
    caveats=caveats,
    verdicts=verdicts,
    claim=(37,),
)


def _peers(summary: dict) -> dict[Model, dict]:
    return {model: block["peer"] for model, block in summary["models"].items() if "peer" in block}


def _columns(columns: dict[str, str]) -> str:
    """One column as it is called; of several the first, and how many there are."""
    first, *further = columns.values()
    return f"`{first}`" + (f" and {len(further)} more" if further else "")
