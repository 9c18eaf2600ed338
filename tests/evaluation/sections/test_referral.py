"""Referral: what is reached on the images that a model keeps is what counting them one by one gives."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lungdet.evaluation.gathering.models import Model, group
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import confusion, referral
from lungdet.evaluation.statistics import selective
from lungdet.evaluation.statistics.bootstrap import multiplicities
from lungdet.evaluation.statistics.cases import Undefined
from lungdet.findings import FINDINGS
from lungdet.page import document
from lungdet.page.html import html
from lungdet.page.markdown import markdown
from tests.fake_runs import consistent, fold_of, predictions, write_run

HALF = [{"abnormal": 0.0}]


def replicates(folder, *tables: pd.DataFrame, **more) -> list:
    """One model under as many seeds."""
    for seed, table in enumerate(tables):
        write_run(folder / f"run{seed}", "cnn", seed, test=table, **more)
    [some] = group(collect([folder])[0])[0].values()
    return some


def measured(some: list, cuts: list, draws: int) -> dict:
    return referral.of_model([one.test for one in some], some[0].labels, cuts, draws)


def with_ties(seed: int, images: int = 80) -> pd.DataFrame:
    table = predictions({"chestxray14": images}, seed=seed, skill=1.5)
    return consistent(table.assign(probability_abnormal=table.probability_abnormal.round(1)))


def counted(y, logit, per_cent: int) -> dict[str, float]:
    """A plain loop over the surest, and over those as sure as the last of them."""
    least = sorted(map(abs, logit), reverse=True)[math.ceil(len(y) * per_cent / 100) - 1]
    kept = [i for i in range(len(y)) if abs(logit[i]) >= least]
    right = [i for i in kept if (logit[i] > 0) == y[i]]
    of_class = {value: [i for i in kept if y[i] == value] for value in (0, 1)}
    hits = {value: len([i for i in right if y[i] == value]) for value in (0, 1)}
    return {
        "accuracy": len(right) / len(kept),
        "recall": hits[1] / len(of_class[1]) if of_class[1] else math.nan,
        "specificity": hits[0] / len(of_class[0]) if of_class[0] else math.nan,
    }


def rendered(found: dict, seeds: int = 1, task: str = "abnormal") -> str:
    """Both sections of two models that both found this; JSON-ready."""
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    block = {"seeds": list(range(seeds)), "referral": found}
    summary = {"task": task, "models": {Model("cnn"): block, Model("cnn_lstm"): block}}
    summary |= {"threshold": {"rule": "youden", "at": None, "asked": False}}
    matrices = [confusion.matrix(summary, key) for key in ("test", "at_validation_threshold")]
    sections = [
        document.Section("Referral", referral.tell(summary)),
        document.Section("Confusion matrix", matrices),
    ]
    whole = document.Document("title", "answer", sections)
    assert "<table>" in html(whole)
    return markdown(whole)


def test_what_is_reached_on_the_images_kept_is_counted_one_by_one(tmp_path):
    some = replicates(tmp_path, predictions({"chestxray14": 80}, skill=1.5), with_ties(0))
    kept = measured(some, HALF * 2, 5)["kept"]
    assert [*map(int, kept)] == [*selective.KEPT]
    for per_cent, block in kept.items():
        by_seed = [counted(one.test.target_abnormal, one.test.logit_abnormal, int(per_cent)) for one in some]
        for metric in selective.METRICS:
            expected = np.mean([one[metric] for one in by_seed])
            assert block["test"][metric] == pytest.approx(expected), (metric, per_cent)


def test_images_stay_kept_or_referred_when_patients_are_redrawn():
    table = with_ties(1, 60)
    table.loc[table.logit_abnormal.abs().nsmallest(12).index, "target_abnormal"] = np.nan
    low, high = selective.of_model([table], ("abnormal",), 200)["80"]["test_interval"]["gain"]
    known, sure = table.target_abnormal.notna().to_numpy(), table.logit_abnormal.abs().to_numpy()
    kept = known & (sure >= np.sort(sure[known])[-38])  # of 48, and ties
    right = (table.logit_abnormal > 0) == table.target_abnormal
    patient, patients = pd.factorize(table.patient_id)
    weight = np.concatenate([times for _, times in multiplicities(len(patients), 200)])[:, patient]
    gains = weight @ (kept & right) / (weight @ kept) - weight @ (known & right) / (weight @ known)
    error = np.std(gains, ddof=1) * np.sqrt(len(patients) / (len(patients) - 1))
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, len(patients) - 1) * error)


def test_a_model_that_knows_where_it_errs_gains_and_the_sentence_says_how_much(tmp_path):
    table = predictions({"chestxray14": 200})
    wrong = np.arange(200) % 5 == 0
    sure = (np.where(wrong, 0.1, 0.4) + 1e-4 * np.arange(200)) * np.where(wrong != (table.target_abnormal == 1), 1, -1)
    table["probability_abnormal"] = (0.5 + sure).astype(np.float32)
    found = measured(replicates(tmp_path, table), HALF, 200)
    assert found["kept"]["80"]["test"] == pytest.approx({"accuracy": 1, "recall": 1, "specificity": 1, "gain": 0.2})
    assert found["kept"]["90"]["test"]["accuracy"] == pytest.approx(8 / 9)
    low, high = found["kept"]["80"]["test_interval"]["gain"]
    assert low < 0.2 < high
    text = rendered(found)
    assert (
        "CNN: referring the 20 % of images that it is least sure of to a reader raises accuracy on the rest from 80.0 "
        f"% to 100.0 %, by 20.0 points, 95 % interval {100 * low:.1f} to {100 * high:.1f}: a gain is shown, for these "
        "very runs."
    ) in text
    assert ": a gain is shown." in rendered(found, seeds=3)
    assert "| CNN | 90 | 88.9 [" in text
    assert (
        "![Accuracy on the images that a model is surest of. In per cent: CNN: 80.0 on 100 %, 88.9 on 90 %, 100.0 on"
        in text
    )


def test_a_model_that_is_surest_where_it_errs_loses(tmp_path):
    table = predictions({"chestxray14": 200})
    wrong = np.arange(200) % 5 == 0
    sure = (np.where(wrong, 0.4, 0.1) + 1e-4 * np.arange(200)) * np.where(wrong != (table.target_abnormal == 1), 1, -1)
    table["probability_abnormal"] = (0.5 + sure).astype(np.float32)
    found = measured(replicates(tmp_path, table), HALF, 200)
    assert found["kept"]["80"]["test"]["gain"] == pytest.approx(-0.05)
    assert "lowers accuracy on the rest from 80.0 % to 75.0 %, by 5.0 points" in rendered(found)
    assert ": a loss is shown, for these very runs." in rendered(found)


def test_of_equally_unsure_images_all_stay_and_the_sentence_says_how_many_go(tmp_path):
    table = predictions({"chestxray14": 200}, skill=1.5)
    unsure = [0.4] * 14 + [0.3] * 60 + [0.1] * 126
    found = measured(replicates(tmp_path, consistent(table.assign(probability_abnormal=unsure))), HALF, 20)
    assert found["kept"]["50"]["referred"] == pytest.approx(0.37)
    assert "referring the 7 % of images" in rendered(found)


def test_the_confusion_matrix_is_scikit_learns_at_both_thresholds_and_a_mean_over_seeds(tmp_path):
    from sklearn.metrics import confusion_matrix

    tables = [predictions({"chestxray14": 90}, draw=draw, skill=1.5) for draw in (0, 1)]
    for table in tables:
        table.loc[:4, "target_abnormal"] = np.nan
    some = replicates(tmp_path, *tables)
    found = measured(some, [{"abnormal": -0.8}, {"abnormal": 0.4}], 20)["confusion"]["abnormal"]
    for key, cuts in (("test", (0, 0)), ("at_validation_threshold", (-0.8, 0.4))):
        expected = []
        for one, cut in zip(some, cuts, strict=True):
            rows = one.test.dropna(subset="target_abnormal")
            expected.append(confusion_matrix(rows.target_abnormal, rows.logit_abnormal > cut).ravel())
        tn, fp, fn, tp = np.mean(expected, axis=0)
        assert found[key] == {"tp": tp, "fp": fp, "tn": tn, "fn": fn}
        assert sum(found[key].values()) == 85
    text = rendered(measured(some, HALF * 2, 20), seeds=2)
    cells = " | ".join(f"{found['test'][kind]:.1f}" for kind in ("tp", "fn", "fp", "tn"))
    assert f"| CNN | {cells} |" in text
    assert "Images with a known label at threshold 0.5, means over seeds." in text
    assert "means over seeds" in text


def test_folds_are_pooled_and_each_image_is_called_at_its_own_threshold(tmp_path):
    for fold in range(2):
        table = predictions({"chestxray14": 40 + 40 * fold}, seed=fold, skill=1.5)
        write_run(tmp_path / f"fold{fold}", "cnn", 0, test=table, split=fold_of(fold, 2), config={"data.fold": fold})
    [[one]] = group(collect([tmp_path])[0])[0].values()
    test = one.test
    cut = pd.Series(np.where(test["image_id"].isin(one.parts["fold 0"].test["image_id"]), -1.4, 0.8))
    found = measured([one], [{"abnormal": cut}], 20)["confusion"]["abnormal"]
    calls = test.logit_abnormal > cut
    assert found["at_validation_threshold"]["tp"] == (calls & (test.target_abnormal == 1)).sum()
    assert found["at_validation_threshold"]["fn"] == (~calls & (test.target_abnormal == 1)).sum()
    assert sum(found["test"].values()) == 120


def test_findings_are_sorted_each_by_itself_and_averaged(tmp_path):
    table = predictions({"chestxray14": 80}, labels=FINDINGS, skill=1.5)
    some = replicates(tmp_path, table, task="findings")
    found = measured(some, [dict.fromkeys(FINDINGS, 0.4)], 20)
    each = [
        counted(some[0].test[f"target_{name}"], some[0].test[f"logit_{name}"], 80) for name in ("effusion", "nodule")
    ]
    for metric in ("accuracy", "recall"):
        assert found["kept"]["80"]["test"][metric] == pytest.approx(np.mean([one[metric] for one in each]))
    assert set(found["confusion"]) == set(FINDINGS)
    text = rendered(found, task="findings")
    assert "for each finding by itself; means over findings" in text
    one = found["confusion"]["effusion"]["at_validation_threshold"]
    assert f"| effusion | CNN | {one['tp']:.0f} | {one['fn']:.0f} | {one['fp']:.0f} | {one['tn']:.0f} |" in text
    assert "| hernia |" not in text


def test_what_is_undefined_for_one_finding_has_no_mean(tmp_path):
    table = predictions({"chestxray14": 80}, labels=FINDINGS)
    carries = table.target_nodule == 1
    table["probability_nodule"] = np.where(carries, 0.5, 0.1).astype(np.float32)  # unsure of all that have it
    found = measured(replicates(tmp_path, table, task="findings"), [dict.fromkeys(FINDINGS, 0.4)], 20)
    assert found["kept"]["50"]["test"]["recall"] is None
    assert found["kept"]["50"]["undefined"]["test"]["recall"] == "no image is abnormal"
    assert found["kept"]["50"]["test"]["accuracy"] is not None


def test_a_threshold_that_could_not_be_chosen_leaves_its_row_undefined(tmp_path):
    some = replicates(tmp_path, predictions({"chestxray14": 40}))
    found = measured(some, [{"abnormal": Undefined("one class in validation")}], 20)
    assert found["confusion"]["abnormal"]["at_validation_threshold"] is None
    text = rendered(found)
    assert "| CNN | undefined | undefined | undefined | undefined |" in text
    assert "Undefined: there is no threshold: one class in validation." in text


@pytest.mark.parametrize(
    "name", ["ten rows", "normal", "abnormal", "unlabelled", "one patient", "one answer", "unsure"]
)
def test_damaged_test_parts_are_evaluated_as_far_as_they_can_be(tmp_path, name):
    table = predictions({"chestxray14": 10 if name == "ten rows" else 60})
    change = {
        "normal": {"target_abnormal": np.float32(0)},
        "abnormal": {"target_abnormal": np.float32(1)},
        "unlabelled": {"target_abnormal": np.float32("nan")},
        "one patient": {"patient_id": "chestxray14/1"},
        "one answer": {"probability_abnormal": np.float32(0.8)},
        "unsure": {"probability_abnormal": np.float32(0.5)},
    }.get(name, {})
    table = table.assign(**change)
    found = measured(replicates(tmp_path, table), HALF, 30)
    text = rendered(found)
    if name == "unlabelled":
        assert "CNN: no accuracy is defined (no image has a known label)." in text
    if name == "normal":
        assert found["kept"]["50"]["undefined"]["test"]["recall"] == "no image is abnormal"
    if name == "one patient":
        assert "no interval (a single patient: nothing says how others would differ): no gain is shown." in text
    if name in ("one answer", "unsure"):
        accuracy = found["kept"]["100"]["test"]["accuracy"]
        assert all(one["test"]["accuracy"] == pytest.approx(accuracy) for one in found["kept"].values())
        assert "CNN: it is equally unsure of more than 20 % of the images, so none is referred." in text
