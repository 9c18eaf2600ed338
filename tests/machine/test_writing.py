"""What a run, a report or a record leaves on disk is whole or not there, and never lands in another file by a link."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from lungdet.data.splitting import leaks, splits
from lungdet.errors import InputError, mistake
from lungdet.evaluation.statistics import thresholds
from lungdet.page.document import Document, Section, Table
from lungdet.page.files import write_tables
from lungdet.runs.folder import Run
from lungdet.runs.locking import in_use, locked
from lungdet.training.recording import Record
from tests import fake_runs

SPLIT = pd.DataFrame({"image_id": ["a"], "patient_id": ["p"], "dataset": "x", "split": ["test"]})
PAGE = Document("A title", "An answer.", [Section("Cost", [Table(["model", "seconds"], [["CNN", "3"]])])])

WRITERS: dict[str, Callable[[Path], object]] = {
    "thresholds.json": lambda folder: thresholds.save(
        {"abnormal": thresholds.Threshold(0.5, "fixed", 0.5, "")}, folder
    ),
    "environment.json": lambda folder: Run(folder).record(epochs=3),
    "predictions/shenzhen.parquet": lambda folder: Run(folder).write_predictions("shenzhen", SPLIT),
    "metrics.csv": lambda folder: Record(folder)._write({"epoch": 0}),
    "split.csv": lambda folder: splits.Split("random", 0, SPLIT[["image_id", "split"]]).save(
        folder / "split.csv", SPLIT
    ),
    "copies.parquet": lambda folder: leaks._write(SPLIT, folder / "copies.parquet"),
    "tables/cost.csv": lambda folder: write_tables(PAGE, folder),
    "report/report.html": lambda folder: fake_runs.evaluate(fake_runs.two_runs(folder / "runs"), folder / "report"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_file_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    content = "epoch\n" if name == "metrics.csv" else "{}"
    precious.write_text(content)
    written = tmp_path / "folder" / name
    written.parent.mkdir(parents=True)
    aside = [f"{written.name}.partial", f"{written.name}.part", f"{written.stem}.partial"]
    for place in (written.name, *aside):  # names that were used, and that anybody would
        (written.parent / place).symlink_to(precious)
    WRITERS[name](tmp_path / "folder")
    assert precious.read_text() == content
    assert written.is_file()
    assert not written.is_symlink()


def test_a_link_or_folder_in_place_of_a_runs_lock_is_nobodys_and_none_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    assert not in_use(Run(tmp_path / "run"))
    with pytest.raises(OSError, match="symbolic link") as caught, locked(Run(tmp_path / "run")):
        pass
    assert mistake(caught.value).endswith("a link is where none is followed: delete it, or name another place")
    assert precious.read_text() == "{}"
    (tmp_path / "other" / ".lock").mkdir(parents=True)
    assert not in_use(Run(tmp_path / "other"))


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("predictions", "tables"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="predictions is a link to"):
        Run(tmp_path).write_predictions("shenzhen", SPLIT)
    with pytest.raises(InputError, match="tables is a link to"):
        write_tables(PAGE, tmp_path)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_stays_as_it_was_where_writing_fails(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.record(epochs=3)
    with pytest.raises(TypeError):
        run.record(epochs=torch.Tensor)
    run.write_predictions("test", SPLIT)
    with pytest.raises((TypeError, ValueError)):
        run.write_predictions("test", pd.DataFrame({"view": ["PA", 1]}))
    assert json.loads((tmp_path / "environment.json").read_text()) == {"epochs": 3}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["environment.json", "predictions", "test.parquet"]
