"""CLAIM: where the report answers the items of the checklist for AI in medical imaging, and what it leaves out.

Source: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update, Radiology:
Artificial Intelligence 2024;6(4):e240300. Items are in our own words.
"""

from typing import NamedTuple

from lungdet.evaluation.sections.data_and_split import meanings
from lungdet.page.document import Document, Section, Table
from lungdet.page.markup import plain

TITLE = "CLAIM 2024 checklist"
PAGE, REPORT = "claim.html", "report.html"
NOT_REPORTED = "not reported"


class Item(NamedTuple):
    """An item of the checklist; which sections answer it they say themselves (`Section.claim`).

    Attributes:
        asks: what it asks for.
        lacks: what even they leave to the authors, or all of it where there is none of them.
        unless: a fact (see `_facts`) that makes up for what is lacking.
        needs: a fact without which the sections do not answer it.
        of_peers: what is lacking where other systems are judged, too.
    """

    asks: str
    lacks: str = ""
    unless: str | None = None
    needs: str | None = None
    of_peers: str = ""


def checklist(report: Document, summary: dict) -> Document:
    """The checklist as a page of its own, each item with links to what is in the report, or `not reported`.

    Args:
        report: with `Written` sections.
        summary: what they were made of.
    """
    facts = _facts(summary)
    titles = [plain(section.title).translate({ord("["): "(", ord("]"): ")"}) for section in report.sections]
    links = [f"[{title}]({REPORT}#{anchor})" for title, anchor in zip(titles, report.anchors, strict=True)]
    rows, reported, whole = [], 0, 0
    for number, item in enumerate(ITEMS, start=1):
        answers = [link for link, section in zip(links, report.sections, strict=True) if number in section.claim]
        if item.needs and item.needs not in facts:
            answers = []
        lacking = ["" if answers and item.unless in facts else item.lacks, item.of_peers if "peers" in facts else ""]
        lacks = "; ".join(filter(None, lacking))
        reported += bool(answers)
        whole += bool(answers) and not lacks
        remark = f"; {'missing' if answers else 'to add'}: {lacks}" if lacks else ""
        rows.append([str(number), item.asks, f"{', '.join(answers) or NOT_REPORTED}{remark}."])
    answer = (
        f"Of {len(ITEMS)} items {reported} lead to a section of the [report]({REPORT}), {reported - whole} of them "
        f"with something missing. The other {len(ITEMS) - reported} are not reported: the authors have to write "
        "them. A link says that there is something to read, not that it is enough."
    )
    note = (
        "Items in our own words after Tejani et al., CLAIM: 2024 Update, Radiology: Artificial Intelligence "
        "2024;6(4):e240300, doi 10.1148/ryai.240300. Approval by an ethics committee is not reported either."
    )
    table = Table(["No.", "What is asked for", "Where"], rows, 3, [note])
    return Document(TITLE, answer, [Section("Items", [table])], beside={REPORT: report.title})


def _facts(summary: dict) -> set[str]:
    """What these runs have, whatever the sections are called.

    `peers`: other systems are judged, too; `labels`: the caveats say how labels came about, or what they mean in
    several sources; `patients`: something says whose an image is; `intervals`: of the test part; `explanations`: heat
    maps were measured; `same source` and `other source`: where the test images come from, as seen from what was
    learnt from.
    """
    data = summary["data"]
    sources = {*data["test_datasets"], *data["learnt_from"]}
    holds = {
        "peers": any("peer" in block for block in summary["models"].values()),
        "labels": bool(meanings(data)) or any(data["sheets"][name]["labels_from"] == "reports" for name in sources),
        "patients": summary["data"]["patients_known"],
        "intervals": any(any(block.get("test_interval", {}).values()) for block in summary["models"].values()),
        "explanations": bool((summary["explanations"] or {}).get("images")),
        "same source": bool(data["known_sources"]),
        "other source": bool(data["new_sources"]) and not data["unsearched"],
    }
    return {fact for fact, true in holds.items() if true}


ITEMS = (
    # Title, abstract, introduction
    Item("Title names AI and its kind", "the paper's own title; the one above names the networks"),
    Item("Abstract of design, methods, results and conclusions", "an abstract; above stands the answer only"),
    Item("Background, intended use and role of the AI", "what is known, and who would use the model for what"),
    Item("Aims and hypotheses", "what was asked and expected before the test images were looked at"),
    # Methods: design and data
    Item("Prospective or retrospective", "whether the images were collected before the study was planned"),
    Item("Kind of study", "whether it builds a model, explores, or sets out to show a difference"),
    Item("Sources of the data", "hospitals and years, terms of use, and the papers that describe the datasets"),
    Item("Who was included and who was not", "the owners' choice of patients, and the authors' own criteria"),
    Item("Preparation of the images", "augmentation, which each run's `config.yaml` holds"),
    Item("Choice of a part of the data", "why, where not all of a dataset was used"),
    Item("De-identification", "how the owners of the data removed what identifies patients"),
    Item("Missing data", "how images without a label, age or sex were treated"),
    Item("How images were acquired", "devices, projection and exposure"),
    # Methods: reference standard
    Item("How the reference standard was defined", "the method in full, source by source", needs="labels"),
    Item("Why this reference standard", "reasons, and what a better one would be (CT, culture, follow-up)"),
    Item("Who made the labels", "number and training of the readers, or the text analysis and its errors"),
    Item("Labels of the test part", "whether they were made in another way, and blind to the models"),
    Item("Agreement of readers", "how far readers agree with each other and with themselves"),
    # Methods: partitions, model, training
    Item("How data were divided", of_peers="what the other systems had learnt from"),
    Item(
        "Level at which the parts are disjoint",
        "whose an image is: parts share no image",
        unless="patients",
        of_peers="whether the other systems had learnt from patients tested here",
    ),
    Item("Intended size of the test part", "how many patients the question needs, and why"),
    Item(
        "The models in detail",
        "layers, inputs and outputs in words; see each run's `config.yaml`",
        of_peers="what the other systems are",
    ),
    Item("Software", "versions of the packages, which each run's `environment.json` lists"),
    Item("Start of the weights", "random or from another task; see `model` in each run's `config.yaml`"),
    Item("Training in detail", "optimiser, learning rate, batches; see each run's `config.yaml`"),
    Item("How the final model was chosen", "by which measure an epoch was best, and what else was tried"),
    Item("Combination of models", "whether models were combined"),
    # Methods: evaluation
    Item("Measures of performance", "why these"),
    Item("Statistical uncertainty", "intervals and tests", unless="intervals", needs="intervals"),
    Item("Robustness and sensitivity to assumptions", "image quality (noise, exposure, compression)"),
    Item(
        "Explanation of the models' answers",
        "where in the image the models look: `python evaluate.py runs=FOLDER explain=gradcam`",
        unless="explanations",
    ),
    Item(
        "Test on data of the same source",
        "how the runs do on their own test part: `python evaluate.py runs=RUN`",
        unless="same source",
        needs="same source",
    ),
    Item(
        "Test on data of another source",
        "such a test: `python evaluate.py runs=RUN data=NAME data.root=DIR`",
        unless="other source",
        needs="other source",
    ),
    Item("Registration as a clinical trial", "the number, if it was registered"),
    # Results
    Item("Patients included and excluded", "a flow diagram with the reasons"),
    Item("Age, sex and disease by part", "age, sex, view and findings of each part"),
    Item("Performance and its uncertainty", "intervals", unless="intervals"),
    Item("Diagnostic performance and its precision", "intervals", unless="intervals"),
    Item("Analysis of errors", "what the mistakes have in common"),
    # Discussion and the rest
    Item("Limitations", "those of design, population and use that no number here shows"),
    Item("What follows for practice", "for whom the models would be of use, and what has to come first"),
    Item("Protocol and further technical details", "where protocol, configurations and code can be read"),
    Item("Availability of software, models and data", "where each can be had, under which terms"),
    Item("Funding and the funders' role", "sources of money and other support"),
)
