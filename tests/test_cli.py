"""The command `lungdet` starts each program, completes its words, and answers mistakes without importing torch."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from lungdet import cli
from tests.calling import CHECKOUT, call


def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *words: str, line: str = "") -> str:
    monkeypatch.setattr(sys, "argv", ["lungdet", *words])
    monkeypatch.setenv("COMP_LINE", line)
    try:
        cli.main()
    except SystemExit as end:
        return str(end.code)
    return capsys.readouterr().out


def test_every_program_is_there_and_listed(monkeypatch, capsys) -> None:
    assert all(callable(import_module(f"lungdet.programs.{name}").start) for name in cli.PROGRAMS)
    for words in ([], ["--help"]):
        assert all(f"\n  {name} " in answer(monkeypatch, capsys, *words) for name in cli.PROGRAMS if name != "train")


def test_the_version_is_the_packages(monkeypatch, capsys) -> None:
    assert answer(monkeypatch, capsys, "--version").startswith(f"lungdet {version('lungdet')} (")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trian", "lungdet: trian: there is no such program; did you mean train?"),
        (
            "xyz",
            f"lungdet: xyz: there is no such program; there are {', '.join(cli.PROGRAMS)}",
        ),
        ("model=cnn", "lungdet: model=cnn: name a program first: lungdet train model=cnn"),
    ],
)
def test_a_mistake_is_answered(monkeypatch, capsys, word: str, message: str) -> None:
    assert answer(monkeypatch, capsys, word) == message


@pytest.mark.parametrize("name", [name for name in cli.PROGRAMS if name not in ("train", "runs")])
def test_a_multirun_is_for_training_alone_and_refused_before_a_folder_is_made(name: str, tmp_path: Path) -> None:
    word = "hydra.mode=MULTIRUN" if name == "evaluate" else "-m"
    done = call(import_module(f"lungdet.programs.{name}"), word, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"lungdet {name}: leave -m (hydra.mode=MULTIRUN) out: one ")
    assert [*tmp_path.iterdir()] == []


def test_words_are_completed_by_the_program_that_the_line_names(monkeypatch, capsys) -> None:
    assert answer(monkeypatch, capsys, "-sc", "query=bash", line="lungdet ev") == "evaluate\n"
    choices = answer(monkeypatch, capsys, "-sc", "query=bash", line="lungdet train model=").split()
    assert {"model=cnn", "model=cnn_lstm"} <= {*choices}
    assert not [choice for choice in choices if "_base" in choice]


def test_nothing_heavy_is_imported_for_an_answer() -> None:
    code = "import sys; from lungdet import cli; cli.usage(), cli.mistake('trian')\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "hydra", "pandas"} & {*done.stdout.split()}


def test_composing_a_configuration_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'lightning', 'pandas', 'albumentations', 'wandb', 'timm'}"
    code = f"import sys, train; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)
