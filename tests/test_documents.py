"""README and docs/: every command composes as it stands, links lead somewhere, what the trees name is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from lungdet.cli import PROGRAMS
from tests.calling import CHECKOUT

README = CHECKOUT / "README.md"
DOCUMENTS = [README, *sorted((CHECKOUT / "docs").glob("*.md"))]
TREES = [README, CHECKOUT / "docs/code.md"]
ELSEWHERE = {"hf", "mlflow", "pip", "tensorboard", "wandb"}
"""Starters of commands that are others'."""
CONFIGURATIONS = {"prepare": "train"}
"""Of programs that have none of their own name."""


def blocks(document: Path, kind: str = "") -> list[str]:
    """What stands between fences of a kind."""
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```", document.read_text(), re.DOTALL | re.MULTILINE)
    return [text for opening, text in fenced if opening == kind]


def commands(document: Path) -> list[list[str]]:
    """The words of each command in its bash blocks, comments left out."""
    lines = [line for block in blocks(document, "bash") for line in block.replace("\\\n", " ").splitlines()]
    bare = [re.sub(r"^[A-Z_]+=\S+ ", "", line) for line in lines]  # of variables that are set for a command
    return [words for line in bare if (words := shlex.split(line, comments=True))]


def single(words: list[str]) -> list[str]:
    """A command's overrides, as the first job of a multirun has them; what a search draws is left to the search."""
    overrides = OverridesParser.create().parse_overrides([word for word in words if word != "-m"])
    return [
        f"{override.input_line.split('=')[0]}={next(override.sweep_string_iterator())}"
        if override.is_sweep_override()
        else override.input_line
        for override in overrides
        if not override.is_interval_sweep()
    ]


def programs(document: Path) -> Iterator[tuple[str, list[str]]]:
    """The configuration and the overrides of each command that has any, the others being of `make` or `runs`."""
    targets = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    for starter, program, *words in commands(document):
        if starter in ELSEWHERE:
            continue
        if starter == "make":
            assert program in targets
            continue
        if starter == "torchrun":
            program, *words = words[words.index("train.py") :]
        name = program.removesuffix(".py")
        assert starter == "lungdet" or (CHECKOUT / program).is_file()
        assert name in PROGRAMS
        if name == "download":
            words = [f"download={words[0]}", *words[1:]]
        if name != "runs":
            yield CONFIGURATIONS.get(name, name), single(words)


def test_each_command_of_the_documents_composes() -> None:
    """Those of the same choices together, each key with the value that it has last."""
    together: dict[tuple, dict[str, str]] = {}
    for configuration, words in (command for document in DOCUMENTS for command in programs(document)):
        values = {word.partition("=")[0]: word for word in words if not chooses(word)}
        choices = [word for word in words if chooses(word)]
        together.setdefault((configuration, *choices), {}).update(values)
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        for (configuration, *choices), values in together.items():
            compose(configuration, [*choices, *values.values()])


def chooses(word: str) -> bool:
    """Whether a word decides which keys there are, and not what value one of them has."""
    return word[0] in "+~" or (CHECKOUT / "conf" / word.partition("=")[0]).is_dir()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_document_opens_with_a_question_and_its_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    assert document == README or text.splitlines()[0].endswith("?")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (document.parent / link).is_file(), link
    if document == README:
        assert {f"docs/{path.name}" for path in DOCUMENTS[1:]} <= set(re.findall(r"\(([^)]+)\)", text))


@pytest.mark.parametrize("document", TREES, ids=lambda document: document.name)
def test_what_a_tree_names_is_there_and_it_names_each_room(document: Path) -> None:
    tree = next(block for block in blocks(document) if "\nlungdet/\n" in block)
    places = [path for room in ("lungdet", "conf", "docs", "tests") for path in (CHECKOUT / room).rglob("*")]
    places += CHECKOUT.glob("*")
    names = set(re.findall(r"[a-z_]+(?:\.py\b|/(?=\s|$))", re.sub(r"`.*?`|\w+/\w+", "", tree), re.MULTILINE))
    assert names <= {path.name + "/" * path.is_dir() for path in places}
    rooms = {path.name + "/" for path in (CHECKOUT / "lungdet").iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= names


def test_the_first_page_is_short() -> None:
    assert len(README.read_text().split()) <= 2000
