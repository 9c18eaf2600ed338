"""A report says which published weights its runs began with, and what these may have seen."""

from pathlib import Path

import pytest

from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.sections import starts
from lungdet.runs.folder import load_run
from tests.fake_runs import evaluate, write_run

WEIGHTS = {"weights": "their.pth", "sha256": "ab", "origin": None, "seen": None}
UNKNOWN = "CNN starts from `their.pth`, and what these weights have learnt from is not known"
VALIDATED = "CNN starts from `their.pth`, weights that have learnt from chestxray14, nobody knows from which images"


@pytest.mark.parametrize(
    ("seen", "caveat"),
    [(None, UNKNOWN), (["chestxray14", "openi"], VALIDATED), (["openi"], None), ([], None)],
)
def test_weights_that_may_have_seen_an_image_are_a_caveat(seen: list[str] | None, caveat: str | None) -> None:
    run = {"seed": 0, "part": "test", "start": None, "origins": [WEIGHTS | {"seen": seen}]}
    models = {
        Model(name): {"settings": {"frozen": False}, "runs": [run | more]}
        for name, more in (("cnn", {}), ("cnn_lstm", {"origins": []}))
    }
    summary = {"data": {"parts": {"test": {"val_datasets": {"chestxray14": {}}}}}, "models": models}
    assert [sentence.startswith(caveat) for sentence in starts.caveats(summary)] == [True] * (caveat is not None)


@pytest.mark.parametrize(("seen", "words"), [(None, "not known"), ([], "no radiograph")])
def test_a_test_is_external_only_where_weights_are_known_not_to_have_seen_it(
    seen: list[str] | None, words: str, tmp_path: Path
) -> None:
    run = load_run(write_run(tmp_path / "run"))
    table = (run.folder / "split.csv").read_text()
    (run.folder / "split.csv").write_text(table.replace("chestxray14", "elsewhere"))
    sources = {"elsewhere": run.data["sources"]["chestxray14"]}
    run.record(origin=WEIGHTS | {"seen": seen}, data=run.data | {"sources": sources})
    numbers, _, out = evaluate(tmp_path, draws=100, external="chestxray14")
    assert numbers["data"]["external_test"] is (seen is not None)
    assert f"| `their.pth`, have seen: {words} |" in (out / "report.md").read_text()
    assert any(sentence.startswith(UNKNOWN) for sentence in caveats(numbers)) is (seen is None)
