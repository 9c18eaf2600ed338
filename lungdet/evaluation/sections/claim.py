"""CLAIM: where this report answers the items of the checklist for AI in medical imaging, and what it leaves out.

Source: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update, Radiology:
Artificial Intelligence 2024;6(4):e240300. Items are in our own words.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from lungdet.page.document import Section, Table, Text, anchors, plain

TITLE = "Appendix: CLAIM 2024 checklist"
NOT_REPORTED = "not reported"


class Item(NamedTuple):
    """An item of the checklist.

    Attributes:
        asks: what it asks for.
        where: anchors of sections that answer it, `*` standing for any letters; those that a report has are linked.
        lacks: what even they leave to the authors, or all of it where there is none of them.
        unless: anchors or facts (see `_facts`) that make up for what is lacking.
        needs: a fact without which the sections do not answer it.
    """

    asks: str
    where: tuple[str, ...] = ()
    lacks: str = ""
    unless: tuple[str, ...] = ()
    needs: str = ""


def section(sections: Sequence[Section], summary: dict) -> Section:
    """The checklist as a table, each item with links to what is in `sections`, or `not reported`.

    Args:
        sections: the report's, in their order, without this one.
        summary: what they were made of.
    """
    present = dict(zip(anchors(sections), [plain(one.title) for one in sections], strict=True))
    facts = _facts(summary)
    rows, reported, whole = [], 0, 0
    for number, item in enumerate(ITEMS, start=1):
        links = _links(item, present) if not item.needs or item.needs in facts else []
        lacks = "" if links and _matching(item.unless, [*present, *facts]) else item.lacks
        reported += bool(links)
        whole += bool(links) and not lacks
        found = ", ".join(links) if links else NOT_REPORTED
        rest = f"; {'missing' if links else 'to add'}: {lacks}" if lacks else ""
        rows.append([str(number), item.asks, f"{found}{rest}."])
    return Section(
        TITLE,
        [
            Text(
                f"Of {len(ITEMS)} items {reported} lead to a section of this report, {reported - whole} of them with "
                f"something missing. The other {len(ITEMS) - reported} are not reported: the authors have to write "
                "them. A link says that there is something to read, not that it is enough."
            ),
            Table(
                ["No.", "What is asked for", "Where"],
                rows,
                3,
                [
                    "Items in our own words after Tejani et al., CLAIM: 2024 Update, Radiology: Artificial "
                    "Intelligence 2024;6(4):e240300, doi 10.1148/ryai.240300. Approval by an ethics committee is not "
                    "reported either."
                ],
            ),
        ],
    )


def _links(item: Item, present: Mapping[str, str]) -> list[str]:
    titles = {anchor: title.translate({ord("["): "(", ord("]"): ")"}) for anchor, title in present.items()}
    return [f"[{titles[anchor]}](#{anchor})" for anchor in _matching(item.where, present)]


def _matching(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    found = [name for pattern in patterns for name in names if fnmatchcase(name, pattern)]
    return list(dict.fromkeys(found))


def _facts(summary: dict) -> set[str]:
    """What these runs have, whatever the sections are called.

    `labels`: the caveats say how labels came about, or what they mean in several sources; `patients`: something says
    whose an image is; `intervals`: of the test part; `same source` and `other source`: where the test images come from,
    as seen from what was learnt from.
    """
    data = summary["data"]
    sources = {*data["test_datasets"], *data["learnt_from"]}
    has = {
        "labels": "chestxray14" in sources or len(sources) > 1,
        "patients": summary["data"]["patients_known"],
        "intervals": any(any(block.get("test_interval", {}).values()) for block in summary["models"].values()),
        "same source": bool(data["known_sources"]),
        "other source": bool(data["new_sources"]) and not data["unsearched"],
    }
    return {fact for fact, true in has.items() if true}


RESULTS = ("the-studys-table", "mean-over-findings")
CAVEATS = ("what-to-keep-in-mind",)
DATA = ("data-and-split",)
PARTS = ("fold-by-fold", "held-out-source-by-held-out-source")
FINDINGS = ("sensitivity-by-finding", "finding-by-finding")
INTERVALS = ("intervals",)

ITEMS = (
    # Title, abstract, introduction
    Item("Title names AI and its kind", RESULTS, "the paper's own title; the one above names the networks"),
    Item("Abstract of design, methods, results and conclusions", RESULTS, "an abstract; above stands the answer only"),
    Item("Background, intended use and role of the AI", (), "what is known, and who would use the model for what"),
    Item("Aims and hypotheses", (), "what was asked and expected before the test images were looked at"),
    # Methods: design and data
    Item("Prospective or retrospective", (), "whether the images were collected before the study was planned"),
    Item("Kind of study", (), "whether it builds a model, explores, or sets out to show a difference"),
    Item("Sources of the data", DATA, "hospitals and years, terms of use, and the papers that describe the datasets"),
    Item("Who was included and who was not", DATA, "the owners' choice of patients, and the authors' own criteria"),
    Item("Preparation of the images", DATA, "augmentation, which each run's `config.yaml` holds"),
    Item("Choice of a part of the data", DATA, "why, where not all of a dataset was used"),
    Item("De-identification", (), "how the owners of the data removed what identifies patients"),
    Item("Missing data", ("finding-by-finding",), "how images without a label, age or sex were treated"),
    Item("How images were acquired", (), "devices, projection and exposure"),
    # Methods: reference standard
    Item("How the reference standard was defined", CAVEATS, "the method in full, source by source", (), "labels"),
    Item("Why this reference standard", (), "reasons, and what a better one would be (CT, culture, follow-up)"),
    Item("Who made the labels", (), "number and training of the readers, or the text analysis and its errors"),
    Item("Labels of the test part", (), "whether they were made in another way, and blind to the models"),
    Item("Agreement of readers", (), "how far readers agree with each other and with themselves"),
    # Methods: partitions, model, training
    Item("How data were divided", DATA),
    Item("Level at which the parts are disjoint", DATA, "whose an image is: parts share no image", ("patients",)),
    Item("Intended size of the test part", (), "how many patients the question needs, and why"),
    Item("The models in detail", ("cost", "runs"), "layers, inputs and outputs in words; see each run's `config.yaml`"),
    Item("Software", ("runs",), "versions of the packages, which each run's `environment.json` lists"),
    Item("Start of the weights", (), "random or from another task; see `model` in each run's `config.yaml`"),
    Item("Training in detail", ("cost",), "optimiser, learning rate, batches; see each run's `config.yaml`"),
    Item(
        "How the final model was chosen",
        ("cost", "search*"),
        "by which measure an epoch was best, and what else was tried",
    ),
    Item("Combination of models", ("ensemble*",), "whether models were combined"),
    # Methods: evaluation
    Item("Measures of performance", (*RESULTS, "further-metrics"), "why these"),
    Item("Statistical uncertainty", (*RESULTS, "differences*"), "intervals and tests", INTERVALS, "intervals"),
    Item(
        "Robustness and sensitivity to assumptions",
        ("robustness*", "what-the-label-can-be-guessed-from-without-reading-the-lungs", "thresholds*", "*-alone"),
        "image quality (noise, exposure, compression)",
        ("robustness*",),
    ),
    Item("Explanation of the models' answers", ("explanations*",), "where in the image the models look"),
    Item(
        "Test on data of the same source",
        (*RESULTS, *DATA),
        "how the runs do on their own test part: `python evaluate.py runs=RUN`",
        ("same source",),
        "same source",
    ),
    Item(
        "Test on data of another source",
        (*RESULTS, *DATA),
        "such a test: `python evaluate.py runs=RUN data=NAME data.root=DIR`",
        ("other source",),
        "other source",
    ),
    Item("Registration as a clinical trial", (), "the number, if it was registered"),
    # Results
    Item("Patients included and excluded", DATA, "a flow diagram with the reasons"),
    Item("Age, sex and disease by part", (*DATA, "subgroups*"), "age, sex, view and findings of each part"),
    Item(
        "Performance and its uncertainty",
        (*RESULTS, "differences*", "figures", "curves*", *PARTS),
        "intervals",
        INTERVALS,
    ),
    Item(
        "Diagnostic performance and its precision",
        (*RESULTS, "further-metrics", *FINDINGS, "calibration*"),
        "intervals",
        INTERVALS,
    ),
    Item("Analysis of errors", ("*mistakes", "subgroups*", *FINDINGS), "what the mistakes have in common"),
    # Discussion and the rest
    Item("Limitations", CAVEATS, "those of design, population and use that no number here shows"),
    Item("What follows for practice", ("choice*",), "for whom the models would be of use, and what has to come first"),
    Item("Protocol and further technical details", ("runs",), "where protocol, configurations and code can be read"),
    Item("Availability of software, models and data", (), "where each can be had, under which terms"),
    Item("Funding and the funders' role", (), "sources of money and other support"),
)
