"""Another system is judged as a model is, by what test predictions tell, and nothing is said of it that they do not."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lungdet.evaluation import summary
from lungdet.evaluation.gathering import models, peers
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import by_finding, by_part, calibrated, flattery, referral, subgroups
from lungdet.findings import FINDINGS
from lungdet.programs import evaluate
from tests.calling import call
from tests.fake_runs import fold_of, write_run

HOSTILE = "twin, <script>alert(1)<b> [x](javascript:alert(2))"
"""A name that is a file's, too."""
MEASURED = ("test", "test_interval", "subgroups", "sensitivity_by_finding", "referral", "datasets")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs beside the first one's own predictions, under a hostile name, and a reader's decisions."""
    folder = tmp_path_factory.mktemp("judged")
    for model in ("cnn", "cnn_lstm"):
        write_run(folder / "runs" / model, model, datasets={"chestxray14": 200}, skill=2, guesses={"all": 0.7})
    own = pd.read_parquet(folder / "runs" / "cnn" / "predictions" / "test.parquet")
    (folder / "theirs").mkdir()
    own.to_csv(folder / "theirs" / "twin.csv", index=False)
    called = (own["target_abnormal"] != (np.arange(len(own)) % 10 == 0)).astype(int)  # one of ten is wrong
    reader = pd.DataFrame({"Image Index": own["image_id"].str.partition("/")[2] + ".png", "abnormal": called})
    reader.to_csv(folder / "theirs" / "reader.csv", index=False)
    twin = folder / "theirs" / f"{HOSTILE}.csv"
    (folder / "theirs" / "twin.csv").rename(twin)
    quoted = f'"{twin}"'
    words = (f"runs={folder / 'runs'}", f"predictions=[{quoted},theirs/reader.csv]", "draws=100")
    done = call(evaluate, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "reader: theirs/reader.csv, images told by the path in their dataset" in done.stdout
    return folder / "runs" / "report-twin-script-alert-1-b-x-javascript-alert-2-reader"


@pytest.fixture(scope="module")
def numbers(report: Path) -> dict:
    """What the report is made of."""
    return json.loads((report / "metrics.json").read_text())


def without_thresholds(block: object) -> object:
    """What validation had no part in."""
    if not isinstance(block, dict):
        return block
    of_validation = ("at_validation", "undefined")
    return {key: without_thresholds(value) for key, value in block.items() if not key.startswith(of_validation)}


def compared(numbers: dict, first: str, second: str) -> dict:
    """Their comparison, by metric."""
    [pair] = [pair for pair in numbers["comparisons"] if pair["first"] == first and pair["second"].startswith(second)]
    return pair["metrics"]


def test_a_runs_own_predictions_given_back_have_its_metrics_and_intervals_and_no_difference(numbers):
    own, [twin] = numbers["models"]["cnn"], [m for name, m in numbers["models"].items() if name.startswith("twin")]
    for key in MEASURED:
        assert without_thresholds(twin[key]) == without_thresholds(own[key]), key  # to the last bit
    for metric, cell in compared(numbers, "cnn", "twin").items():
        assert (cell["difference"], cell["interval"]) == (0, [0, 0]), metric


def test_a_paired_difference_is_that_of_a_run_with_the_same_predictions(numbers):
    with_run, with_peer = compared(numbers, "cnn", "cnn_lstm"), compared(numbers, "cnn_lstm", "twin")
    for metric, cell in with_peer.items():
        assert cell["difference"] == pytest.approx(-with_run[metric]["difference"], abs=1e-12)
        assert cell["interval"] == pytest.approx([-end for end in with_run[metric]["interval"][::-1]], abs=1e-12)
        assert (cell.get("p"), cell["p_permutation"]) == (with_run[metric].get("p"), with_run[metric]["p_permutation"])


def test_decisions_are_one_operating_point(numbers):
    reader = numbers["models"]["reader"]
    assert reader["test"]["accuracy"] == pytest.approx(0.9)
    assert reader["test"]["auroc"] == pytest.approx((reader["test"]["recall"] + reader["test"]["specificity"]) / 2)
    assert reader["test"]["log_loss"] == pytest.approx(0.1 * 36.04, rel=1e-3)
    [caveat] = [caveat for caveat in numbers["caveats"] if "single operating point" in caveat]
    assert caveat.startswith("reader gives decisions (0 or 1)")


def test_what_nobody_knows_of_it_is_said_and_no_threshold_is_made_up(numbers, report):
    reader = numbers["models"]["reader"]
    assert reader["at_validation_threshold"]["accuracy"] is None
    assert reader["at_validation_threshold"]["auroc"] == reader["test"]["auroc"]
    assert reader["thresholds"][0]["reason"] == "no validation predictions of it are known"
    assert reader["calibrated"]["after"] is None
    assert not {"gap", "shortcuts", "parameters", "hardware", "image_quality", "known"} & reader.keys()
    assert [caveat for caveat in numbers["caveats"] if "had learnt from these test patients is not known" in caveat]
    assert numbers["answer"].endswith("Whether reader had learnt from these test patients is not known.")
    assert "what the other systems had learnt from" in (report / "claim.md").read_text()
    assert (report / "report.md").read_text().count("Accuracy, Precision, Recall and F1 of twin, ") == 1  # not 8 times
    text = (report / "report.md").read_text()
    for section in ("## Cost", "## Runs", "## Data and split", "## What the label can be guessed from"):
        part = text.partition(section)[2].partition("\n## ")[0]
        assert "of which test predictions alone are known." in part, section
        assert "| reader |" not in part


def test_a_name_makes_no_tag_no_link_and_no_column(report):
    page = (report / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert 'href="javascript' not in page
    rows = pd.read_csv(report / "tables" / "results.csv")
    assert [name for name in rows["Model"] if name.startswith("twin, <script>")]


def test_a_file_that_lacks_images_is_refused_before_anything_is_written(report):
    runs = report.parent
    table = pd.read_csv(runs.parent / "theirs" / "reader.csv")
    table[1:].to_csv(runs.parent / "theirs" / "fewer.csv", index=False)
    done = call(evaluate, f"runs={runs}", "predictions=theirs/fewer.csv", cwd=runs.parent)
    assert done.returncode == 1
    assert "theirs/fewer.csv lacks 1 of the 200 tested images: chestxray14/1_0000." in done.stderr
    assert not (runs / "report-fewer").exists()


def test_a_system_of_fewer_findings_is_refused_with_the_override_that_judges_all_models_on_what_it_has(tmp_path):
    run = write_run(tmp_path / "run", task="findings", skill=2)
    own = pd.read_parquet(run / "predictions" / "test.parquet")
    own[["image_id", "logit_nodule"]].to_csv(tmp_path / "nodules.csv", index=False)
    words = [f"runs={run}", f"predictions={tmp_path}/nodules.csv", "draws=100"]
    refused = call(evaluate, *words)
    assert "no column says effusion, which the runs predict on these images" in refused.stderr
    proposed = refused.stderr.strip().rpartition(": ")[2]
    assert proposed == "'labels=[nodule]'"
    done = call(evaluate, *words, proposed.strip("'"))
    assert done.returncode == 0, done.stderr
    assert "mean AUROC over 1 finding judged here is" in done.stdout
    text = (tmp_path / "run" / "report-nodule-nodules" / "report.md").read_text()
    assert "Means are over the 1 finding that `labels` asks for, each counting alike" in text
    assert "By request (`labels`) nothing is measured of atelectasis, " in text
    assert "nodules says nothing of atelectasis, " in text
    assert {*json.loads((run / "thresholds.json").read_text())} == {*FINDINGS}  # of all that the run predicts
    assert not (run / "MODEL_CARD.md").exists()
    unknown = call(evaluate, *words, "labels=[nodule,asthma]")
    assert f"labels: asthma: {run} predicts atelectasis, " in unknown.stderr


def test_a_system_is_compared_with_the_models_that_are_no_controls_and_with_each_other():
    model = models.Model
    own = [model("cnn"), model("cnn_lstm"), model("cnn_lstm", {"model.shuffle": True})]
    others = [model("a"), model("b")]
    assert peers.pairs(own, others) == [*((first, second) for first in own[:2] for second in others), (*others,)]
    assert peers.pairs(own[2:], others[:1]) == [(own[2], others[0])]


def test_a_threshold_that_is_given_applies_to_all_and_findings_and_folds_are_judged_too(tmp_path):
    for fold in (0, 1):
        write_run(
            tmp_path / "runs" / f"{fold}",
            split_seed=fold,
            split=fold_of(fold, 2) | {"seed": 0},
            config={"data.fold": fold, "data.split_seed": 0},
            task="findings",
            skill=2,
        )
    own, skipped = models.group(collect([tmp_path / "runs"])[0])
    [[pooled]] = own.values()
    pooled.test.to_parquet(tmp_path / "twin.parquet")
    both = own | peers.group(peers.read({"twin": tmp_path / "twin.parquet"}), own)
    study = summary.study_of(both, skipped, "fixed", 0.3, tmp_path / "report", 20)
    assert [scores.estimates["auroc"].fixed for scores in study.scores.values()] == [False, True]
    assert study.cuts[models.Model("twin")][0]["effusion"] == pytest.approx(np.log(0.3 / 0.7))
    for section, key in [
        (by_finding, "findings"),
        (by_part, "parts"),
        (flattery, "flattery"),
        (referral, "referral"),
        (subgroups, "subgroups"),
    ]:
        ours, theirs = (block[key] for block in section.SECTION.measure(study)["models"].values())
        if section is by_finding:
            ours, theirs = ours["effusion"] | {"thresholds": None}, theirs["effusion"] | {"thresholds": None}
        assert theirs == ours, key
    ours, theirs = (block["calibrated"] for block in calibrated.SECTION.measure(study)["models"].values())
    assert theirs["over"] == ["effusion", "nodule"]
    assert set(theirs["unscaled"].values()) == {"no validation predictions of it are known"}
    assert theirs["before"]["test"]["brier"] > 0
    undecided = summary.study_of(both, skipped, "f1", None, tmp_path / "report", 20)
    assert np.isnan(undecided.cuts[models.Model("twin")][0]["effusion"])
