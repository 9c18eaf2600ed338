"""Image quality: AUROC by degradation and level, its paired drop, which hurts most and whether models differ."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit
from sklearn.metrics import accuracy_score, roc_auc_score

from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import image_quality
from lungdet.evaluation.statistics import intervals
from lungdet.page import sentences
from lungdet.page.document import Figure, Table, flat
from tests.evaluation.gathering.test_parts import folds
from tests.evaluation.summaries import rendered, replicates, summarised
from tests.fake_runs import predictions, write_run

LEVELS = {"noise": (5, 40), "exposure": (0.5, 2), "compression": (50, 5)}


def write_degraded(run, loss, levels=LEVELS, labels=("abnormal",)):
    """Adds predictions of degraded test images, whose logits are drowned the more the larger the kind's loss."""
    test = pd.read_parquet(run / "predictions" / "test.parquet")
    tables = []
    for kind, some in levels.items():
        for place, level in enumerate(some):
            rng = np.random.default_rng(place)
            table = test[["image_id"]].assign(degradation=kind, level=float(level))
            for label in labels:
                noise = loss.get(kind, 0) * (place + 1) * rng.normal(size=len(test))
                logit = test[f"logit_{label}"] + noise
                table[f"logit_{label}"] = logit
                table[f"probability_{label}"] = expit(logit)
            tables.append(table)
    pd.concat(tables, ignore_index=True).to_parquet(run / "predictions" / "degraded_test.parquet")
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("degraded")
    for model, noise in (("cnn", 0.3), ("cnn_lstm", 6.0)):
        for seed in (0, 1, 2):
            run = write_run(folder / f"{model}{seed}", model, seed, {"chestxray14": 160}, skill=3.0)
            write_degraded(run, {"noise": noise, "compression": 0.2})
    return folder


@pytest.fixture(scope="module")
def numbers(folder):
    return summarised(folder, 300)


def test_each_level_has_its_own_metrics_and_the_drop_from_the_images_as_they_are(folder, numbers):
    results = [r for r in collect([folder])[0] if "CNNLSTM" in r.run.config.model._target_]
    block = numbers["models"]["cnn_lstm"]["image_quality"]["levels"]
    assert {kind: list(levels) for kind, levels in block.items()} == {
        "noise": ["5", "40"],
        "exposure": ["0.5", "2"],
        "compression": ["50", "5"],
    }
    for kind, level in (("noise", 40), ("compression", 50)):
        areas, falls, shares = [], [], []
        for result in results:
            rows = result.degraded.query("degradation == @kind and level == @level").sort_values("image_id")
            y, p = rows["target_abnormal"], rows["probability_abnormal"].astype(float)
            areas.append(roc_auc_score(y, p))
            shares.append(accuracy_score(y, p > 0.5))
            falls.append(roc_auc_score(result.test.target_abnormal, result.test.probability_abnormal) - areas[-1])
        found = block[kind][str(level)]
        assert found["test"]["auroc"] == pytest.approx(np.mean(areas))
        assert found["test"]["accuracy"] == pytest.approx(np.mean(shares))
        assert found["drop"]["auroc"] == pytest.approx(np.mean(falls))
        assert found["drop_sd"]["auroc"] == pytest.approx(np.std(falls, ddof=1))
    drops = numbers["models"]["cnn_lstm"]["image_quality"]["drops"]["drop"]
    assert drops["noise"] == pytest.approx(np.mean([block["noise"][level]["drop"]["auroc"] for level in ("5", "40")]))


def test_the_drop_is_paired_by_patient(tmp_path):
    run = write_run(tmp_path / "run", datasets={"chestxray14": 200})
    write_degraded(run, {"noise": 0.2}, {"noise": (5,)})
    [some] = replicates(tmp_path).values()
    found = image_quality.of_model(some, 2000).block["levels"]["noise"]["5"]
    test, degraded = some[0].test, some[0].first.degraded.sort_values("image_id", ignore_index=True)
    right = [((table["probability_abnormal"] > 0.5) == table["target_abnormal"]) for table in (test, degraded)]
    lost = (right[0].astype(int) - right[1]).groupby(test["patient_id"]).mean()
    low, high = found["drop_interval"]["accuracy"]
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 99) * lost.std() / 10, rel=0.12)
    whole = np.diff(found["test_interval"]["accuracy"])[0]
    assert high - low < 0.6 * whole


def test_unchanged_predictions_cost_nothing(numbers):
    found = numbers["models"]["cnn"]["image_quality"]["levels"]["exposure"]["0.5"]
    assert found["drop"] == {"auroc": 0, "accuracy": 0}
    assert found["drop_interval"]["auroc"] is None


def test_which_hurts_most_is_said_by_model_and_where_models_differ(numbers):
    [one] = numbers["image_quality_comparisons"]
    drops = [numbers["models"][name]["image_quality"]["drops"]["drop"] for name in ("cnn", "cnn_lstm")]
    assert one["metrics"]["noise"]["difference"] == pytest.approx(drops[1]["noise"] - drops[0]["noise"])
    assert sentences.significant(one, "noise")
    assert not sentences.significant(one, "compression")
    assert one["metrics"]["noise"]["p_holm"] == pytest.approx(3 * one["metrics"]["noise"]["p"])
    text = rendered(image_quality.tell(numbers))
    assert f"- CNN-LSTM loses most under noise: {drops[1]['noise']:.3f} of AUROC as the mean over its levels" in text
    assert "at the worst of them, deviation 40 grey levels." in text
    assert "CNN-LSTM's drop in AUROC under noise, the mean over its levels, is " in text
    assert "above CNN's" in text


def test_the_table_goes_from_mild_to_severe_in_words(numbers, drawn):
    blocks = [*flat(image_quality.tell(numbers))]
    [table] = [block for block in blocks if isinstance(block, Table)]
    assert [row[0] for row in table.rows] == [
        "as they are",
        "noise, deviation 5 grey levels",
        "noise, deviation 40 grey levels",
        "exposure, gamma 0.5 (brighter)",
        "exposure, gamma 2 (darker)",
        "compression, JPEG quality 50",
        "compression, JPEG quality 5",
    ]
    assert table.columns == ["Test images", "CNN", "CNN-LSTM"]
    found = numbers["models"]["cnn"]["image_quality"]["levels"]["noise"]["40"]
    low, high = found["drop_interval"]["auroc"]
    said = f"{found['test']['auroc']:.3f}; {found['drop']['auroc']:.3f} [{low:.3f} to {high:.3f}]"
    assert table.rows[2][1] == said
    [figure] = [block for block in blocks if isinstance(block, Figure)]
    assert "compression, JPEG quality 5: CNN 0." in figure.alt
    assert figure.svg.count("as is") == 3


def test_no_shown_loss_is_called_none(tmp_path):
    write_degraded(write_run(tmp_path / "run"), {})
    text = rendered(image_quality.tell(summarised(tmp_path, 100)))
    assert "its levels, no interval: no loss is shown (p 1.000, adjusted for all 3 degradations);" in text


@pytest.mark.parametrize(("p", "said"), [(0.09, "no loss is shown (p 0.090"), (0.02, "a loss is shown (p 0.020")])
def test_the_worst_of_many_drops_is_a_loss_only_where_it_is_more_than_selection(p, said):
    drops = {"drop": {"noise": 0.02, "blur": 0.01}, "drop_interval": {"noise": [0.001, 0.039], "blur": [-0.01, 0.03]}}
    levels = {kind: {"5": {"drop": {"auroc": 0.03}}} for kind in ("noise", "blur")}
    text = image_quality._worst("CNN", {"drops": drops | {"drop_p_holm": {"noise": p, "blur": 0.3}}, "levels": levels})
    assert f"95 % interval 0.001 to 0.039: {said}, adjusted for all 2 degradations); " in text


def test_the_p_values_of_drops_agree_with_their_intervals_and_are_adjusted_for_their_number(folder, numbers):
    found = image_quality.of_model(replicates(folder)["cnn_lstm"], 300)
    p = {kind: intervals.p_value(drop) for kind, drop in found.estimates.items()}
    for kind, ends in found.block["drops"]["drop_interval"].items():
        assert (p[kind] < 0.05) == (ends is not None and ends[0] * ends[1] > 0), kind
    assert p["noise"] < 0.001
    assert found.block["drops"]["drop_p_holm"]["noise"] == pytest.approx(3 * p["noise"])


def test_models_without_degraded_images_and_levels_one_lacks_are_named(tmp_path):
    write_degraded(write_run(tmp_path / "a", "cnn"), {"noise": 1.0})
    write_degraded(write_run(tmp_path / "b", "cnn_lstm"), {"noise": 1.0}, {"noise": (5,)})
    write_run(tmp_path / "c", "cnn_lstm", config={"model.sequence": "columns"})
    found = summarised(tmp_path, 100)
    assert found["models"]["cnn_lstm model.sequence=columns"]["image_quality"] is None
    for one in found["image_quality_comparisons"]:
        assert set(one["metrics"]) == {"noise"}
    text = rendered(image_quality.tell(found))
    assert "| noise, deviation 40 grey levels | 0." in text
    assert "| not predicted |" in text
    assert "CNN-LSTM sequence=columns predicted no degraded images." in text


def test_a_level_that_a_seed_lacks_has_no_mean_over_seeds(tmp_path):
    for seed, levels in ((0, (5, 40)), (1, (5,))):
        write_degraded(write_run(tmp_path / str(seed), seed=seed), {"noise": 1.0}, {"noise": levels})
    [some] = replicates(tmp_path).values()
    assert list(image_quality.of_model(some, 100).block["levels"]["noise"]) == ["5"]


def test_runs_without_any_say_how_to_predict_them(tmp_path):
    write_run(tmp_path / "run")
    numbers = summarised(tmp_path, 100)
    assert image_quality.tell(numbers) == []
    assert image_quality.unmeasured(numbers)[0].remedy == "`python train.py resume=RUN degrade=standard` for each run"


def test_one_class_has_no_drop(tmp_path):
    test = predictions({"chestxray14": 40}, seed=1).assign(target_abnormal=np.float32(1))
    write_degraded(write_run(tmp_path / "run", test=test), {"noise": 1.0})
    found = summarised(tmp_path, 100)
    block = found["models"]["cnn"]["image_quality"]["levels"]["noise"]["5"]
    assert block["drop"]["auroc"] is None
    assert block["undefined"]["drop"]["auroc"] == "as they are: no image is normal"
    assert block["drop"]["accuracy"] is not None
    text = rendered(image_quality.tell(found))
    assert "CNN: no drop is defined." in text
    assert "| undefined |" in text


def test_folds_are_pooled_and_a_fold_without_them_leaves_none(tmp_path):
    folds(tmp_path, of=2, models=("cnn",))
    for run in tmp_path.iterdir():
        write_degraded(run, {"noise": 1.0})
    [some] = replicates(tmp_path).values()
    found = image_quality.of_model(some, 100).block["levels"]["noise"]["5"]
    rows = pd.concat([result.degraded for result in some[0].results]).query("degradation == 'noise' and level == 5")
    assert found["test"]["auroc"] == pytest.approx(roc_auc_score(rows.target_abnormal, rows.probability_abnormal))
    (tmp_path / "cnn_0_fold1" / "predictions" / "degraded_test.parquet").unlink()
    [some] = replicates(tmp_path).values()
    assert image_quality.of_model(some, 100) is None
