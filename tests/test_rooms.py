"""The house: every module imports from rooms below its own, and none leads back to itself."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from tests.calling import CHECKOUT

FLOORS = [
    {"lungdet.errors"},
    {"lungdet.kinds"},
    {"lungdet.findings", "lungdet.instantiation", "lungdet.machine"},
    {"lungdet.configuration", "lungdet.evaluation.statistics"},
    {"lungdet.page"},
    {"lungdet.data", "lungdet.models"},
    {"lungdet.runs"},
    {"lungdet.training", "lungdet.evaluation", "lungdet.inference"},
    {"lungdet.sweeps"},
    {"lungdet.programs"},
    {"lungdet.cli"},
    {"lungdet.__main__"},
    {"train", "evaluate"},
]
"""The rooms, lowest first; those of one floor do not know each other."""
STATISTICS = "lungdet.evaluation.statistics"
IMPURE = ("torch", "lungdet.page", "lungdet.evaluation.gathering", "lungdet.evaluation.sections")
"""What a statistic needs nothing of: it is numbers in, numbers out."""


def within(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


@cache
def imports() -> dict[str, set[str]]:
    """By module what it imports, be it at its top, in a function or for types alone."""
    paths = [CHECKOUT / "train.py", CHECKOUT / "evaluate.py", *(CHECKOUT / "lungdet").rglob("*.py")]
    names = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths
    }
    graph = {}
    for name, path in names.items():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        parts = {
            inner if (inner := f"{node.module}.{alias.name}") in names else node.module
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        graph[name] = whole | parts
    return graph


def floor(module: str) -> int | None:
    return next((i for i, rooms in enumerate(FLOORS) for room in rooms if within(module, room)), None)


def test_every_module_imports_from_its_own_room_and_from_floors_below():
    upward = {
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in names
        if floor(module) is not None and floor(name) is not None and floor(name) >= floor(module)
        if not any(within(module, room) and within(name, room) for room in FLOORS[floor(module)])
    }
    assert not upward
    assert [module for module in imports() if floor(module) is None] == ["lungdet"]  # every room has its floor


def test_no_module_leads_back_to_itself():
    list(TopologicalSorter({name: names - {name} for name, names in imports().items()}).static_order())


def test_statistics_know_neither_torch_nor_how_they_are_shown():
    known = [(name, other) for name, names in imports().items() for other in names if within(name, STATISTICS)]
    assert known
    assert not [(name, other) for name, other in known for room in IMPURE if within(other, room)]


def test_programs_are_started_by_the_sweeps_alone():
    """In a process of their own, by the command's name: an installed lungdet has no train.py."""
    texts = {path.relative_to(CHECKOUT / "lungdet"): path.read_text() for path in (CHECKOUT / "lungdet").rglob("*.py")}
    assert [path for path, text in texts.items() if 'sys.executable, "-m", "lungdet"' in text] == [
        Path("sweeps/programs.py")
    ]
    assert not [path for path, text in texts.items() for name in ("train", "evaluate") if f'/ "{name}.py"' in text]
