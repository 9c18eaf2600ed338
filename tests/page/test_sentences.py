"""What a comparison is quoted as: the difference in its unit, the interval, and no more than its p-value shows."""

import pytest

from lungdet.evaluation.gathering.models import Model
from lungdet.page import sentences


def comparison(difference: float | None, interval: list[float] | None, p: float | None = 0.2, **more: object) -> dict:
    """The CNN-LSTM minus the CNN in accuracy, AUROC and something under noise, of three seeds."""
    cell = {"difference": difference, "interval": interval, "p": p, "p_holm": p, **more}
    cells = {"accuracy": cell, "auroc": cell, "noise": cell}
    return {"first": Model("cnn"), "second": Model("cnn_lstm"), "counts_seeds": True, "metrics": cells}


def test_accuracy_is_told_in_points_and_other_metrics_as_above_or_below():
    better, worse = comparison(0.0214, [0.011, 0.03], 0.01), comparison(-0.0214, [-0.05, 0.01])
    assert sentences.difference(better, "accuracy") == (
        "CNN-LSTM is 2.1 points more accurate than CNN, 95 % interval 1.1 to 3.0: a difference is shown."
    )
    assert sentences.difference(worse, "auroc") == (
        "CNN-LSTM's AUROC is 0.021 below CNN's, 95 % interval -0.050 to 0.010: no difference is shown."
    )


def test_what_is_no_metric_is_told_in_a_metrics_unit_and_models_by_names_of_ones_choice():
    drop = comparison(0.0214, [0.011, 0.03], 0.01)
    assert sentences.difference(drop, "noise", "auroc", "drop in AUROC under noise", str.upper) == (
        "CNN_LSTM's drop in AUROC under noise is 0.021 above CNN's, 95 % interval 0.011 to 0.030: "
        "a difference is shown."
    )


@pytest.mark.parametrize("what", [None, "drop in AUROC under noise"])
def test_what_rounds_to_nothing_is_the_same_and_has_no_sign(what):
    told = sentences.difference(comparison(-0.0001, [-0.0002, 0.0002]), "auroc", "auroc", what)
    assert told == f"CNN-LSTM and CNN have the same {what or 'AUROC'}, 95 % interval 0.000 to 0.000: " + (
        "no difference is shown."
    )


def test_an_interval_on_one_side_of_0_shows_nothing_where_p_does_not_and_says_why():
    told = sentences.difference(comparison(0.03, [0.01, 0.05], 0.06), "accuracy")
    assert told.endswith("1.0 to 5.0: no difference is shown (p 0.060, adjusted for all that is compared).")


def test_of_few_seeds_a_difference_is_shown_for_these_runs_alone():
    few = comparison(0.03, [0.01, 0.05], 0.01) | {"counts_seeds": False}
    assert sentences.significant(few, "accuracy")
    assert sentences.difference(few, "accuracy").endswith(": a difference is shown, for these very runs.")


def test_what_cannot_be_measured_gives_its_reason():
    nothing = comparison(None, None, None, undefined="no image is normal")
    assert sentences.difference(nothing, "noise", "auroc", "drop in AUROC under noise") == (
        "CNN-LSTM and CNN: no difference in their drop in AUROC under noise can be measured (no image is normal)."
    )
    alone = comparison(0.03, None, None, undefined="a single patient")
    assert not sentences.significant(alone, "accuracy")
    assert sentences.difference(alone, "accuracy") == (
        "CNN-LSTM is 3.0 points more accurate than CNN; no interval (a single patient): no difference is shown."
    )


def test_each_reason_is_noted_once_with_the_cells_that_it_explains():
    assert sentences.undefined({"no image is normal": ["Recall of CNN", "F1 of CNN"], "unknown": None}) == [
        "Undefined: Recall of CNN, F1 of CNN: no image is normal.",
        "Undefined: unknown.",
    ]
