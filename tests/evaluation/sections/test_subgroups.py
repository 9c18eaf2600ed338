"""Subgroups are measured as each would be alone, and a gap is shown only if selection does not explain it."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lungdet.evaluation.gathering import models
from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import subgroups
from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.bootstrap import multiplicities, replicate
from lungdet.evaluation.statistics.cases import Case
from lungdet.evaluation.statistics.subgroups import of_model
from lungdet.findings import FINDINGS
from lungdet.page import document
from lungdet.page.html import html
from lungdet.page.markdown import markdown
from tests.fake_runs import fold_of, predictions, write_run

HALF = [{"abnormal": 0.0}]


def described(images: int = 240, seed: int = 0, draw: int = 0, skill: float = 1.5) -> pd.DataFrame:
    """Predictions of patients with two images each, of both sexes, two views and all ages."""
    table = predictions({"chestxray14": images}, seed=seed, draw=draw, skill=skill)
    rng = np.random.default_rng(seed)
    patient = np.arange(images) // 2
    return table.assign(
        sex=rng.choice(["F", "M"], images // 2)[patient],
        age=rng.integers(5, 90, images // 2)[patient].astype(np.float32),
        view=rng.choice(["AP", "PA"], images),
    )


def replicates(folder, *tables: pd.DataFrame, **more) -> list:
    """One model under as many seeds."""
    for seed, table in enumerate(tables):
        write_run(folder / f"run{seed}", "cnn", seed, test=table, **more)
    [some] = models.group(collect([folder])[0])[0].values()
    return some


def measured(some: list, cuts: list, draws: int) -> dict:
    return of_model([one.test for one in some], some[0].labels, cuts, draws)


def rendered(found: dict, seeds: int = 1, task: str = "abnormal") -> str:
    """The section of two models that both found this; JSON-ready."""
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    block = {"seeds": list(range(seeds)), "subgroups": found}
    content = subgroups.tell({"task": task, "models": {Model("cnn"): block, Model("cnn_lstm"): block}})
    whole = document.Document("title", "answer", [document.Section("Subgroups", content)])
    assert "<table>" in html(whole) or not found["attributes"]
    return markdown(whole)


def test_every_group_is_measured_as_scikit_learn_measures_its_images(tmp_path):
    from sklearn import metrics as sk

    tables = [described(draw=draw) for draw in (0, 1)]
    some = replicates(tmp_path, *tables)
    found = measured(some, [{"abnormal": -0.8}, {"abnormal": 0.4}], 50)
    assert list(found["attributes"]) == ["sex", "age", "view", "visit"]
    for attribute, value, group in (("sex", "F", "female"), ("view", "PA", "PA"), ("visit", 1, "second")):
        block = found["attributes"][attribute][group]
        own = [one.test[one.test[attribute] == value] for one in some]
        assert block["images"] == len(own[0])
        assert block["patients"] == own[0].patient_id.nunique()
        assert block["abnormal"] == own[0].target_abnormal.sum()
        for key, cuts in (("test", (0, 0)), ("at_validation_threshold", (-0.8, 0.4))):
            calls = [(t.target_abnormal, t.logit_abnormal > cut) for t, cut in zip(own, cuts, strict=True)]
            assert block[key]["recall"] == pytest.approx(np.mean([sk.recall_score(*call) for call in calls]))
            specificity = np.mean([sk.recall_score(*call, pos_label=0) for call in calls])
            assert block[key]["specificity"] == pytest.approx(specificity)
            assert block[key]["accuracy"] == pytest.approx(np.mean([sk.accuracy_score(*call) for call in calls]))
        areas = [sk.roc_auc_score(t.target_abnormal, t.probability_abnormal) for t in own]
        assert block["test"]["auroc"] == pytest.approx(np.mean(areas))
        low, high = block["test_interval"]["auroc"]
        assert low < block["test"]["auroc"] < high
    for groups in found["attributes"].values():
        assert sum(block["images"] for block in groups.values()) == 240


def test_attributes_with_one_value_are_left_out_and_named(tmp_path):
    table = described().assign(sex="F", age=np.float32("nan"), visit=np.float32("nan"))
    table["view"] = pd.Series(["PA", None] * 120, dtype="str")
    found = measured(replicates(tmp_path, table), HALF, 20)
    assert found["attributes"] == {}
    assert found["left_out"] == {
        "dataset": "chestxray14 on every image",
        "sex": "female on every image",
        "age": "not recorded",
        "view": "PA on every image where it is known",
        "visit": "not recorded",
    }
    numbers = {"models": {Model("cnn"): {"subgroups": found}}}
    assert subgroups.tell(numbers) == []
    [lacking] = subgroups.unmeasured(numbers)
    assert lacking.remedy.startswith("dataset is chestxray14 on every image, sex is female on every image, age is not")


def test_what_is_unknown_is_listed_with_its_number_and_compared_with_nothing(tmp_path):
    table = described(600)
    table["sex"] = table["sex"].where(np.arange(600) % 3 > 0)
    found = measured(replicates(tmp_path, table), HALF, 20)
    assert list(found["attributes"]["sex"]) == ["female", "male", "unknown"]
    assert found["attributes"]["sex"]["unknown"]["images"] == 200
    assert not any("unknown" in gap["groups"] for gap in found["gaps"])
    assert sum(gap["attribute"] == "sex" for gap in found["gaps"]) == 1
    assert "| unknown | CNN | 200 / " in rendered(found)


def test_small_groups_are_shown_as_such_and_compared_with_nothing(tmp_path):
    table = described(240)
    table["view"] = np.where(table.patient_id.isin(table.patient_id.unique()[:19]), "AP", "PA")
    table.loc[table["view"] == "AP", "target_abnormal"] = 1
    found = measured(replicates(tmp_path / "few", table), HALF, 20)
    assert found["attributes"]["view"]["AP"]["few"]
    assert not any(gap["attribute"] == "view" for gap in found["gaps"])
    assert "| AP (few) | CNN | 38 / 19 | 100.0 |" in rendered(found)
    table["view"] = np.where(table.patient_id.isin(table.patient_id.unique()[:20]), "AP", "PA")
    table.loc[table["view"] == "AP", "target_abnormal"] = 1
    found = measured(replicates(tmp_path / "enough", table), HALF, 20)
    assert any(gap["attribute"] == "view" for gap in found["gaps"])


def test_a_gaps_interval_is_that_of_a_loop_over_redrawn_patients(tmp_path):
    tables = [described(draw=draw) for draw in (0, 1)]  # a patient has images in both views
    some = replicates(tmp_path, *tables)
    found = measured(some, HALF * 2, 300)
    [gap] = [gap for gap in found["gaps"] if gap["attribute"] == "view"]
    test = some[0].test
    patient, patients = pd.factorize(test.patient_id)
    positive = {view: ((test["view"] == view) & (test.target_abnormal == 1)).to_numpy() for view in gap["groups"]}
    calls = [(one.test.probability_abnormal > 0.5).to_numpy() for one in some]
    lower, higher = np.array([positive[view] for view in gap["groups"]])
    value = np.mean([call[higher].mean() - call[lower].mean() for call in calls])
    drawn = []
    for _, times in multiplicities(len(patients), 300):
        for once in times:
            weight = once[patient]
            recall = [[np.average(call[group], weights=weight[group]) for call in calls] for group in (lower, higher)]
            drawn.append(np.mean(recall[1]) - np.mean(recall[0]))
    fewest = min(test.patient_id[group].nunique() for group in (lower, higher))
    error = math.sqrt(np.var(drawn, ddof=1) * fewest / (fewest - 1))
    assert gap["difference"] == pytest.approx(value)
    for key, tail in (("interval", 0.025), ("interval_of_largest", 0.025 / len(found["gaps"]))):
        margin = stats.t.ppf(1 - tail, fewest - 1) * error
        assert gap[key] == pytest.approx([value - margin, value + margin])
    assert gap["shown"] == (gap["interval_of_largest"][0] > 0)
    assert [g["difference"] for g in found["gaps"]] == sorted([g["difference"] for g in found["gaps"]], reverse=True)


def test_groups_of_single_images_have_the_interval_of_two_independent_shares(tmp_path):
    table = described(1200)
    table["patient_id"] = table["image_id"]
    [gap] = [g for g in measured(replicates(tmp_path, table), HALF, 1500)["gaps"] if g["attribute"] == "sex"]
    sizes = [((table.sex == sex[0].upper()) & (table.target_abnormal == 1)).sum() for sex in gap["groups"]]
    error = math.sqrt(sum(value * (1 - value) / n for value, n in zip(gap["values"], sizes, strict=True)))
    assert (gap["interval"][1] - gap["interval"][0]) / 2 == pytest.approx(1.97 * error, rel=0.05)


def test_seeds_that_disagree_about_a_gap_widen_its_interval(tmp_path):
    table = described(400)
    women = (table.sex == "F").to_numpy()
    shifted = []
    for shift in (-0.3, 0, 0.3):
        p = (table.probability_abnormal + np.where(women, shift, 0)).clip(0, 1)
        shifted.append(table.assign(probability_abnormal=p.astype(np.float32)))
    widths = {}
    for name, tables in (("alike", [table] * 3), ("apart", shifted)):
        found = measured(replicates(tmp_path / name, *tables), HALF * 3, 100)
        [gap] = [gap for gap in found["gaps"] if gap["attribute"] == "sex"]
        widths[name] = gap["interval"][1] - gap["interval"][0]
    assert widths["apart"] > 2 * widths["alike"]


def test_a_real_gap_is_shown_and_named_with_both_specificities(tmp_path):
    table = described(400)
    portable = (table["view"] == "AP").to_numpy()
    p = np.where(portable, table.target_abnormal * 0.8 + 0.1, 0.2).astype(np.float32)
    found = measured(replicates(tmp_path, table.assign(probability_abnormal=p)), HALF, 100)
    largest = found["gaps"][0]
    assert (largest["attribute"], largest["groups"], largest["values"]) == ("view", ["PA", "AP"], [0, 1])
    assert largest["shown"]
    # No draw changes these recalls of 0 and 1, and still the gap is not known for certain.
    assert largest["interval_of_largest"][0] < largest["interval"][0] < 0.99
    text = rendered(found)
    assert "CNN: the largest gap in recall is by view: 0.0 % (specificity 100.0 %) in PA and 100.0 % (spec" in text
    assert "is large by selection alone" in text
    assert ": a difference is shown, for these very runs." in text
    assert ": a difference is shown." in rendered(found, seeds=3)


def test_the_largest_of_many_gaps_is_not_shown_by_its_own_interval(tmp_path):
    table = described(400)
    p = table.probability_abnormal + np.where(table["view"] == "AP", 0.06, 0)
    found = measured(replicates(tmp_path, table.assign(probability_abnormal=p.clip(0, 1))), HALF, 500)
    assert found["gaps"][0]["interval"][0] > 0 > found["gaps"][0]["interval_of_largest"][0]
    assert not any(gap["shown"] for gap in found["gaps"])
    assert f"The largest of {len(found['gaps'])} gaps is large by selection alone" in rendered(found)


def test_no_miss_in_twenty_patients_shows_no_gap_to_a_few_misses(tmp_path):
    table = described(80).assign(patient_id=[f"p{i}" for i in range(80)], target_abnormal=1.0)
    table["view"] = ["AP"] * 20 + ["PA"] * 60
    missed = np.isin(np.arange(80), range(20, 29))  # 9 of 60, none of 20
    table = table.assign(sex="F", age=np.float32(50), visit=0)
    table["probability_abnormal"] = np.where(missed, 0.1, 0.9).astype(np.float32)
    [gap] = measured(replicates(tmp_path, table), HALF, 500)["gaps"]
    assert gap["values"] == pytest.approx([51 / 60, 1])
    assert gap["interval"] == gap["interval_of_largest"]  # it is the only one
    assert gap["interval"][0] < 0  # 51 of 60 against 20 of 20: Fisher's p is 0.1
    assert not gap["shown"]


def test_a_gap_that_is_shown_is_named_where_a_larger_one_is_not(tmp_path):
    gaps = [
        {"attribute": "age", "groups": ["18 to 39", "40 to 59"], "values": [0.5, 0.8], "difference": 0.3},
        {"attribute": "sex", "groups": ["female", "male"], "values": [0.6, 0.8], "difference": 0.2},
        {"attribute": "view", "groups": ["AP", "PA"], "values": [0.6, 0.7], "difference": 0.1},
    ]
    ends = [([0.05, 0.55], [-0.1, 0.7]), ([0.1, 0.3], [0.05, 0.35]), ([0.05, 0.15], [0.02, 0.18])]
    for gap, (interval, wide) in zip(gaps, ends, strict=True):
        gap |= {"interval": interval, "interval_of_largest": wide, "shown": wide[0] > 0, "labels": ["abnormal"]}
    group = {"test": {"specificity": None}}
    attributes = {gap["attribute"]: dict.fromkeys(gap["groups"], group) for gap in gaps}
    block = {"seeds": [0, 1, 2], "subgroups": {"measure": "recall", "gaps": gaps, "attributes": attributes}}
    assert subgroups.sentence(Model("cnn"), block) == (
        "CNN: the largest gap in recall is by age: 50.0 % in 18 to 39 and 80.0 % in 40 to 59, 30.0 points apart, 95 % "
        "interval 5.0 to 55.0. The largest of 3 gaps is large by selection alone; the interval that allows for their "
        "number is -10.0 to 70.0: no difference is shown. Shown is that by sex: 60.0 % in female and 80.0 % in male, "
        "20.0 points apart, 95 % interval 10.0 to 30.0 (1 other in `metrics.json`)."
    )


@pytest.mark.slow
def test_where_no_group_differs_hardly_any_gap_is_shown(tmp_path):
    shown = 0
    for study in range(50):
        table = described(200, seed=study, draw=study)
        found = measured(replicates(tmp_path / str(study), table), HALF, 100)
        assert len(found["gaps"]) >= 3
        shown += any(gap["shown"] for gap in found["gaps"])
    # At most 2.5 expected; more than 6 has a chance of one in 80. Were selection not allowed for, it would be 7.
    assert shown <= 6


def test_findings_are_compared_over_those_that_both_groups_have(tmp_path):
    table = predictions({"chestxray14": 480}, labels=FINDINGS, skill=2)
    table["sex"] = np.where(np.arange(480) // 2 % 2, "F", "M")
    male = table.sex == "M"
    table.loc[male, "target_effusion"] = 0.0
    some = replicates(tmp_path, table, task="findings")
    found = measured(some, [dict.fromkeys(FINDINGS, 0.4)], 60)
    from sklearn.metrics import roc_auc_score

    test = some[0].test
    areas = {
        (sex, finding): roc_auc_score(rows[f"target_{finding}"], rows[f"probability_{finding}"])
        for sex, rows in test.groupby("sex")
        for finding in ("nodule", "effusion")
        if rows[f"target_{finding}"].nunique() == 2
    }
    groups = found["attributes"]["sex"]
    assert groups["female"]["findings"] == ["effusion", "nodule"]
    assert groups["male"]["findings"] == ["nodule"]
    female = np.mean([areas["F", "effusion"], areas["F", "nodule"]])
    assert groups["female"]["test"]["auroc"] == pytest.approx(female)
    [gap] = [gap for gap in found["gaps"] if gap["attribute"] == "sex"]
    assert gap["labels"] == ["nodule"]
    assert gap["difference"] == pytest.approx(abs(areas["F", "nodule"] - areas["M", "nodule"]))
    text = rendered(found, task="findings")
    assert "| Sex | Model | Images / patients | Abnormal, % | Findings | Recall |" in text
    assert "the largest gap in AUROC is by" in text


def test_a_gap_over_findings_is_as_uncertain_as_their_redrawn_mean(tmp_path):
    table = predictions({"chestxray14": 800}, labels=FINDINGS, skill=1)
    table["view"] = np.where(np.arange(800) % 3 == 0, "AP", "PA")
    some = replicates(tmp_path, table, task="findings")
    [gap] = [gap for gap in measured(some, [dict.fromkeys(FINDINGS, 0.4)], 100)["gaps"] if gap["attribute"] == "view"]
    assert gap["labels"] == ["effusion", "nodule"]
    test, drawn, resting = some[0].test, {}, []
    for view in gap["groups"]:
        y = test[[f"target_{name}" for name in gap["labels"]]].where(test["view"] == view)
        patient = pd.factorize(test.patient_id)[0]
        cases = [Case(y[f"target_{name}"].to_numpy(), test[f"logit_{name}"].to_numpy()) for name in gap["labels"]]
        drawn[view] = replicate(cases, patient, 100, metrics=(metrics.auroc,))[:, 0].mean(axis=0)
        resting += [test.patient_id[y[column] == value].nunique() for column in y for value in (0, 1)]
    fewest = min(resting)
    error = np.std(drawn[gap["groups"][1]] - drawn[gap["groups"][0]], ddof=1) * math.sqrt(fewest / (fewest - 1))
    margin = stats.t.ppf(0.975, fewest - 1) * error
    assert (gap["interval"][1] - gap["interval"][0]) / 2 == pytest.approx(margin)


def test_a_group_without_any_finding_to_measure_says_so(tmp_path):
    table = predictions({"chestxray14": 60, "shenzhen": 40}, labels=FINDINGS)
    table.loc[table.dataset == "shenzhen", "target_tuberculosis"] = 1.0
    found = measured(replicates(tmp_path, table, task="findings"), [dict.fromkeys(FINDINGS, 0.4)], 20)
    block = found["attributes"]["dataset"]["shenzhen"]
    assert block["findings"] == []
    assert block["undefined"]["test"]["auroc"] == "no finding is there both present and absent"
    assert found["gaps"] == []
    text = rendered(found, task="findings")
    assert "No two groups of a kind have 20 patients with and 20 without one same finding each" in text
    assert "Undefined: no finding is there both present and absent." in text


@pytest.mark.parametrize(
    ("images", "change"),
    [
        (10, {}),
        (240, {"target_abnormal": 0.0}),
        (240, {"target_abnormal": 1.0}),
        (240, {"target_abnormal": np.float32("nan")}),
        (240, {"patient_id": "chestxray14/1"}),
        (240, {"probability_abnormal": np.float32(0.7)}),
        (240, {"sex": None, "view": None, "age": np.float32("nan")}),
    ],
    ids=["ten rows", "normal", "abnormal", "unlabelled", "one patient", "one answer", "nothing known"],
)
def test_damaged_test_parts_are_evaluated_as_far_as_they_can_be(tmp_path, images, change):
    found = measured(replicates(tmp_path, described(images).assign(**change)), HALF, 30)
    text = rendered(found)
    if "probability_abnormal" in change:
        assert "CNN has the same recall in all groups that are large enough to judge." in text
    elif images == 10 or change.get("target_abnormal", 1) != 1:
        assert "No two groups of a kind have 20 patients with an abnormal image each, so no gap is named" in text


def test_folds_are_pooled_and_each_images_threshold_is_its_own(tmp_path):
    for fold in range(2):
        table = described(120, seed=fold)
        write_run(tmp_path / f"fold{fold}", "cnn", 0, test=table, split=fold_of(fold, 2), config={"data.fold": fold})
    [[one]] = models.group(collect([tmp_path])[0])[0].values()
    first = one.parts["fold 0"].test["image_id"]
    cut = pd.Series(np.where(one.test["image_id"].isin(first), -1.4, 0.8))
    found = measured([one], [{"abnormal": cut}], 30)
    block = found["attributes"]["view"]["PA"]
    rows = one.test[(one.test["view"] == "PA") & (one.test.target_abnormal == 1)]
    assert block["at_validation_threshold"]["recall"] == pytest.approx(
        np.mean(rows.logit_abnormal > cut.loc[rows.index])
    )
    assert sum(block["images"] for block in found["attributes"]["sex"].values()) == 240


def test_a_threshold_that_could_not_be_chosen_is_undefined_in_every_group(tmp_path):
    from lungdet.evaluation.statistics.cases import Undefined

    found = measured(replicates(tmp_path, described(80)), [{"abnormal": Undefined("one class")}], 20)
    block = found["attributes"]["view"]["PA"]
    assert block["at_validation_threshold"]["recall"] is None
    assert block["undefined"]["at_validation_threshold"]["recall"] == "there is no threshold: one class"
    assert block["test"]["recall"] is not None
    rendered(found)
