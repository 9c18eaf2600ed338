"""Every command of train.py and evaluate.py that the documents give can be composed as it stands."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.calling import CHECKOUT

DOCUMENTS = sorted((CHECKOUT / "docs").glob("*.md"))


def commands(document: Path) -> list[list[str]]:
    """The words of each command in its bash blocks, comments left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_each_command_of_a_document_composes(document: Path) -> None:
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        for python, program, *words in commands(document):
            assert python == "python"
            name = {"train.py": "train", "evaluate.py": "evaluate"}[program]
            compose(name, [word for word in words if word != "-m"])
    assert commands(document)
