"""What is printed to be pasted comes through the shell and through Hydra as what it was."""

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lungdet.machine import commands
from lungdet.machine.commands import command, key_of, override

NASTY = [
    "a b=c [1] ü $x 'q'", 'say "no"', "both ' and \"", "ends in \\", 'a\\"b', "${oc.env:HOME}", "a\\${b}", "$(touch x)",
    "`id`", "a,b", "{a: 1}", "(a)", "glob(*)", "~a", "#a", "a;b|c&d", "!a", "*", "a:b", "a%20b", " a ", "a\tb", "a\nb",
    "u\u0308", "𝄞", "null", "true", "0", "1_000", "1e3", "-1", "-m", "nan", "",
]  # fmt: skip
RANDOM = ["".join(np.random.default_rng(seed).choice(list("a1 =,'\"\\$[]{}()~:#ü\t"), 8)) for seed in range(300)]


def test_hydra_reads_a_value_as_the_text_that_it_was() -> None:
    for text in [*NASTY, *RANDOM]:
        parsed = OverridesParser.create().parse_override(override("a.b", text))
        assert parsed.get_key_element() == "a.b"
        assert OmegaConf.create({"value": parsed.value()}).value == text


def test_a_shell_hands_on_every_word_as_it_was() -> None:
    words = [override("runs", text) for text in [*NASTY, *RANDOM]]
    pasted = command("train.py -m", *words)
    assert pasted.startswith("python train.py -m ")
    shell = subprocess.run(["bash", "-c", f"printf '%s\\0' {pasted}"], capture_output=True, text=True, check=True)
    assert shell.stdout.split("\0")[:-1] == ["python", "train.py", "-m", *words]


@pytest.mark.parametrize("text", ["outputs/runs/2026-01-31_12-00-00_cnn_seed0_3f9a1c07", "/data/a.b", "data"])
def test_an_ordinary_folder_stands_bare(text: str) -> None:
    assert command("evaluate.py", override("runs", text)) == f"python evaluate.py runs={text}"


def test_a_folder_with_a_space_is_easily_read() -> None:
    assert command("evaluate.py", override("runs", "my runs=1")) == "python evaluate.py 'runs=\"my runs=1\"'"
    assert shlex.split(command("evaluate.py", override("runs", "my runs"))) == ["python", "evaluate.py", "runs=my runs"]


@pytest.mark.parametrize("word", ["a.b=c=d", "+a.b=1", "++a.b=[1,2]", "~a.b", "~a.b=1", "a.b@c.d=e"])
def test_the_key_that_a_word_of_the_command_line_is_about(word: str) -> None:
    assert key_of(word) == "a.b"


@pytest.mark.parametrize(
    ("own", "typed", "start"),
    [
        ("train.py", ["python", "train.py", "seed=1"], ["python", "evaluate.py"]),
        ("../a/train.py", [".venv/bin/python", "../a/train.py"], [".venv/bin/python", "../a/evaluate.py"]),
        ("lungdet train", ["python", "-m", "lungdet", "train"], ["python", "-m", "lungdet", "evaluate"]),
        ("lungdet train", ["/bin/python", "/elsewhere/lungdet", "train"], ["/elsewhere/lungdet", "evaluate"]),
        ("lungdet train", ["python", "-B", "-c", "spawned"], ["python", "-m", "lungdet", "evaluate"]),
        ("/usr/bin/pytest", ["python", "-m", "pytest"], ["python", "evaluate.py"]),
    ],
)  # fmt: skip
def test_another_program_is_started_as_this_one_was(
    own: str, typed: list[str], start: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.shutil, "which", lambda _: None)
    assert commands._started("evaluate.py", own, typed) == start


@pytest.mark.parametrize(
    "words", [["--config-dir", "my conf"], ["-m", "--config-dir=my conf", "seed=1"], ["-cd", "my conf"]]
)
def test_choices_of_ones_own_are_looked_for_by_the_next_command_too(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.sys, "argv", ["lungdet train", *words])
    pasted = shlex.split(command("train.py -m", "model=mine"))
    assert pasted[-4:] == ["-m", "--config-dir", str(tmp_path / "my conf"), "model=mine"]
    assert command("train.py", "--config-dir", "b", "model=mine").endswith("train --config-dir b model=mine")


def test_whom_this_command_trusts_the_next_trusts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.sys, "argv", ["lungdet train", "model=mine", "trust=[clinic]"])
    assert command("evaluate.py", "runs=a").endswith("evaluate runs=a 'trust=[clinic]'")
    assert command("evaluate.py", "trust=[b]").endswith("evaluate 'trust=[b]'")
