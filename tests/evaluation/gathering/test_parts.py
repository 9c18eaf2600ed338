"""Runs on folds or held-out sources are one model's test: paired part by part, pooled, and never partial unnoticed."""

import numpy as np
import pytest

from lungdet.evaluation.answer import answer
from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.gathering.families import require_one_part
from lungdet.evaluation.gathering.models import group
from lungdet.evaluation.gathering.results import EvaluationError, collect
from lungdet.evaluation.statistics import metrics
from tests.evaluation.summaries import summarised
from tests.fake_runs import evaluate, fold_of, predictions, without_source, write_run

SOURCES = {"chestxray14": 40, "montgomery": 20, "shenzhen": 20}


def folds(folder, of=3, models=("cnn", "cnn_lstm"), seeds=(0,), without=(), **more):
    """Each model under each seed on each fold but those `without`: (model, seed, fold)."""
    for model in models:
        for seed in seeds:
            for fold in range(of):
                if (model, seed, fold) not in without:
                    draw = 1000 * fold + 100 * len(model) + seed
                    test = predictions({"chestxray14": 30 + 10 * fold}, seed=50 + fold, draw=draw)
                    val = predictions({"chestxray14": 40}, seed=500 + fold, draw=draw)
                    config = {"data.fold": fold, "data.folds": of, "data.split": "folds"}
                    known = {"test": test, "val": val, "split": fold_of(fold, of), "config": config}
                    write_run(folder / f"{model}_{seed}_fold{fold}", model, seed, **known, **more)
    return folder


def sources(folder, held_out=tuple(SOURCES), models=("cnn", "cnn_lstm")):
    for model in models:
        for source in held_out:
            test = predictions({source: SOURCES[source]}, seed=7, draw=len(model))
            config = {"data.split": "leave_one_source_out", "data.held_out": source}
            name = f"{model}_{source}"
            write_run(folder / name, model, 0, SOURCES, test=test, split=without_source(source), config=config)
    return folder


@pytest.fixture(scope="module")
def of_folds(tmp_path_factory):
    """Both models on three folds, evaluated: (summary, document, folder of the report)."""
    return evaluate(folds(tmp_path_factory.mktemp("folds")))


def test_folds_of_one_model_are_one_test_with_each_image_once(tmp_path):
    numbers = summarised(folds(tmp_path, seeds=(0, 1)))
    assert list(numbers["models"]) == ["cnn", "cnn_lstm"]
    assert numbers["data"]["test"]["images"] == 30 + 40 + 50
    models, _ = group(collect([tmp_path])[0])
    for name, replicates in models.items():
        assert [one.seed for one in replicates] == [0, 1]
        pooled = replicates[1].test
        assert pooled.image_id.is_unique
        expected = np.mean([metrics.auroc(one.test.target_abnormal, one.test.logit_abnormal) for one in replicates])
        assert numbers["models"][name]["test"]["auroc"] == pytest.approx(expected)
    assert "120 test images of 60 patients, each tested once in 3 folds (2 seeds)" in answer(numbers)


def test_mean_and_spread_over_folds_stand_beside_the_pooled_numbers(of_folds):
    numbers, _, out = of_folds
    block = numbers["models"]["cnn"]
    runs = {run.run.name: run for run in collect([out.parent])[0]}
    areas = []
    for fold in range(3):
        test = runs[f"cnn_0_fold{fold}"].test
        areas.append(metrics.auroc(test.target_abnormal, test.logit_abnormal))
        assert block["parts"][f"fold {fold}"]["test"]["auroc"] == pytest.approx(areas[-1])
        assert block["parts"][f"fold {fold}"]["images"] == 30 + 10 * fold
    assert block["over_parts"]["test"]["auroc"] == pytest.approx(np.mean(areas))
    assert block["over_parts"]["test_sd"]["auroc"] == pytest.approx(np.std(areas, ddof=1))
    text = (out / "report.md").read_text()
    assert "## Fold by fold" in text
    assert f"| CNN | mean ± SD of 3 |  |  | {100 * block['over_parts']['test']['accuracy']:.1f} ± " in text


def test_each_fold_is_called_at_the_threshold_its_own_run_chose(of_folds):
    numbers, _, out = of_folds
    calls = []
    for run in numbers["models"]["cnn"]["runs"]:
        [result] = collect([out / run["run"]])[0]
        calls += ((result.test.probability_abnormal > run["threshold"]) == result.test.target_abnormal).tolist()
    assert numbers["models"]["cnn"]["at_validation_threshold"]["accuracy"] == pytest.approx(np.mean(calls))
    assert len({run["threshold"] for run in numbers["models"]["cnn"]["runs"]}) == 3


def test_missing_folds_are_named_on_the_first_screen(tmp_path):
    numbers = summarised(folds(tmp_path, models=("cnn",), without=[("cnn", 0, 1)]))
    assert numbers["parts"]["missing"] == ["fold 1"]
    assert "only fold 0 and fold 2 of 3 folds" in answer(numbers)
    assert any("1 fold of 3 missing: fold 1." in caveat for caveat in caveats(numbers))


def test_a_fold_that_one_model_lacks_is_left_out_for_all_and_listed(tmp_path):
    numbers = summarised(folds(tmp_path, without=[("cnn_lstm", 0, 2)]))
    assert numbers["parts"]["present"] == ["fold 0", "fold 1"]
    assert numbers["data"]["test"]["images"] == 70
    [left_out] = numbers["not_evaluated"]
    assert left_out["run"] == "../cnn_0_fold2"
    assert "fold 2 is left out" in left_out["reason"]
    assert "cnn_lstm, seed 0" in left_out["reason"]


def test_models_without_a_common_fold_are_refused(tmp_path):
    folds(tmp_path, of=2, without=[("cnn", 0, 0), ("cnn_lstm", 0, 1)])
    with pytest.raises(EvaluationError, match=r"no fold or held-out source was run by every model(.|\n)*cnn, seed 0"):
        evaluate(tmp_path)


def test_folds_pair_within_each_fold_only_with_the_same_images_and_labels(tmp_path):
    folds(tmp_path)
    other = predictions({"chestxray14": 30}, seed=99)
    write_run(tmp_path / "other", "cnn", 5, test=other, split=fold_of(0, 3), config={"data.fold": 0, "data.folds": 3})
    with pytest.raises(EvaluationError, match="their test parts differ"):
        evaluate(tmp_path)


@pytest.mark.parametrize("split", [fold_of(0, 5), None, without_source("chestxray14")])
def test_folds_are_not_mixed_with_other_splits(tmp_path, split):
    folds(tmp_path, models=("cnn",))
    test = predictions({"chestxray14": 30}, seed=50)
    write_run(tmp_path / "zz", "cnn_lstm", test=test, split=split)
    with pytest.raises(EvaluationError, match="their test parts differ"):
        evaluate(tmp_path)


def test_folds_of_another_seed_are_another_cross_validation(tmp_path):
    folds(tmp_path, models=("cnn",))
    folds(tmp_path / "b", models=("cnn_lstm",), split_seed=1)
    with pytest.raises(EvaluationError, match="their test parts differ"):
        evaluate(tmp_path)


def test_an_image_in_two_folds_is_refused(tmp_path):
    for fold in (0, 1):
        test = predictions({"chestxray14": 30 + fold}, seed=50)
        write_run(tmp_path / str(fold), test=test, split=fold_of(fold, 2), config={"data.fold": fold})
    with pytest.raises(EvaluationError, match=r"both were tested on 30 image\(s\)"):
        evaluate(tmp_path)


def test_the_same_fold_twice_under_one_seed_is_refused(tmp_path):
    folds(tmp_path / "a", models=("cnn",))
    folds(tmp_path / "b", models=("cnn",))
    with pytest.raises(EvaluationError, match="same model with the same seed 0 on fold 0"):
        evaluate(tmp_path)


def test_held_out_sources_become_one_table(tmp_path):
    numbers, written, out = evaluate(sources(tmp_path))
    assert list(numbers["models"]) == ["cnn", "cnn_lstm"]
    assert {n: b["images"] for n, b in numbers["models"]["cnn"]["parts"].items()} == SOURCES
    assert "chestxray14, montgomery and shenzhen each held out in turn" in written.answer
    text = (out / "report.md").read_text()
    assert "## Held-out source by held-out source" in text
    assert "| CNN-LSTM | shenzhen | 20 | " in text


def test_a_source_that_was_never_held_out_is_named(tmp_path):
    numbers = summarised(sources(tmp_path, held_out=("montgomery", "shenzhen"), models=("cnn",)))
    assert numbers["parts"]["missing"] == ["chestxray14"]
    assert any("1 held-out source of 3 missing: chestxray14." in caveat for caveat in caveats(numbers))


def test_another_fraction_of_the_training_patients_is_another_model(tmp_path):
    test = predictions({"chestxray14": 40}, seed=1)
    for fraction, split in ((1.0, {}), (0.1, {"train_fraction": 0.1})):
        run = write_run(tmp_path / str(fraction), test=test, split=split, config={"data.train_fraction": fraction})
        environment = (run / "environment.json").read_text()
        (run / "environment.json").write_text(environment.replace('"hash": "split', f'"hash": "split{fraction}'))
    assert list(group(collect([tmp_path])[0])[0]) == [
        "cnn data.train_fraction=0.1",
        "cnn data.train_fraction=1.0",
    ]


def test_networks_of_several_folds_do_not_score_other_data_together(tmp_path):
    folds(tmp_path, models=("cnn",))
    results, _ = collect([tmp_path])
    with pytest.raises(EvaluationError, match="networks of several folds"):
        require_one_part(results)
    require_one_part(results[:1])


def test_a_single_folds_network_on_other_data_misses_no_fold(tmp_path):
    folds(tmp_path, models=("cnn",), without=[("cnn", 0, 1), ("cnn", 0, 2)])
    numbers, written, _ = evaluate(tmp_path, external="shenzhen")
    assert numbers["parts"] is None
    assert "fold" not in written.answer
