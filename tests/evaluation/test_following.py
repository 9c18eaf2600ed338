"""The commands that a report ends with are those of the runs at hand, and can be pasted."""

from pathlib import Path
from types import SimpleNamespace

from lungdet.evaluation.following import following, more_seeds


def result(*words: str, seed: int = 0, folder: str = "outputs/sweeps/try/a", trials: tuple = ()) -> SimpleNamespace:
    run = SimpleNamespace(environment={"overrides": [*words], "own_configuration": []}, folder=Path(folder))
    return SimpleNamespace(run=run, seed=seed, trials=trials)


def test_more_seeds_are_trained_by_the_words_that_the_runs_were_made_with():
    results = [result(f"model={model}", "seed=4", "+data.note=a b", seed=4) for model in ("cnn", "cnn_lstm")]
    assert more_seeds(results) == ("python train.py -m model=cnn,cnn_lstm '+data.note=a b' seed=0,1,2,4 sweep.name=try")
    assert (
        more_seeds([result("model=cnn", "sweep.name=try")]) == "python train.py -m model=cnn sweep.name=try seed=0,1,2"
    )
    elsewhere = [result("model=cnn", folder="outputs/runs/a")]
    assert more_seeds(elsewhere) == "python train.py -m model=cnn seed=0,1,2"


def test_runs_that_are_no_grid_or_the_best_of_a_search_are_not_made_by_one_multirun():
    some = [result("model=cnn", "data.train_fraction=0.1"), result("model=cnn_lstm", "data.train_fraction=1")]
    assert more_seeds(some) is None
    assert more_seeds([result("model=cnn", trials=("a", "b"))]) is None


def test_what_was_asked_for_is_not_offered_again():
    summary = {
        "models": {"cnn": {"seeds": [0, 1, 2]}, "reader": {"seeds": [], "peer": {}}},
        "efficiency": {"models": {}},
        "threshold": {"asked": True},
        "data": {"external": None},
    }
    [(only, _)] = following(summary, [result()], ["runs=a", "predictions=b.csv"])  # which are of these images
    assert only == "python evaluate.py runs=a data=table data.table=FILE.csv data.root=IMAGES"
    offered = following(summary | {"efficiency": None, "threshold": {"asked": False}}, [result()], ["runs=a"])
    assert [text.partition("runs=a ")[2].partition("=")[0] for text, _ in offered] == [
        "efficiency",
        "threshold.rule",
        "data",
    ]
