"""What a check found, on the console and as one page that needs no other file."""

from pathlib import Path

import jinja2
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lungdet.errors import first_few

TEMPLATES = Path(__file__).parent / "templates"


def page(report: dict) -> str:
    """The HTML page.

    Args:
        report: from `check.examine`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("check.html.j2").render(
        report=report, gist=gist(report), official=official(report, 5)
    )


def show(report: dict, named: int, console: Console | None = None) -> None:
    """Print it; neither folded nor cut nor coloured where there is no terminal.

    Args:
        report: from `check.examine`.
        named: how many names of a list are printed.
        console: where to; standard output by default.
    """
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=1000, color_system=None)

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    for table in report["tables"]:
        shown = RichTable(*table.columns, title=table.title, title_justify="left", box=SIMPLE, pad_edge=False)
        for column in shown.columns[1:]:
            column.justify = "right"
        for row in table.rows:
            shown.add_row(*map(Text, row))
        console.print(shown)
        for note in table.notes:
            say(note, "dim")
    say("")
    for sentence in gist(report):
        say(sentence, "bold")
    for line in official(report, named):
        say(line)
    if report["left_out"]:
        left_out = [f"{one['image_id']} ({one['reason']})" for one in report["left_out"]]
        say(f"left out: {first_few(left_out, named)}")
    for kind, names in report["odd"].items():
        if names:
            say(f"{kind.replace('_', ' ')}: {first_few(names, named)}")
    if report["copies"]:
        say(f"copies: {first_few(map(copy, report['copies']), named)}")
    say("\nAdvice", "bold")
    for sentence in report["advice"]:
        say(f"- {sentence.replace('`', '')}")


def gist(report: dict) -> list[str]:
    """The sentences to read first."""
    everything, known = report["numbers"]["all"], report["patients_known"]
    share, unit = everything["abnormal"]["prevalence"], "patients" if known else "images"
    whose = f" of {everything['patients']:,} patients" if known else ""
    sentences = [
        f"{everything['images']:,} images{whose} from "
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
    for name, one in report["official"].items():
        counts = ", ".join(f"{one['found'][key]:,} of {count:,} {key}" for key, count in one["expected"].items())
        lines.append(f"{name}: {'whole' if one['whole'] else 'not whole'}, {counts}")
        for kind in ("missing", "unusable", "unexpected"):
            if one[kind]:
                lines.append(f"{name}: {len(one[kind]):,} {kind}: {first_few(one[kind], named)}")
        if one["note"]:
            lines.append(f"{name}: {one['note']}")
    return lines


def copy(one: dict) -> str:
    """A pair of copies in words."""
    how = "identical" if one["kind"] == "identical" else f"correlation {one['correlation']:.2f}"
    whose = "one patient" if one["same_patient"] else "different patients"
    return f"{one['image_id_a']} and {one['image_id_b']} ({how}, {whose})"
