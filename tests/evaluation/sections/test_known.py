"""Runs of an experiment whose result is published are told whether theirs lies there, and others are not compared."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from lungdet.evaluation.gathering.results import EvaluationError
from lungdet.evaluation.sections import known
from lungdet.runs.folder import load_run
from tests.fake_runs import evaluate, write_run

PUBLISHED = {
    "metric": "auroc",
    "published": [0.8],
    "low": 0.5,
    "high": 0.95,
    "data": "montgomery",
    "images": 68,
    "protocol": "random",
    "network": "a CNN",
    "source": "somebody, table 1",
}


def answer(**changes: object) -> known.Known:
    return known.Known(**PUBLISHED | changes)


def test_a_result_inside_the_band_is_said_to_be_there_first_and_with_its_source(tmp_path: Path) -> None:
    write_run(tmp_path / "run", datasets={"montgomery": 68}, skill=2, config={"known": PUBLISHED})
    numbers, written, out = evaluate(tmp_path, draws=100)
    facts = numbers["models"]["cnn"]["known"]
    assert (facts["place"], facts["reaches"], facts["differs"]) == ("inside", True, None)
    section = (out / "report.md").read_text().partition("## Known answer")[2].partition("\n## ")[0]
    assert "| 0.500 to 0.950 | 0.800 | inside the band |" in section
    assert "Published of a CNN: somebody, table 1." in section
    assert "is inside the band, 0.500 to 0.950, which published results of this experiment let expect" in written.answer
    elsewhere = facts | {"differs": "images", "place": None}
    numbers["models"]["cnn"]["known"] = elsewhere
    assert known.DIFFERENCES["images"] in known.tell(numbers)[0].rows[0]
    assert not known.verdicts(numbers)
    numbers["models"]["cnn"]["known"] = None
    assert not known.tell(numbers)


@pytest.mark.parametrize(
    ("value", "ends", "expected"),
    [
        (0.5, (0.4, 0.6), ("inside", True)),
        (0.95, None, ("inside", None)),
        (0.49, (0.3, 0.5), ("below", True)),
        (0.49, (0.3, 0.499), ("below", False)),
        (0.96, (0.951, 0.97), ("above", False)),
        (0.96, (0.9, 0.97), ("above", True)),
        (None, None, (None, None)),
    ],
)
def test_a_result_lies_inside_below_or_above(value: float | None, ends: tuple | None, expected: tuple) -> None:
    assert known.place(value, ends, answer()) == expected


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (None, {}),
        ("synthetic", {"synthetic": True}),
        ("data", {"external": "montgomery"}),
        ("data", {"datasets": ["montgomery", "shenzhen"]}),
        ("protocol", {"protocol": "folds"}),
        ("images", {"datasets": ["montgomery"] * 3}),
        ("network", {"overrides": ["model=cnn_lstm"]}),
        ("network", {"overrides": ["model/backbone=timm"]}),
        ("network", {"overrides": ["++task=abnormal"]}),
        (None, {"overrides": ["model.backbone.weights=FILE", "seed=1"]}),
        ("training", {"train_fraction": 0.5}),
        ("training", {"train_on": ["montgomery"]}),
    ],
)
def test_another_experiment_is_not_compared_with_it(expected: str | None, changes: dict) -> None:
    facts = {"synthetic": False, "external": None, "datasets": ["montgomery"] * 2, "protocol": "random"} | changes
    split = {"protocol": facts["protocol"]}
    run = SimpleNamespace(environment={"split": split, "overrides": changes.get("overrides", [])})
    replicate = SimpleNamespace(first=SimpleNamespace(run=run), test=pd.DataFrame({"dataset": facts["datasets"]}))
    settings = {"train_on": None, "train_fraction": 1.0, "train_prevalence": None} | changes
    study = SimpleNamespace(
        first=replicate, settings={"cnn": settings}, **{key: facts[key] for key in ("synthetic", "external")}
    )
    assert known.differing(study, "cnn", answer(images=2)) == expected
    assert expected is None or expected in known.DIFFERENCES


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 0.9, "high": 0.8}, r"config\.yaml: known: low=0\.9, high=0\.8"),
        ({"band": 3}, r"config\.yaml: known says band, .*; metric, published, .* are needed"),
    ],
)
def test_a_band_that_is_none_is_refused_by_its_file(values: dict, message: str, tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", config={"known": PUBLISHED | values}))
    with pytest.raises(EvaluationError, match=message):
        known.of_run(run)
    assert known.of_run(load_run(write_run(tmp_path / "other"))) is None
