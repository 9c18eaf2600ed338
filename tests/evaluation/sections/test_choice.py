"""Choice: the better model where a difference is shown, else the cheaper; nothing where nothing was measured."""

from copy import deepcopy

import pytest

from lungdet.evaluation import report, sections
from lungdet.evaluation.sections import choice
from tests.evaluation.sections.test_data_need import learning_curves
from tests.evaluation.sections.test_generalisation import cross
from tests.evaluation.sections.test_image_quality import write_degraded
from tests.evaluation.summaries import APART, rendered, summarised
from tests.fake_runs import two_runs, write_run


def efficiency(summary, flops=(5e9, 6e9), latency=(1.3, 1.2, 1.4)):
    """What `costs.measure` returns of the first two models, as far as it is read."""
    first, second = list(summary["models"])[:2]
    ratio = dict(zip(("median", "low", "high"), latency, strict=True))
    models = {first: {"flops": flops[0]}, second: {"flops": flops[1], "ratios": {"latency_ms": ratio}}}
    return {"against": first, "models": models}


def told(summary):
    return choice.tell(summary | {"advice": report.advice(summary)})


def table(summary):
    [found] = told(summary)
    rendered([found])
    return {row[0]: row[1] for row in found.rows}


def unmeasured(summary):
    """What the report's last section lists, with the commands, of the sections that `summarised` has measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "SECTIONS", [section for section in sections.SECTIONS if section not in APART])
        lacking, _ = report.unmeasured(summary)
    return dict(lacking.rows)


@pytest.fixture(scope="module")
def of_two_runs(tmp_path_factory):
    return summarised(two_runs(tmp_path_factory.mktemp("runs")), 100)


@pytest.fixture
def alike(of_two_runs):
    """The summary of two models between which no difference is shown, for a test to change."""
    return deepcopy(of_two_runs)


def test_many_comparisons_that_show_nothing_are_counted(alike):
    many = alike["comparisons"] * 4
    counted = "the cheaper one in 4 of 4 comparisons, where no difference in accuracy is shown"
    assert choice.advised(alike, many, ["accuracy"]) == counted


def test_where_no_difference_is_shown_the_cheaper_is_advised_for_that_reason(alike):
    alike["efficiency"] = efficiency(alike)
    here = "As much training data as here (68 images)"
    reason = "between CNN and CNN-LSTM no difference in accuracy or AUROC is shown"
    assert table(alike)[here] == f"CNN, the cheaper one (5 against 6 billion FLOPs an image); {reason}"
    alike["efficiency"] = efficiency(alike, (7e9, 6e9))
    assert table(alike)[here].startswith("CNN-LSTM, the cheaper one (6 against 7 billion FLOPs an image)")


def test_without_flops_parameters_tell_and_where_they_are_equal_nothing_does(alike):
    alike["efficiency"] = None
    here = "As much training data as here (68 images)"
    assert table(alike)[here].startswith("CNN, the cheaper one (1,234,567 against 2,345,678 parameters); between")
    alike["efficiency"] = {"reason": "no device"}
    assert table(alike)[here].startswith("CNN, the cheaper one (1,234,567")
    for block in alike["models"].values():
        block["parameters"] = 5
    assert table(alike)[here].startswith("either, as nothing measured tells which is cheaper; between")


def test_a_shown_difference_decides_whatever_the_cost(alike):
    alike["efficiency"] = efficiency(alike)
    metrics = alike["comparisons"][0]["metrics"]
    metrics["auroc"] |= {"difference": 0.05, "p_holm": 0.01}
    metrics["accuracy"] |= {"difference": 0.02, "p_holm": 0.2}
    here = "As much training data as here (68 images)"
    assert table(alike)[here] == "CNN-LSTM: its better AUROC is shown"
    metrics["accuracy"] |= {"p_holm": 0.01}
    assert table(alike)[here] == "CNN-LSTM: its better accuracy and AUROC is shown"
    metrics["accuracy"] |= {"difference": -0.02}
    assert table(alike)[here] == "CNN for accuracy; CNN-LSTM for AUROC: each is shown"


def test_what_was_not_measured_is_one_list_with_commands_and_no_advice(alike):
    alike["efficiency"] = None
    assert list(table(alike)) == ["As much training data as here (68 images)"]
    commands = unmeasured(alike)
    for what, experiment in {
        "What the models are worth on a source that they were not trained on": "cross_dataset",
        "How results change with the number of training patients": "learning_curve",
        "What an unbalanced training part costs": "imbalance",
        "Whether it is the recurrence that helps, or more parameters": "controls",
    }.items():
        assert commands[what] == f"`python train.py experiment={experiment} data.root=DIR`"
    assert "`python evaluate.py runs=FOLDER efficiency=true`" in commands.values()
    further = [what for what in commands if "earlier images" in what]
    assert further == ["What the CNN-LSTM gains from a patient's earlier images (34 further images here)"]


def test_latency_decides_only_where_its_quartiles_lie_on_one_side_of_one(alike):
    asked = "An answer as soon as possible, image by image"
    alike["efficiency"] = efficiency(alike)
    assert table(alike)[asked] == "CNN: CNN-LSTM's latency is 1.30 (1.20–1.40) of CNN's"
    alike["efficiency"] = efficiency(alike, latency=(0.8, 0.7, 0.9))
    assert table(alike)[asked].startswith("CNN-LSTM: ")
    alike["efficiency"] = efficiency(alike, latency=(1.0, 0.9, 1.1))
    assert table(alike)[asked].startswith("either: ")


def test_a_latency_measured_on_a_busy_machine_advises_nothing(alike):
    asked = "An answer as soon as possible, image by image"
    alike["efficiency"] = efficiency(alike) | {"quiet": False, "others_cores": 1.52, "cores": 2}
    assert table(alike)[asked] == (
        "not measured on a quiet machine: meanwhile other programs kept 1.5 of 2 cores busy, and no model is advised"
    )
    alike["efficiency"]["quiet"] = True
    assert table(alike)[asked] == "CNN: CNN-LSTM's latency is 1.30 (1.20–1.40) of CNN's"


def test_each_share_of_the_training_patients_is_a_situation(tmp_path):
    numbers = summarised(learning_curves(tmp_path, (0.1, 1.0)), 100)
    numbers["efficiency"] = None
    found = table(numbers)
    assert found["Training on 10 % of the patients (160 images)"].startswith("CNN: its better accuracy")
    assert "no difference" in found["Training on 100 % of the patients (160 images)"]
    assert "More or less training data" not in found


def test_a_share_at_which_a_model_was_not_run_is_not_measured(tmp_path):
    numbers = summarised(learning_curves(tmp_path, (0.1, 1.0), (0,), without=[("cnn", 0.1)]), 100)
    numbers["efficiency"] = None
    assert table(numbers)["Training on 10 % of the patients (160 images)"] == "not measured"


def test_imbalance_other_sources_and_poor_images_are_situations(tmp_path):
    prevalence = learning_curves(tmp_path / "a", (0.05, 0.5), (0,), key="data.train_prevalence")
    numbers = summarised(prevalence, 100) | {"efficiency": None}
    found = table(numbers)
    assert "CNN" in found["5 % of the training images abnormal"]
    assert not [situation for situation in found if situation.startswith("As much training data")]

    numbers = summarised(cross(tmp_path / "b", seeds=(0,), elsewhere=(3.0, 0.2)), 100) | {"efficiency": None}
    found = table(numbers)
    assert found["A source that was not trained on"] == "CNN: its better accuracy and AUROC is shown"

    for model, loss in (("cnn", 0.1), ("cnn_lstm", 8.0)):
        run = write_run(tmp_path / "c" / model, model, 0, {"chestxray14": 160}, skill=3.0)
        write_degraded(run, {"noise": loss})
    numbers = summarised(tmp_path / "c", 100) | {"efficiency": None}
    asked = "Noisy, blurred, badly exposed or compressed images"
    assert table(numbers)[asked] == "CNN loses less under noise, which is shown"
    for found in numbers["image_quality_comparisons"][0]["metrics"].values():
        found["p_holm"] = 1.0
    assert table(numbers)[asked].startswith("no difference in what that costs is shown")


def test_a_single_model_leaves_no_choice(tmp_path):
    write_run(tmp_path / "run")
    numbers = summarised(tmp_path, 100)
    assert told(numbers) == []
    assert "Differences between models: one is here" in unmeasured(numbers)
