"""The model card: what whoever is handed a model has to know of it, in the format that huggingface_hub reads.

One card for all models of an evaluation, since each is measured beside the others on the same images: a name in
`model-index` each, and one table. Of a single run by itself, on its own test part, the card lies in
the run's folder, too.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from lungdet.data.serving.views import ITSELF
from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.sections import data_and_split, shortcuts, subgroups
from lungdet.evaluation.sections.contract import Study, Unmeasured, without_peers
from lungdet.evaluation.statistics.metrics import STUDY
from lungdet.page.document import Block, Columns, Details, Document, Figure, Items, Pictures, Section, Table, Text
from lungdet.page.markdown import markdown
from lungdet.page.wording import figure, interval, join, label, metric_name, optional

NAME = "MODEL_CARD.md"
TYPES = {"auroc": "roc_auc"}
"""What a metric is called in `model-index`, where that is not its own name."""
INTENDED = (
    "Research on chest radiographs: comparing networks, protocols and data, and repeating what is stated here.",
    "Finding out, on labelled images of one's own, how far these numbers hold there.",
)
NOT_INTENDED = (
    "This is no medical device. It is not to be used for diagnosis, triage, screening or any decision about a patient, "
    "and no number in this card says that it could be.",
    "Images of other views, ages, machines or hospitals than those tested here: nothing is known of them.",
    "A low probability does not mean that an image is normal: the model knows its labels and nothing else.",
)
READS = {
    "rows": "the feature map row by row",
    "columns": "the feature map column by column",
    "patches": "the feature map cell by cell",
    "visits": "a patient's images in time order",
}


def card(written: Document, summary: dict) -> str:
    """The card as a text: a head that programs read, then sections of the report.

    Args:
        written: the report.
        summary: its numbers.
    """
    head = yaml.safe_dump(_head(without_peers(summary)), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{markdown(_body(written, summary))}"


def places(study: Study) -> list[Path]:
    """The folders that hold the card: the report's; of a single run, judged whole on its own test part, its own too."""
    alone = len(study.results) == len(study.models) == 1 and study.external is None
    single = alone and study.results[0].views == (ITSELF,) and study.results[0].judged is None
    return [study.out, *([study.results[0].run.folder] if single else [])]


def _head(summary: dict) -> dict:
    """What the format's front matter says. Whose the weights are, and so their licence, is not known here."""
    return {
        "license": "unknown",
        "library_name": "lungdet",
        "pipeline_tag": "image-classification",
        "tags": ["chest-radiograph", "research", "not-a-medical-device"],
        "model-index": [
            {"name": label(model), "results": [_result(summary, block)]} for model, block in summary["models"].items()
        ],
    }


def _result(summary: dict, block: dict) -> dict:
    data = summary["data"]
    tested = data["external"] or "+".join(data["test_datasets"])
    measured = [metric for metric in STUDY if block["test"][metric] is not None]
    task = "normal or abnormal" if summary["task"] == "abnormal" else "findings, mean over them"
    return {
        "task": {"type": "image-classification", "name": f"Chest radiographs, {task}"},
        "dataset": {"type": tested, "name": tested, "split": "other data" if data["external"] else "test"},
        "metrics": [
            {
                "type": TYPES.get(metric, metric),
                "name": f"{metric_name(metric)} ({interval(block['test_interval'][metric], metric, figure)})",
                "value": round(block["test"][metric], 6),
            }
            for metric in measured
        ],
    }


def _body(written: Document, summary: dict) -> Document:
    by_anchor = {section.anchor or section.title: section for section in written.sections}
    results = by_anchor["results"]

    def of_report(title: str, reasons: Sequence[Unmeasured] = ()) -> list[Block]:
        if title in by_anchor:
            return _without_pictures(by_anchor[title].blocks)
        return [Text(f"{question}: not measured, {remedy}.") for question, remedy in reasons] or [Text("Not measured.")]

    sections = [
        Section("Intended use", [Items([*INTENDED])]),
        Section("Not intended: no medical device", [Items([*NOT_INTENDED])]),
        Section("Models", [_models(without_peers(summary))]),
        Section(results.title, _without_pictures(results.blocks), "results"),
        Section("Data and split", of_report(data_and_split.SECTION.title)),
        Section("Subgroups", of_report(subgroups.SECTION.title, subgroups.unmeasured(summary))),
        Section("Shortcuts", of_report(shortcuts.SECTION.title, shortcuts.unmeasured(without_peers(summary)))),
        Section("Limits", [Items(caveats(summary))]),
    ]
    return Document(f"Model card: {written.title}", written.answer, sections, opening=-1)


def _models(summary: dict) -> Table:
    rows = [
        [
            label(model),
            f"`{block['model']}`",
            READS.get(block["settings"]["sequence"], "") if block["settings"]["role"] != "cnn" else "the whole image",
            join([str(seed) for seed in block["seeds"]]),
            optional(block["parameters"], "{:,.0f}"),
        ]
        for model, block in summary["models"].items()
    ]
    return Table(["Model", "Class", "Reads", "Seeds", "Parameters"], rows, 4)


def _without_pictures(blocks: Sequence[Block]) -> list[Block]:
    """What stands in words and tables, unfolded: a card is a file by itself."""
    written: list[Block] = []
    for block in blocks:
        if isinstance(block, Columns):
            written += _without_pictures([inner for column in block.columns for inner in column])
        elif isinstance(block, Details):
            written += [Text(f"{block.summary}:"), *_without_pictures(block.blocks)]
        elif not isinstance(block, Figure | Pictures):
            written.append(block)
    return written
