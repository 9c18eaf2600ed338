"""Shortcuts: what the label can be guessed from without reading the lungs, set beside what the models reach.

They are the runs' own (`lungdet.training.shortcuts`): logistic regressions fitted on the same training part and tested
on the same images.
"""

from collections.abc import Sequence

from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections.contract import Section, Unmeasured
from lungdet.evaluation.statistics.measure import measured, over
from lungdet.page.document import Details, Table
from lungdet.page.marked import marked
from lungdet.page.wording import figure, join, label, value

NEAR = 0.05
"""A shortcut whose AUROC is no further below a model's is named on the first screen."""
STRONG = 0.6
"""And so is one whose AUROC is above this."""
MOST_NAMED = 3
"""So many models are named, of more it says how many there are."""

MEANINGS = {
    "dataset": "the dataset it comes from",
    "view": "view (PA, AP)",
    "age": "age",
    "sex": "sex",
    "visits": "number of the patient's images",
    "visit": "number of the visit",
    "all": "all of these together",
    "thumbnail": "8 x 8 thumbnail",
    "border": "border alone (outer 8 %)",
}
"""What each shortcut knows of an image."""

_MEASURES = ("auroc", "accuracy")


def of_model(replicates: Sequence[Replicate]) -> dict | None:
    """AUROC and accuracy at 0.5 of each shortcut on the test images; None where the runs did not record them.

    Shortcuts draw nothing at random, so every seed has the same; the first one's are taken.
    """
    table = replicates[0].shortcuts
    if table is None:
        return None
    blocks = {}
    for name, rows in table.groupby("shortcut", sort=False):
        mean, _, reasons = over([measured(rows, replicates[0].labels, names=_MEASURES)])
        blocks[name] = {"test": mean, "undefined": {"test": reasons} if reasons else {}}
    return blocks


def tell(summary: dict) -> list:
    """Shortcuts and models beside each other, the table folded; nothing where none were recorded."""
    recorded = {model: block["shortcuts"] for model, block in summary["models"].items() if block["shortcuts"]}
    if summary["data"]["external"] or not recorded:
        return []
    alike = all(block == next(iter(recorded.values())) for block in recorded.values())
    guessed = {}
    for model, block in list(recorded.items())[: 1 if alike else None]:
        scope = "" if alike else f", for {label(model)}"
        guessed |= {f"{MEANINGS.get(name, name)}{scope}": shortcut for name, shortcut in block.items()}
    models = {label(model): block for model, block in summary["models"].items()}
    rows = [[name, *[value(block, "test", metric) for metric in _MEASURES]] for name, block in guessed.items()]
    rows += [
        [f"{name}, which reads the image", *[value(block, "test", metric) for metric in _MEASURES]]
        for name, block in models.items()
    ]
    mean = "" if summary["task"] == "abnormal" else " Means over the findings that the models' means are over."
    notes = [
        "Each guess is a logistic regression on these numbers alone, fitted on the training images of the same split; "
        f"accuracy (per cent) at threshold 0.5.{mean} What the training images have in common (one source, single "
        "visits) can't be guessed from and is not listed."
    ]
    if missing := [name for name, model in zip(models, summary["models"], strict=True) if model not in recorded]:
        notes.append(f"Not recorded by the runs of {join(missing)}.")
    table = Table(["Guessed from", "AUROC", "Accuracy"], rows, 1, notes)
    caption = "Models with 95 % intervals. Dotted: chance. A guess as good may be all that a model has learnt."
    picture = marked("shortcuts", "AUROC of shortcuts and models", {"": guessed | models}, caption)
    return [picture, Details("The table, with accuracy", [table])]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """What the label can be guessed from: fitted and tested with a run, on its own split."""
    if summary["data"]["external"]:
        reason = "shortcuts are fitted and tested with a run, on its own split"
    elif any(block["shortcuts"] for block in summary["models"].values()):
        return []
    else:
        reason = "the runs recorded none"
    return [Unmeasured("What the label can be guessed from without the lungs", reason)]


def caveats(summary: dict) -> list[str]:
    """The shortcuts that come near a model or are strong by themselves, the strongest first."""
    reached = {model: block["test"]["auroc"] for model, block in summary["models"].items()}
    strongest: dict[str, float] = {}
    near: list[str] = []
    for model, block in summary["models"].items():
        for name, shortcut in (block["shortcuts"] or {}).items():
            area = shortcut["test"]["auroc"]
            if area is None or area <= 0.5:  # tells nothing
                continue
            close = reached[model] is not None and area >= reached[model] - NEAR
            if close and model not in near:
                near.append(model)
            if close or area > STRONG:
                strongest[name] = max(area, strongest.get(name, 0))
    if not strongest:
        return []
    ordered = sorted(strongest.items(), key=lambda item: -item[1])
    named = [f"{MEANINGS.get(name, name)} {figure('auroc', area)}" for name, area in ordered[:3]]
    further = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    areas = {label(model): area for model, area in reached.items() if area is not None}
    models = [f"{name} {figure('auroc', area)}" for name, area in areas.items()]
    if len(models) > MOST_NAMED:
        ends = " to ".join(figure("auroc", end) for end in (min(areas.values()), max(areas.values())))
        models = [f"{len(models)} models {ends}"]
    text = (
        "The label can be guessed without reading the lungs (AUROC): "
        f"{', '.join(named)}{further}; for comparison {join(models) if models else 'no model has one'}."
    )
    if near:
        named = join([label(model) for model in near])
        subject = named if len(near) <= MOST_NAMED else f"{len(near)} of {len(reached)} models"
        text += f" {subject} may have learnt no more than such a shortcut."
    return [text]


SECTION = Section(
    "What the label can be guessed from without reading the lungs",
    measure=lambda study: study.of_each("shortcuts", lambda model: of_model(study.models[model])),
    meanings={
        "shortcuts": "what is reached without reading the lungs, fitted and tested on the same images; null: "
        "not recorded"
    },
    tell=tell,
    caveats=caveats,
    unmeasured=unmeasured,
    claim=(30,),
)
