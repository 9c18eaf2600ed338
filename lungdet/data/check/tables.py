"""The tables of `lungdet check`, made once from the numbers and shown on the console and in the page."""

from collections.abc import Callable

from lungdet.data.check.fingerprint import UNKNOWN
from lungdet.data.check.inspection import DARK, FLAT, INVERTED, WIDE
from lungdet.page.document import Section, Table

SHOWN = 5
"""Different values of a column that get a row of their own; a clinic's images may have as many sizes as images."""


def tables(numbers: dict, padded: bool) -> list[Section]:
    """All tables, each a section: the groups of images have a column each, rows begin with what they count.

    Args:
        numbers: from `fingerprint.describe`.
        padded: the prepared images have black bars of their own (`data.resize=pad`).
    """
    groups = {"all": numbers["all"]}
    if len(numbers["datasets"]) > 1:
        groups |= numbers["datasets"]
    groups |= numbers["parts"]
    columns = ["", *groups]

    def table(title: str, lines: dict[str, Callable[[dict], str]], *notes: str) -> Section:
        rows = [[name, *(cell(group) for group in groups.values())] for name, cell in lines.items()]
        return Section(title, [Table(columns, rows, notes=list(notes))])

    sections = [
        table("Images and patients", _PATIENTS | _values(numbers, "images_per_patient", "patients with {}")),
        table(
            "Labels",
            _labels(numbers),
            "Present / known, and their share. Unknown is never counted as absent, and no label is not trained on.",
        ),
        table("Who and how", _AGE | _values(numbers, "sex", "sex {}", "sexes") | _values(numbers, "view", "view {}")),
        table(
            "Files",
            _values(numbers, "size", "{} pixels", "sizes")
            | _values(numbers, "mode", "mode {}", "modes")
            | _values(numbers, "bits", "{} bit a channel", "bits")
            | _values(numbers, "format", "format {}", "formats"),
            "Of the image files. Pillow's modes: L grey, I;16 16-bit grey, P palette.",
        ),
        table("What looks odd", _ODD, *_odd_notes(padded)),
    ]
    if len(numbers["datasets"]) > 1 and numbers["parts"]:
        sections.append(_crossed(numbers))
    return sections


def _crossed(numbers: dict) -> Section:
    def cell(group: dict) -> str:
        return f"{group['images']:,} / {group['patients']:,} / {_share(group['abnormal'])}"

    rows = [[dataset, *map(cell, parts.values())] for dataset, parts in numbers["datasets_and_parts"].items()]
    table = Table(["", *numbers["parts"]], rows, notes=["Images / patients / abnormal."])
    return Section("Each dataset in each part", [table])


def _count(key: str) -> Callable[[dict], str]:
    """A count with its share of the images; a dash where the group can't be asked."""
    return lambda group: _of(group[key], group["images"]) if key in group else "–"


def _of(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if count and total else f"{count:,}"


def _share(label: dict) -> str:
    return "–" if label["prevalence"] is None else f"{label['prevalence']:.1%}"


def _label(label: dict) -> str:
    known = label["present"] + label["absent"]
    return f"{label['present']:,} / {known:,} ({_share(label)})" if known else "–"


def _labels(numbers: dict) -> dict[str, Callable[[dict], str]]:
    lines = {"abnormal": lambda group: _label(group["abnormal"])}
    lines["no label"] = lambda group: f"{group['abnormal'][UNKNOWN]:,}"
    for name, label in numbers["all"]["findings"].items():
        if label["present"] or label["absent"]:
            lines[name.replace("_", " ")] = lambda group, name=name: _label(group["findings"][name])
    return lines


def _values(numbers: dict, key: str, name: str, plural: str = "values") -> dict[str, Callable[[dict], str]]:
    """A line a value; those that are rare share one."""
    values = [value for value in numbers["all"][key] if value != UNKNOWN]
    whole = "patients" if key == "images_per_patient" else "images"
    common, rare = values[:SHOWN], values[SHOWN:]
    if key == "images_per_patient":
        common.sort(key=lambda value: int(value.split()[0]))

    def line(*members: str) -> Callable[[dict], str]:
        return lambda group: _of(sum(group[key].get(value, 0) for value in members), group[whole])

    lines = {name.format(value): line(value) for value in common}
    if rare:
        lines[f"{len(rare)} other {plural}"] = line(*rare)
    if UNKNOWN in numbers["all"][key]:
        lines[name.format(UNKNOWN)] = line(UNKNOWN)
    return lines


def _ages(form: str) -> Callable[[dict], str]:
    return lambda group: "–" if group["age"]["median"] is None else form.format(**group["age"])


def _odd_notes(padded: bool) -> list[str]:
    notes = [
        f"Heuristics on the prepared images. Looks inverted: correlates below {INVERTED} with the typical image of its "
        f"dataset. Wide black border: rows and columns up to {DARK} of 255 at the edges, more than {WIDE:.0%} of the "
        f"area. Almost blank: standard deviation below {FLAT:.0f} of 255.",
        "Left out: files that could not be prepared; blank ones among them.",
    ]
    if padded:
        notes.append("The bars that data.resize=pad adds count as borders here.")
    return notes


_PATIENTS = {
    "images": lambda group: f"{group['images']:,}",
    "patients": lambda group: f"{group['patients']:,}",
    "images of patients with several": _count("images_of_those"),
    "most images of a patient": lambda group: f"{group['most_images_of_a_patient']:,}",
}
_AGE = {
    "age, median (quartiles)": _ages("{median:.0f} ({lower_quartile:.0f}–{upper_quartile:.0f})"),
    "age, range": _ages("{least:.0f}–{most:.0f}"),
    "age unknown": lambda group: _of(group["age"][UNKNOWN], group["images"]),
}
_ODD = {
    "left out": lambda group: f"{group['left_out']:,}" if "left_out" in group else "–",
    "left out as blank": lambda group: f"{group['blank']:,}" if "blank" in group else "–",
    "copies under other patients": _count("copies_in_other_patients"),
    "copies within a patient": _count("copies_in_same_patient"),
    "looks inverted": lambda group: (
        "–" if group["not_judged_for_inversion"] == group["images"] else _of(group["inverted"], group["images"])
    ),
    "wide black border": _count("wide_border"),
    "almost blank": _count("almost_blank"),
}
