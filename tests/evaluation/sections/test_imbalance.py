"""Imbalance: results and gap by the share of abnormal images in training, beside what the study claims."""

from copy import deepcopy

import pytest

from lungdet.evaluation.sections import imbalance
from lungdet.page.document import Figure, Table, flat
from tests.evaluation.sections.test_data_need import learning_curves
from tests.evaluation.sections.test_gap import write_train
from tests.evaluation.summaries import rendered, summarised
from tests.fake_runs import two_runs, write_run


def prevalences(folder, values=(0.05, 0.5), **more):
    return learning_curves(folder, values, key="data.train_prevalence", **more)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Of both models at two shares."""
    return summarised(prevalences(tmp_path_factory.mktemp("shares")), 100)


def test_recall_specificity_and_the_gap_are_shown_by_share(numbers):
    text = rendered(imbalance.tell(numbers))
    block = numbers["models"]["cnn_lstm data.train_prevalence=0.05"]
    low, high = block["test_interval"]["specificity"]
    assert f"{100 * block['test']['specificity']:.1f} [{100 * low:.1f} to {100 * high:.1f}]" in text
    assert f"| {block['gap']['gap']['auroc']:.3f} [" in text
    assert "| 5 % | " in text
    assert "- With 5 % of the training images abnormal: CNN-LSTM's recall is " in text
    assert "- From 5 % to 50 % abnormal in training, CNN-LSTM minus CNN in recall goes from " in text
    claim = "overfits more on unbalanced data (5 % of the training images abnormal); here that is shown."
    assert claim in text
    assert "![AUROC and its gap by share of abnormal training images. CNN 5 % 0." in text


def test_the_claim_rests_on_the_gap_in_auroc_which_the_share_does_not_change(numbers):
    numbers = deepcopy(numbers)
    for one in numbers["gap_comparisons"]:
        one["metrics"]["auroc"]["p_holm"], one["metrics"]["accuracy"]["p_holm"] = 0.5, 0.001
    assert "no difference in the gap between training and validation is shown" in rendered(imbalance.tell(numbers))


def test_the_sources_own_share_stands_last_and_in_no_figure(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        for share in (None, 0.9):
            config = {"data.train_prevalence": share}
            write_train(write_run(tmp_path / f"{share} {model}", model, config=config), draw=1)
    numbers = summarised(tmp_path, 100)
    train = numbers["models"]["cnn data.train_prevalence=0.9"]["settings"]["train"]
    blocks = [*flat(imbalance.tell(numbers))]
    [table] = [block for block in blocks if isinstance(block, Table)]
    own = f"as the sources have it, {100 * train['abnormal'] / train['labelled']:.1f} %"
    assert [row[0] for row in table.rows] == ["90 %", "90 %", own, own]
    assert not [block for block in blocks if isinstance(block, Figure)]
    text = rendered(blocks)
    assert "- With the sources' own share: CNN-LSTM's recall" in text
    assert "unbalanced data (90 % of the training images abnormal)" in text


def test_the_claim_is_judged_where_the_share_is_farthest_from_a_half(tmp_path):
    text = rendered(imbalance.tell(summarised(prevalences(tmp_path, (0.9, 0.75), seeds=(0,)), 100)))
    assert "unbalanced data (90 % of the training images abnormal)" in text


def test_balanced_training_alone_says_nothing_on_the_claim(tmp_path):
    for share in (None, 0.5):
        for model in ("cnn", "cnn_lstm"):
            write_train(write_run(tmp_path / f"{share} {model}", model, config={"data.train_prevalence": share}))
    assert "The study says" not in rendered(imbalance.tell(summarised(tmp_path, 100)))


def test_a_hole_and_undefined_metrics_are_shown_as_such(tmp_path):
    numbers = summarised(prevalences(tmp_path, seeds=(0,), without=[("cnn", 0.05)]), 100)
    block = numbers["models"]["cnn_lstm data.train_prevalence=0.05"]
    block["test"]["recall"], block["test_interval"]["recall"] = None, None
    text = rendered(imbalance.tell(numbers))
    assert "| CNN | not run | not run | not run | not run | not run |" in text
    assert "| CNN-LSTM | undefined | " in text


def test_runs_of_one_share_say_how_to_measure_it(tmp_path):
    numbers = summarised(two_runs(tmp_path), 100)
    assert imbalance.tell(numbers) == []
    assert imbalance.unmeasured(numbers)[0].remedy == "`python train.py experiment=imbalance data.root=DIR`"
