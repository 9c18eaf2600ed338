"""Of a search each model's best trial by validation loss is evaluated, and unequal searches are warned of."""

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from lungdet.evaluation import caveats, report, summary
from lungdet.evaluation.gathering import trials
from lungdet.evaluation.gathering.families import require_pairs
from lungdet.evaluation.gathering.models import group
from lungdet.evaluation.gathering.results import EvaluationError, collect
from lungdet.evaluation.sections.contract import Study
from tests.fake_runs import write_run


def trial(folder: Path, model: str, number: int, loss: float | None, **more) -> Path:
    """A run as a search leaves it; the higher its number, the better it does on the test part."""
    config = {"model.learning_rate": 0.001 * (number + 1), "sweep.searched": ["model.learning_rate"], "sweep.name": "x"}
    run = write_run(folder / f"{number}_{model}", model, config=config, skill=number, **more)
    if loss is not None:
        pd.DataFrame({"epoch": [0, 1], "train/loss": [1, 0.1], "val/loss": [loss, loss + 1]}).to_csv(
            run / "metrics.csv", index=False
        )
    return run


def evaluated(folder: Path) -> tuple[dict, Study]:
    results, skipped = collect([folder])
    results = trials.best(results)
    require_pairs(results)
    models, left_out = group(results)
    study = summary.study_of(models, skipped + left_out, "youden", None, folder / "report", 100)
    return summary.summarise(study), study


def reported(folder: Path) -> tuple[dict, str]:
    numbers, study = evaluated(folder)
    report.write(numbers, study)
    return numbers, (folder / "report/report.md").read_text()


def test_of_each_model_the_trial_with_the_lowest_validation_loss_is_evaluated(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        for number, loss in enumerate((0.6, 0.5, 0.7)):  # the last is best on the test part
            trial(tmp_path, model, number, loss)
    numbers, text = reported(tmp_path)
    assert {name: [run["run"] for run in block["runs"]] for name, block in numbers["models"].items()} == {
        "cnn": ["../1_cnn"],
        "cnn_lstm": ["../1_cnn_lstm"],
    }
    assert [(model["model"], model["trials"], model["loss"]) for model in numbers["search"]] == [
        ("cnn", 3, 0.5),
        ("cnn_lstm", 3, 0.5),
    ]
    assert [run["run"] for run in numbers["search"][0]["tried"]] == ["../1_cnn", "../0_cnn", "../2_cnn"]
    assert "Every model had the same number of trials, 3" in text
    assert "Unequal search" not in text
    assert "| CNN | `../2_cnn` | 0.003 | 0.7000 |" in text


def test_unequal_numbers_of_trials_are_warned_of_among_the_caveats(tmp_path):
    for number in range(3):
        trial(tmp_path, "cnn", number, 0.5)
    trial(tmp_path, "cnn_lstm", 0, 0.5)
    trial(tmp_path, "cnn_lstm", 1, None, finished=False)  # failed: does not count
    numbers, text = reported(tmp_path)
    [caveat] = [caveat for caveat in caveats.caveats(numbers) if "Unequal search" in caveat]
    assert "CNN 3 and CNN-LSTM 1" in caveat
    assert "Every model had the same number" not in text


def test_a_model_that_was_not_searched_at_all_is_warned_of_even_beside_a_single_trial(tmp_path):
    trial(tmp_path, "cnn", 0, 0.5)
    write_run(tmp_path / "plain", "cnn_lstm")
    [caveat] = [caveat for caveat in caveats.caveats(evaluated(tmp_path)[0]) if "Unequal search" in caveat]
    assert "CNN 1 and CNN-LSTM none" in caveat


def test_the_best_trial_and_later_runs_of_its_values_are_seeds_of_one_model(tmp_path):
    for number, loss in enumerate((0.6, 0.5)):
        trial(tmp_path, "cnn", number, loss)
    write_run(tmp_path / "more", "cnn", seed=1, config={"model.learning_rate": 0.002})
    numbers, _ = evaluated(tmp_path)
    assert [block["seeds"] for block in numbers["models"].values()] == [[0, 1]]


def test_searches_that_differ_in_more_than_what_was_searched_are_told_apart(tmp_path):
    for resize in ("pad", "crop"):
        for place in (0, 1):
            run = trial(tmp_path / resize, "cnn", place, 0.5 + place)
            config = OmegaConf.load(run / "config.yaml")
            config.data.resize = resize
            OmegaConf.save(config, run / "config.yaml")
    results = trials.best(collect([tmp_path])[0])
    assert sorted((result.run.config.data.resize, len(result.trials)) for result in results) == [
        ("crop", 2),
        ("pad", 2),
    ]


def test_which_is_best_is_not_guessed_where_a_validation_loss_is_not_recorded(tmp_path):
    trial(tmp_path, "cnn", 0, 0.9)
    trial(tmp_path, "cnn", 1, None)
    with pytest.raises(EvaluationError, match=r"1_cnn/metrics\.csv: no validation loss"):
        trials.best(collect([tmp_path])[0])
