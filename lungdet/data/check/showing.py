"""What a check found, on the console and as one page that needs no other file."""

from lungdet.errors import first_few
from lungdet.page import console as printing
from lungdet.page import figures
from lungdet.page.document import Block, Caution, Columns, Document, Figure, Items, Pictures, Section, Text
from lungdet.page.html import html

TILE = 9.0
"""Width of an image of the contact sheet, rem."""
LEFT_OUT = 20
"""Files of which the page says why they were left out."""


def page(report: dict) -> str:
    """The HTML page.

    Args:
        report: from `examining.examine`.
    """
    first, *sentences = gist(report)
    cautions: list[Block] = []
    for sentence in sentences:
        line, *names = sentence.split("\n")
        cautions += [Caution(line), *([Items(names)] if names else [])]
    if report["split"] and not report["refused"]:
        first, cautions = f"{first} {sentences[0]}", cautions[1:]
    sections = [Section("Advice", [*cautions, Items(report["advice"])])]
    if lines := official(report, 5):
        sections.append(Section("Against the publishers' counts", [Items(lines), Text("All names are in check.json.")]))
    sections += [Section("Ages and classes", [Columns([[picture] for picture in pictures(report["numbers"])])])]
    sections += report["tables"]
    if report["left_out"]:
        lines = [f"{file['path']}: {file['reason']}" for file in report["left_out"]]
        ending = [f".. and {len(lines) - LEFT_OUT} more, in check.json"] if len(lines) > LEFT_OUT else []
        sections.append(Section("Left out", [Items(lines[:LEFT_OUT] + ending)]))
    sheet = [block for title, row in report["sheet"].items() for block in (Text(f"{title}:"), Pictures(row, TILE))]
    sections += [Section("Contact sheet", sheet), Section("Which data this is", [Text(_identity(report))])]
    return html(Document(report["title"], first, sections, opening=len(sections)))


def show(report: dict, named: int) -> None:
    """Print it; neither folded nor cut nor coloured where there is no terminal.

    Args:
        report: from `examining.examine`.
        named: how many names of a list are printed.
    """
    console = printing.opened()
    for section in report["tables"]:
        for table in section.blocks:
            printing.show_table(console, table, section.title)
    printing.say(console, "")
    for sentence in gist(report):
        for line in sentence.split("\n"):
            printing.say(console, line, "bold")
    for line in official(report, named):
        printing.say(console, line)
    if report["left_out"]:
        left_out = [f"{file['image_id']} ({file['reason']})" for file in report["left_out"]]
        printing.say(console, f"left out: {first_few(left_out, named)}")
    for kind, names in report["odd"].items():
        if names:
            printing.say(console, f"{kind.replace('_', ' ')}: {first_few(names, named)}")
    if report["copies"]:
        printing.say(console, f"copies: {first_few(map(copy, report['copies']), named)}")
    printing.say(console, "")
    printing.say(console, "Advice", "bold")
    for sentence in report["advice"]:
        printing.say(console, f"- {sentence}")


def pictures(numbers: dict) -> list[Figure]:
    """What share of each part's images, or of all where there are none, is of which class and age."""
    groups = numbers["parts"] or {"all": numbers["all"]}
    findings = [name for name, label in numbers["all"]["findings"].items() if label["present"]]
    classes = {
        group: {
            "normal": block["abnormal"]["absent"],
            "abnormal": block["abnormal"]["present"],
            "no label": block["abnormal"]["unknown"],
            **{name.replace("_", " "): block["findings"][name]["present"] for name in findings},
        }
        for group, block in groups.items()
    }
    pictures = [_bars(groups, classes, "classes", "Classes", "An image may show several findings.")]
    if any(numbers["all"]["ages"].values()):
        ages = {group: block["ages"] for group, block in groups.items()}
        pictures.append(_bars(groups, ages, "ages", "Ages", "Images of unknown age are in no bar."))
    return pictures


def _bars(groups: dict, counts: dict[str, dict[str, int]], name: str, title: str, note: str) -> Figure:
    """Counts of images as shares of their group's."""
    rows = list(next(iter(counts.values())))
    shares = {
        group: [100 * of_group[row] / max(groups[group]["images"], 1) for row in rows]
        for group, of_group in counts.items()
    }
    words = "; ".join(
        f"{group}: {', '.join(f'{row} {share:.1f} %' for row, share in zip(rows, of_group, strict=True))}"
        for group, of_group in shares.items()
    )
    element = figures.bars(rows, shares, "per cent of the images", name)
    return Figure(name, element, title, f"{words}.", note)


def gist(report: dict) -> list[str]:
    """The sentences to read first."""
    counts, known = report["numbers"]["all"], report["patients_known"]
    share, unit = counts["abnormal"]["prevalence"], "patients" if known else "images"
    patients = f" of {counts['patients']:,} patients" if known else ""
    sentences = [
        f"{counts['images']:,} images{patients} from "
        f"{', '.join(report['numbers']['datasets'])}"
        + ("." if share is None else f"; {share:.1%} of the labelled images are abnormal.")
    ]
    if report["refused"]:
        sentences.append(f"Training would refuse this: {report['refused']}")
    elif report["split"]:
        parts = report["split"]["parts"].items()
        sizes = ", ".join(f"{part[unit]:,} {unit} in {name}" for name, part in parts)
        sentences.append(
            f"The split ({report['split']['name']}) can be trained on: {sizes}; no image stands in two parts."
        )
    return sentences + report["doubts"]


def official(report: dict, named: int = 10) -> list[str]:
    """How the official datasets compare with their known counts."""
    lines = []
    for name, dataset in report["official"].items():
        counts = ", ".join(
            f"{dataset['found'][key]:,} of {count:,} {key}" for key, count in dataset["expected"].items()
        )
        lines.append(f"{name}: {'whole' if dataset['whole'] else 'not whole'}, {counts}")
        for kind in ("missing", "unusable", "unexpected"):
            if dataset[kind]:
                lines.append(f"{name}: {len(dataset[kind]):,} {kind}: {first_few(dataset[kind], named)}")
        if dataset["note"]:
            lines.append(f"{name}: {dataset['note']}")
    return lines


def copy(pair: dict) -> str:
    """A pair of copies in words."""
    likeness = "identical" if pair["kind"] == "identical" else f"correlation {pair['correlation']:.2f}"
    patients = "one patient" if pair["same_patient"] else "different patients"
    return f"{pair['image_id_a']} and {pair['image_id_b']} ({likeness}, {patients})"


def _identity(report: dict) -> str:
    """Which data was looked at, to be found again."""
    store, split = report["store"], report["split"]
    words = [f"Prepared to {store['image_size']} x {store['image_size']} ({store['resize']})"]
    words.append(f"fingerprint {store['fingerprint']}")
    words += [f"split {split['name']}, hash {split['hash']}"] if split else []
    words += [f"data.limit={store['limit']}"] if store["limit"] else []
    return f"{'; '.join(words)}."
