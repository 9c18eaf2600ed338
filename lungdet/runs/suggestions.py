"""What `find` leaves in its folder: the override that it suggests, and what it was asked."""

import json
from pathlib import Path
from typing import NamedTuple

from lungdet.machine.writing import write_text

NAME = "suggestion.json"


class Suggestion(NamedTuple):
    """`overrides` is what stood on the command line of the search, `suggested` the override to train with."""

    overrides: tuple[str, ...]
    suggested: str


def write(folder: Path, suggestion: Suggestion) -> None:
    """Write it into the search's folder; whole or not at all."""
    write_text(folder / NAME, json.dumps(suggestion._asdict(), indent=1) + "\n")


def read(folder: Path) -> list[Suggestion]:
    """Those of the searches in a multirun's folder, by path."""
    facts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*/{NAME}"))]
    return [Suggestion(tuple(fact["overrides"]), fact["suggested"]) for fact in facts]
