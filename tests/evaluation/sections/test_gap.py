"""The gap between training and validation: what it is, its interval, and whether two models' gaps differ."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.sections import gap
from lungdet.evaluation.statistics import paired
from lungdet.findings import FINDINGS
from lungdet.page import sentences
from tests.evaluation.gathering.test_parts import folds
from tests.evaluation.summaries import rendered, replicates, summarised
from tests.fake_runs import consistent, predictions, two_runs, write_run


def write_train(run, skill=3.0, seed=2000, draw=0, images=80, labels=("abnormal",), table=None):
    """Adds predictions of a sample of training images to a run."""
    made = predictions({"chestxray14": images}, seed=seed, skill=skill, draw=draw, labels=labels)
    (made if table is None else table).to_parquet(run / "predictions" / "train.parquet")
    return run


@pytest.fixture(scope="module")
def overfitting(tmp_path_factory):
    """The CNN does as well in training as in validation, the CNN-LSTM far better."""
    folder = tmp_path_factory.mktemp("overfitting")
    for model, skill in (("cnn", 1.0), ("cnn_lstm", 8.0)):
        for seed in (0, 1, 2):
            run = write_run(folder / f"{model}{seed}", model, seed, {"chestxray14": 200})
            write_train(run, skill, draw=100 * len(model) + seed, images=200)
    return folder


@pytest.fixture(scope="module")
def numbers(overfitting):
    return summarised(overfitting)


def test_it_is_what_training_images_score_above_validation_averaged_over_seeds(overfitting):
    some = replicates(overfitting)["cnn_lstm"]
    block = gap.of_model(some, 100).block
    by_seed = {name: [] for name in gap.METRICS}
    for one in some:
        found = []
        for table in (one.first.train, one.first.val):
            y, p = table["target_abnormal"], table["probability_abnormal"].astype(float)
            found.append(
                (reference.accuracy_score(y, p > 0.5), reference.roc_auc_score(y, p), reference.log_loss(y, p))
            )
        for name, train, val in zip(gap.METRICS, *found, strict=True):
            by_seed[name].append(train - val)
    for name, values in by_seed.items():
        assert block["gap"][name] == pytest.approx(np.mean(values))
        assert block["gap_sd"][name] == pytest.approx(np.std(values, ddof=1))
        assert block["gap"][name] == pytest.approx(block["train"][name] - block["val"][name])
    assert block["train_images"] == {
        "images": 200,
        "patients": 100,
        "labelled": 200,
        "abnormal": block["train_images"]["abnormal"],
    }
    assert block["gap"]["accuracy"] > 0 > block["gap"]["log_loss"]


def test_its_interval_is_that_of_patients_redrawn_on_both_sides_apart(tmp_path):
    write_train(write_run(tmp_path / "run", datasets={"chestxray14": 120}), 2.0, images=120)
    [some] = replicates(tmp_path).values()
    block = gap.of_model(some, 4000).block
    sides = []
    generator = np.random.default_rng(5)
    for table in (some[0].first.train, some[0].first.val):
        right = ((table["probability_abnormal"] > 0.5) == table["target_abnormal"]).groupby(table["patient_id"]).sum()
        drawn = generator.choice(right.to_numpy(), size=(4000, len(right))).sum(axis=1) / len(table)
        sides.append(drawn)
    spread = np.std(sides[0] - sides[1]) * np.sqrt(60 / 59)
    low, high = block["gap_interval"]["accuracy"]
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 59) * spread, rel=0.06)
    assert (low + high) / 2 == pytest.approx(block["gap"]["accuracy"])


def test_as_many_patients_on_both_sides_are_not_drawn_alike(tmp_path):
    val = predictions({"chestxray14": 100}, seed=3)
    train = val.assign(image_id="t" + val["image_id"], patient_id="t" + val["patient_id"])
    write_train(write_run(tmp_path / "run", val=val), table=train)
    [some] = replicates(tmp_path).values()
    found = gap.of_model(some, 2000)
    assert found.block["gap"] == {"accuracy": 0, "auroc": 0, "log_loss": pytest.approx(0)}
    low, high = found.block["val_interval"]["accuracy"]
    wide = np.diff(found.block["gap_interval"]["accuracy"])[0]
    assert wide == pytest.approx(np.sqrt(2) * (high - low), rel=0.1)


def test_a_larger_gap_is_found_and_told_in_a_sentence(numbers):
    [one] = numbers["gap_comparisons"]
    gaps = [numbers["models"][name]["gap"]["gap"]["accuracy"] for name in ("cnn", "cnn_lstm")]
    assert one["metrics"]["accuracy"]["difference"] == pytest.approx(gaps[1] - gaps[0])
    assert sentences.significant(one, "accuracy")
    assert one["counts_seeds"]
    said = gap.sentence(one, "accuracy")
    assert said.startswith("CNN-LSTM's gap in accuracy between training and validation is ")
    assert said.endswith(": a difference is shown.")
    assert " points above CNN's, 95 % interval " in said
    assert (
        gap.claim([one], "on little data")
        == "The study says that the CNN-LSTM overfits more on little data; here that is shown."
    )


def test_p_is_adjusted_over_all_pairs_and_metrics():
    made = [{"metrics": {"accuracy": {"p": 0.01}, "auroc": {"p": None}}}, {"metrics": {"auroc": {"p": 0.04}}}]
    made.append({"metrics": {"auroc": {"p": 0.03}}})
    found = [value["p_holm"] for one in paired.adjust(made) for value in one["metrics"].values()]
    assert found == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]


def test_models_alike_on_both_sides_have_no_difference(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        for seed in (0, 1, 2):
            known = {"test": predictions({"chestxray14": 60}, seed=1, draw=seed)}
            known["val"] = predictions({"chestxray14": 60}, seed=2, draw=seed)
            write_train(write_run(tmp_path / f"{model}{seed}", model, seed, **known), 4.0, draw=seed)
    numbers = summarised(tmp_path)
    [one] = numbers["gap_comparisons"]
    assert one["metrics"]["auroc"]["difference"] == 0
    assert not sentences.significant(one, "auroc")
    assert "CNN-LSTM and CNN have the same gap in AUROC" in gap.sentence(one, "auroc")
    said = gap.claim([one], "on little data")
    assert said.endswith("here no difference in the gap between training and validation is shown.")


def test_the_claims_opposite_and_other_models_are_told_as_what_they_are():
    def one(accuracy, auroc, first="cnn", second="cnn_lstm", seeds=True):
        found = {
            name: {"difference": value, "p_holm": 0.01 if value else 0.5}
            for name, value in (("accuracy", accuracy), ("auroc", auroc))
        }
        return {"first": Model(first), "second": Model(second), "counts_seeds": seeds, "metrics": found}

    assert gap.claim([one(-0.1, 0.0)], "on X").endswith("here the opposite is shown.")
    assert gap.claim([one(-0.1, 0.1, seeds=False)], "on X").endswith("the comparisons disagree, for these very runs.")
    assert gap.claim([one(0.1, 0.1)], "on X").endswith("here that is shown.")
    assert gap.claim([one(0.1, 0.1, second="cnn_mlp")], "on X") is None
    assert gap.claim([], "on X") is None


def test_the_section_shows_both_sides_and_the_gap(numbers):
    text = rendered(gap.tell(numbers))
    block = numbers["models"]["cnn_lstm"]["gap"]
    assert "| CNN-LSTM | Accuracy | 200 / 200 | " in text
    low, high = block["gap_interval"]["auroc"]
    assert f"{block['gap']['auroc']:.3f} [{low:.3f} to {high:.3f}]" in text
    assert "- CNN-LSTM's gap in AUROC between training and validation is " in text


def test_runs_without_predictions_of_training_images_have_none_and_say_so(tmp_path):
    two_runs(tmp_path)
    write_train(tmp_path / "0_cnn")
    numbers = summarised(tmp_path)
    assert "reason" not in numbers["models"]["cnn"]["gap"]
    reason = "training images were not predicted as those of validation were"
    assert numbers["models"]["cnn_lstm"]["gap"] == {"reason": reason}
    assert numbers["gap_comparisons"] == []
    text = rendered(gap.tell(numbers))
    assert "| CNN | Accuracy |" in text
    assert f"CNN-LSTM: {reason}." in text
    (tmp_path / "0_cnn" / "predictions" / "train.parquet").unlink()
    numbers = summarised(tmp_path)
    assert gap.tell(numbers) == []
    assert gap.unmeasured(numbers)[0].remedy == reason


def test_folds_have_none(tmp_path):
    numbers = summarised(folds(tmp_path))
    assert "each fold or held-out source has a network" in numbers["models"]["cnn"]["gap"]["reason"]
    assert gap.unmeasured(numbers)[0].remedy.startswith("each fold or held-out source has a network")


def test_one_class_a_single_patient_and_no_mistake_are_undefined_with_a_reason(tmp_path):
    one_class = predictions({"chestxray14": 20}, seed=9).assign(target_abnormal=np.float32(0))
    write_train(write_run(tmp_path / "a" / "run"), table=one_class)
    numbers = summarised(tmp_path / "a")
    block = numbers["models"]["cnn"]["gap"]
    assert block["gap"]["auroc"] is None
    assert block["undefined"]["gap"]["auroc"] == "in training no image is abnormal"
    assert block["gap_interval"]["accuracy"] is not None
    text = rendered(gap.tell(numbers))
    assert "| undefined |" in text
    assert "CNN's AUROC: in training no image is abnormal." in text

    single = predictions({"chestxray14": 2}, seed=9)
    write_train(write_run(tmp_path / "b" / "run"), table=single)
    block = summarised(tmp_path / "b")["models"]["cnn"]["gap"]
    assert block["gap"]["accuracy"] is not None
    assert block["gap_interval"]["accuracy"] is None
    assert "a single patient" in block["undefined"]["gap_interval"]["accuracy"]

    perfect = predictions({"chestxray14": 40}, seed=9)
    perfect = consistent(perfect.assign(probability_abnormal=perfect["target_abnormal"] * 0.9))
    other = perfect.assign(image_id="t" + perfect["image_id"], patient_id="t" + perfect["patient_id"])
    write_train(write_run(tmp_path / "c" / "run", val=perfect), table=other)
    numbers = summarised(tmp_path / "c")
    block = numbers["models"]["cnn"]["gap"]
    assert (block["gap"]["accuracy"], block["gap_interval"]["accuracy"]) == (0, None)
    text = rendered(gap.tell(numbers))
    assert "0.0 [no interval]" in text
    assert (
        "CNN's accuracy and CNN's AUROC: it is the same in every redrawn part, which then says nothing about others."
        in text
    )


def test_seeds_or_models_with_other_training_images_are_not_mixed(tmp_path):
    for seed in (0, 1):
        write_train(write_run(tmp_path / str(seed), seed=seed), seed=2000 + seed)
    assert "train.parquet are of different images" in summarised(tmp_path)["models"]["cnn"]["gap"]["reason"]
    for model in ("cnn", "cnn_lstm"):
        write_train(write_run(tmp_path / "b" / model, model), seed=2000 + len(model))
    numbers = summarised(tmp_path / "b")
    assert "gap" in numbers["models"]["cnn"]["gap"]
    assert numbers["gap_comparisons"] == []


def test_of_findings_it_is_the_mean_over_those_that_both_sides_can_measure(tmp_path):
    labels = {"labels": FINDINGS}
    run = write_run(tmp_path / "run", datasets={"chestxray14": 60, "shenzhen": 30}, task="findings")
    write_train(run, images=80, **labels)
    [some] = replicates(tmp_path).values()
    block = gap.of_model(some, 100).block
    areas = []
    for table in (some[0].first.train, some[0].first.val):  # tuberculosis is known in validation alone
        by_finding = []
        for finding in ("effusion", "nodule"):
            known = table[table[f"target_{finding}"].notna()]
            by_finding.append(reference.roc_auc_score(known[f"target_{finding}"], known[f"probability_{finding}"]))
        areas.append(np.mean(by_finding))
    assert block["gap"]["auroc"] == pytest.approx(areas[0] - areas[1])
