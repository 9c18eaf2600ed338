"""Learning curves: results and gap by the share of training patients, what differs at each, and what is missing."""

import pytest

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.sections import data_need
from lungdet.evaluation.sections.sweep import Sweep, sweep
from lungdet.page import sentences
from tests.evaluation.sections.test_gap import write_train
from tests.evaluation.summaries import rendered, studied, summarised
from tests.fake_runs import two_runs, write_run

FRACTIONS = (0.1, 0.5, 1.0)


def learning_curves(folder, fractions=FRACTIONS, seeds=(0, 1, 2), without=(), skill=None, key="data.train_fraction"):
    """Both models at each fraction, the CNN-LSTM poorer and overfitting where there is little data."""
    for model in ("cnn", "cnn_lstm"):
        for fraction in fractions:
            for seed in seeds:
                if (model, fraction) in without:
                    continue
                poorer = model == "cnn_lstm" and fraction == fractions[0]
                known = {"skill": 0.3 if poorer else 2.0, "config": {key: fraction}}
                run = write_run(folder / f"{model} {fraction} {seed}", model, seed, {"chestxray14": 160}, **known)
                write_train(run, 8.0 if poorer else 2.5, draw=seed, images=160)
    return folder


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return summarised(learning_curves(tmp_path_factory.mktemp("curves")), 100)


def test_models_are_lines_over_the_setting(numbers):
    swept = sweep(numbers, "train_fraction")
    assert swept.values == [0.1, 0.5, 1.0]
    assert list(swept.lines) == ["cnn", "cnn_lstm"]
    assert swept.lines["cnn_lstm"][0.5] == "cnn_lstm data.train_fraction=0.5"
    assert not sweep(numbers, "train_prevalence").varies
    [one] = swept.at(0.1, numbers["comparisons"])
    assert one["second"] == "cnn_lstm data.train_fraction=0.1"


def test_a_line_keeps_what_else_tells_models_apart():
    swept = Sweep([], {}, ("train_on",))
    model = Model("cnn_lstm", {"data.train_on": ["chestxray14", "shenzhen"], "model.sequence": "rows"})
    assert swept.line(model) == "cnn_lstm model.sequence=rows"
    assert swept.line(Model("cnn", {"data.train_only": 1})) == "cnn data.train_only=1"


def test_runs_of_several_experiments_are_told_apart(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        for fraction, prevalence in ((0.1, None), (1.0, None), (1.0, 0.1), (1.0, 0.5)):
            config = {"data.train_fraction": fraction, "data.train_prevalence": prevalence}
            write_run(tmp_path / f"{model} {fraction} {prevalence}", model, config=config)
    numbers = summarised(tmp_path, 100)
    by_fraction, by_prevalence = (sweep(numbers, key) for key in ("train_fraction", "train_prevalence"))
    assert (by_fraction.values, list(by_fraction.lines)) == ([0.1, 1.0], ["cnn", "cnn_lstm"])
    assert (by_prevalence.values, list(by_prevalence.lines)) == ([0.1, 0.5, None], ["cnn", "cnn_lstm"])
    assert len(by_fraction.at(1.0, numbers["comparisons"])) == 1
    assert "data.train" not in rendered(data_need.tell(numbers))


def test_models_that_the_settings_do_not_tell_apart_are_lines_of_their_own():
    settings = {"base": "cnn", "train_fraction": 1.0}
    alike = [Model("cnn", {"data.train_fraction": fraction}) for fraction in ("none", 1.0)]
    models = {model: {"settings": settings} for model in alike} | {
        Model("cnn", {"data.train_fraction": 0.1}): {"settings": {"train_fraction": 0.1}}
    }
    swept = sweep({"models": models}, "train_fraction")
    assert sorted(name for line in swept.lines.values() for name in line.values()) == sorted(models)


def test_the_table_holds_results_and_gap_at_each_share(numbers):
    text = rendered(data_need.tell(numbers))
    for fraction, said in zip(FRACTIONS, ("10 %", "50 %", "100 %"), strict=True):
        block = numbers["models"][f"cnn data.train_fraction={fraction}"]
        low, high = block["test_interval"]["auroc"]
        assert f"| {said} | 68 | CNN | ".replace("68", str(block["settings"]["train"]["images"])) in text
        assert f"{block['test']['auroc']:.3f} [{low:.3f} to {high:.3f}]" in text
        assert f" | {100 * block['gap']['gap']['accuracy']:.1f} [" in text
        assert f" | {block['gap']['gap']['auroc']:.3f} [" in text
    assert text.count("![AUROC and its gap by share of the training patients. CNN 10 % 0.") == 1


def test_each_share_has_a_sentence_from_the_comparison_and_the_trend_one_with_intervals(numbers):
    text = rendered(data_need.tell(numbers))
    [least] = [one for one in numbers["comparisons"] if one["second"].endswith("0.1")]
    assert sentences.significant(least, "accuracy")
    size = f"{abs(least['metrics']['auroc']['difference']):.3f}"
    assert "- With 10 % of the training patients: CNN-LSTM is " in text
    assert f"CNN-LSTM's AUROC is {size} below CNN's" in text
    assert "- From 10 % to 100 % of the training patients, CNN-LSTM minus CNN in AUROC goes from -" in text
    assert "the intervals, not adjusted for their number, lie apart." in text
    claim = "The study says that the CNN-LSTM overfits more on little data (10 % of the patients); here that is shown."
    assert claim in text


def test_overlapping_intervals_show_no_change(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        for fraction in (0.5, 1.0):
            config = {"data.train_fraction": fraction}
            write_train(write_run(tmp_path / f"{model}{fraction}", model, config=config), draw=1)
    text = rendered(data_need.tell(summarised(tmp_path, 100)))
    assert "they overlap: no change is shown." in text
    assert "lie apart" not in text
    assert ", for these very runs" not in text


def test_a_failed_run_leaves_a_hole_that_is_named(tmp_path):
    learning_curves(tmp_path, (0.1, 1.0), (0,), without=[("cnn_lstm", 0.1)])
    numbers = summarised(tmp_path, 100)
    text = rendered(data_need.tell(numbers))
    assert "| 10 % | " in text
    assert "| CNN-LSTM | not run | not run | not run | not run |" in text
    assert "Not run: no finished run is among those evaluated" in text
    assert "- With 100 % of the training patients: CNN-LSTM is " in text
    assert "With 10 %" not in text
    assert "overfits more" not in text


def test_one_seed_a_single_model_and_no_training_predictions_are_shown_as_far_as_they_go(tmp_path):
    for fraction in (0.1, 1.0):
        write_run(tmp_path / str(fraction), "cnn_lstm", config={"data.train_fraction": fraction})
    text = rendered(data_need.tell(summarised(tmp_path, 100)))
    assert "| CNN-LSTM | " in text
    assert "| not measured | not measured |" in text
    assert "overfits more" not in text


def test_with_one_share_there_is_the_gap_alone(tmp_path):
    two_runs(tmp_path)
    for model in ("cnn", "cnn_lstm"):
        write_train(tmp_path / f"0_{model}")
    study = studied(tmp_path, 100)
    numbers = summarised(tmp_path, 100)
    assert data_need.tell(numbers) == []
    assert data_need.SECTION.title(numbers) == "Overfitting"
    assert "| CNN-LSTM | Log loss | 80 / 68 |" in rendered(data_need.show(numbers, study))
    [curve] = data_need.unmeasured(numbers)
    assert curve.remedy == "`python train.py experiment=learning_curve data.root=DIR`"
