"""Generalisation: train source by test source, the fall from the own source to others, and what is told elsewhere."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import generalisation
from lungdet.page import sentences
from lungdet.page.document import Figure, Table, flat
from tests.evaluation.gathering.test_parts import sources
from tests.evaluation.summaries import rendered, replicates, studied, summarised
from tests.fake_runs import predictions, two_runs, write_run

SOURCES = {"chestxray14": 80, "montgomery": 60, "shenzhen": 60}


def cross(folder, seeds=(0, 1, 2), without=(), elsewhere=(1.5, 0.2), **more):
    """Each model trained on each source: skilled on its own, less so elsewhere, the CNN-LSTM least."""
    for model, worse in zip(("cnn", "cnn_lstm"), elsewhere, strict=True):
        for source in SOURCES:
            for seed in seeds:
                if (model, source) in without:
                    continue
                parts = [
                    predictions(
                        SOURCES, seed=1, skill=4.0 if name == source else worse, draw=100 * len(model) + seed
                    ).query("dataset == @name")
                    for name in SOURCES
                ]
                known = {"test": pd.concat(parts, ignore_index=True), "config": {"data.train_on": [source]}} | more
                write_run(folder / f"{model} {source} {seed}", model, seed, SOURCES, **known)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return cross(tmp_path_factory.mktemp("cross"))


@pytest.fixture(scope="module")
def numbers(folder):
    return summarised(folder, 300)


@pytest.fixture(scope="module")
def with_all(tmp_path_factory):
    """The summary of a single seed, and of models that were trained on all sources."""
    folder = cross(tmp_path_factory.mktemp("all"), seeds=(0,))
    for model in ("cnn", "cnn_lstm"):
        test = predictions(SOURCES, seed=1)
        write_run(folder / f"all {model}", model, 0, SOURCES, test=test, config={"data.train_on": None})
    return summarised(folder)


def test_the_fall_is_own_source_minus_the_mean_of_the_others_averaged_over_sources_and_seeds(folder, numbers):
    falls, elsewhere = [], []
    for result in collect([folder])[0]:
        if "CNNLSTM" in result.run.config.model._target_:
            areas = {
                name: roc_auc_score(rows["target_abnormal"], rows["probability_abnormal"])
                for name, rows in result.test.groupby("dataset")
            }
            own = areas.pop(result.run.config.data.train_on[0])
            falls.append(own - np.mean(list(areas.values())))
            elsewhere.append(np.mean(list(areas.values())))
    found = numbers["generalisation"]["lines"]["cnn_lstm"]
    assert len(falls) == 9
    assert found["sources"] == sorted(SOURCES)
    assert found["drop"]["auroc"] == pytest.approx(np.mean(falls))
    assert found["others"]["auroc"] == pytest.approx(np.mean(elsewhere))
    low, high = found["drop_interval"]["auroc"]
    assert 0 < low < found["drop"]["auroc"] < high


def test_its_interval_is_that_of_each_sources_patients_redrawn_by_themselves(tmp_path):
    sizes = {"montgomery": 60, "shenzhen": 60}
    test = predictions(sizes, seed=1, skill=2.0)
    twin = test[test["dataset"] == "montgomery"]  # the same answers: drawn alike, its fall would never vary
    other = twin.assign(dataset="shenzhen", image_id="s" + twin["image_id"], patient_id="s" + twin["patient_id"])
    test = pd.concat([twin, other], ignore_index=True)
    for source in sizes:
        write_run(tmp_path / source, test=test, config={"data.train_on": [source]})
    some = replicates(tmp_path)
    settings = {name: {"train_on": [source], "learnt_from": [source]} for name, source in zip(some, sizes, strict=True)}
    [found] = generalisation.across_sources(some, settings, 2000)["lines"].values()
    assert found["drop"]["accuracy"] == 0
    # Montgomery less Shenzhen and Shenzhen less Montgomery: the mean of both is 0 in every draw.
    assert found["drop_interval"]["accuracy"] is None
    right = (twin["probability_abnormal"] > 0.5) == twin["target_abnormal"]
    by_patient = right.groupby(twin["patient_id"]).mean()
    error = by_patient.std() / np.sqrt(30) / np.sqrt(2)  # of a mean over two sources of 30 patients
    low, high = found["others_interval"]["accuracy"]
    assert (high - low) / 2 == pytest.approx(2.045 * error, rel=0.12)


def test_models_are_compared_in_their_fall_and_elsewhere(numbers):
    compared = numbers["generalisation"]["comparisons"]
    [fall], [others] = compared["drop"], compared["others"]
    lines = numbers["generalisation"]["lines"]
    difference = lines["cnn_lstm"]["drop"]["auroc"] - lines["cnn"]["drop"]["auroc"]
    assert fall["metrics"]["auroc"]["difference"] == pytest.approx(difference)
    assert sentences.significant(fall, "auroc")
    assert others["metrics"]["auroc"]["difference"] < 0
    family = [fall, others, *[line["fall"] for line in lines.values()]]  # all that the section says is shown or not
    found = [found for one in family for found in one["metrics"].values()]
    assert len(found) == 8
    assert min(one["p_holm"] for one in found) == pytest.approx(8 * min(one["p"] for one in found))
    text = rendered(generalisation.tell(numbers))
    assert "- CNN-LSTM's fall in AUROC from the own source to others is " in text
    assert "- CNN-LSTM's AUROC on sources not trained on is " in text
    assert "on other sources than on its own, 95 % interval " in text
    assert "mean over training on chestxray14, montgomery and shenzhen alone: a difference is shown." in text


def test_each_cell_has_its_interval_and_the_own_source_a_mark(numbers, drawn):
    blocks = [*flat(generalisation.tell(numbers))]
    tables = [block for block in blocks if isinstance(block, Table)]
    assert [table.columns[2:] for table in tables] == [[f"tested on {name}" for name in SOURCES]] * 2
    block = numbers["models"]["cnn_lstm data.train_on=['montgomery']"]["datasets"]
    row = next(row for row in tables[0].rows if row[:2] == ["montgomery", "CNN-LSTM"])
    for name, cell in zip(SOURCES, row[2:], strict=True):
        low, high = block[name]["test_interval"]["auroc"]
        own = " *" if name == "montgomery" else ""
        assert cell == f"{block[name]['test']['auroc']:.3f} [{low:.3f} to {high:.3f}]{own}"
    [figure] = [block for block in blocks if isinstance(block, Figure)]
    assert "CNN-LSTM trained on shenzhen: chestxray14 0." in figure.alt
    assert "<image" not in figure.svg


def test_training_on_all_sources_is_a_row_of_its_own_where_every_source_is_marked(with_all):
    assert set(with_all["generalisation"]["lines"]) == {"cnn", "cnn_lstm"}
    [table, _] = [block for block in flat(generalisation.tell(with_all)) if isinstance(block, Table)]
    assert [row[0] for row in table.rows[-2:]] == ["all sources", "all sources"]
    assert all(cell.endswith(" *") for cell in table.rows[-1][2:])


def test_a_failed_run_leaves_a_hole_and_models_on_other_sources_are_not_compared(tmp_path):
    found = summarised(cross(tmp_path, seeds=(0,), without=[("cnn", "shenzhen")]), 100)
    assert found["generalisation"]["lines"]["cnn"]["sources"] == ["chestxray14", "montgomery"]
    assert found["generalisation"]["comparisons"] == {"others": [], "drop": []}
    text = rendered(generalisation.tell(found))
    assert "| shenzhen | CNN | not run | not run | not run |" in text
    assert "mean over training on chestxray14 and montgomery alone" in text


def test_seeds_that_one_source_lacks_are_left_out_of_the_mean(tmp_path):
    cross(tmp_path, seeds=(0, 1))
    (tmp_path / "cnn shenzhen 1" / "predictions" / "test.parquet").unlink()
    found = generalisation.SECTION.measure(studied(tmp_path, 50))["generalisation"]
    assert found["lines"]["cnn"]["drop_sd"]["auroc"] is None
    assert found["lines"]["cnn_lstm"]["drop_sd"]["auroc"] is not None


def test_a_source_with_one_class_leaves_the_fall_undefined_and_the_cell_too(tmp_path):
    test = predictions(SOURCES, seed=1)
    test.loc[test["dataset"] == "montgomery", "target_abnormal"] = np.float32(1)
    runs = cross(tmp_path, seeds=(0,), without=[("cnn_lstm", source) for source in SOURCES], test=test)
    found = summarised(runs, 100)
    assert found["generalisation"]["lines"]["cnn"]["drop"]["auroc"] is None
    text = rendered(generalisation.tell(found))
    assert "CNN's fall in AUROC to other sources is undefined (" in text
    assert "no image is normal" in text
    assert "| undefined | " in text


def test_one_source_trained_on_is_a_row_without_a_fall(tmp_path):
    write_run(tmp_path / "run", datasets=SOURCES, config={"data.train_on": "montgomery"})
    found = summarised(tmp_path, 100)
    assert found["generalisation"] is None
    [table, _] = [block for block in flat(generalisation.tell(found)) if isinstance(block, Table)]
    assert table.rows[0][0] == "montgomery"


def test_what_runs_do_not_tell_of_other_sources_is_named_with_its_command(tmp_path):
    held_out, found = summarised(sources(tmp_path / "a"), 100), summarised(two_runs(tmp_path / "b", SOURCES), 100)
    for numbers, question in (
        (held_out, "How far a held-out source is below"),
        (found, "What the models are worth on a s"),
    ):
        assert generalisation.tell(numbers) == []
        [lacking] = generalisation.unmeasured(numbers)
        assert lacking.question.startswith(question)
        assert lacking.remedy == "`python train.py experiment=cross_dataset data.root=DIR`"
    found["data"]["external"] = "clinic"
    assert generalisation.unmeasured(found) == []


def test_a_falls_p_value_is_that_of_its_interval(numbers):
    for block in numbers["generalisation"]["lines"].values():
        for metric, found in block["fall"]["metrics"].items():
            (low, high), value = block["drop_interval"][metric], block["drop"][metric]
            assert (found["p"] < 0.05) == (not low <= 0 <= high)
            assert 0 < found["p"] <= found["p_holm"] <= 1
            assert (low + high) / 2 == pytest.approx(value)


def test_below_three_seeds_a_fall_is_shown_for_these_very_runs(with_all):
    lines = rendered(generalisation.tell(with_all)).splitlines()
    falls = [line for line in lines if "on other sources than on its" in line]
    assert len(falls) == 4
    assert all(line.endswith(": a difference is shown, for these very runs.") for line in falls)


def test_a_fall_that_is_one_of_many_is_not_shown_by_its_own_interval(numbers):
    block = numbers["generalisation"]["lines"]["cnn"]
    block = block | {"fall": {"counts_seeds": True, "metrics": {"auroc": {"p": 0.03, "p_holm": 0.12}}}}
    said = generalisation.fall(Model("cnn"), block, "auroc")
    assert said.endswith(": no difference is shown (p 0.120, adjusted for all that is compared).")


def test_sources_trained_on_under_other_seeds_have_no_seed_in_common(tmp_path):
    sizes = {"montgomery": 60, "shenzhen": 60}
    test = predictions(sizes, seed=1)
    for seed, source in enumerate(sizes):
        write_run(tmp_path / source, "cnn", seed, sizes, test=test, config={"data.train_on": source})
    found = summarised(tmp_path, 100)
    assert found["generalisation"]["lines"]["cnn"]["reason"].startswith("no seed in common")
    text = rendered(generalisation.tell(found))
    assert (
        "- CNN's fall to other sources is not measured: no seed in common: montgomery was trained on under seed 0, "
        "shenzhen under seed 1." in text
    )
    assert "| montgomery | CNN | " in text
