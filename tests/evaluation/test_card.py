"""The model card: huggingface_hub reads it, its numbers are the report's, and it says what the model is not."""

from pathlib import Path

from huggingface_hub import ModelCard

from lungdet.evaluation.card import NAME
from tests.fake_runs import evaluate, two_runs, write_run


def test_a_card_is_read_by_the_hubs_own_client_and_has_the_reports_numbers(tmp_path: Path) -> None:
    folder = two_runs(tmp_path / "sweep", {"chestxray14": 60, "montgomery": 30}, guesses={"view": 0.9})
    numbers, _, out = evaluate(folder)
    card = ModelCard.load(out / NAME)
    results = {(entry.metric_type, entry.metric_value) for entry in card.data.eval_results}
    for block in numbers["models"].values():
        assert ("accuracy", round(block["test"]["accuracy"], 6)) in results
        assert ("roc_auc", round(block["test"]["auroc"], 6)) in results
    assert {entry.dataset_name for entry in card.data.eval_results} == {"chestxray14+montgomery"}
    assert (card.data.pipeline_tag, card.data.license) == ("image-classification", "unknown")
    sections = [line.removeprefix("## ") for line in card.text.splitlines() if line.startswith("## ")]
    assert sections == [
        "Intended use",
        "Not intended: no medical device",
        "Models",
        "Results at threshold 0.5",
        "Data and split",
        "Subgroups",
        "Shortcuts",
        "Limits",
    ]
    low, high = numbers["models"]["cnn"]["test_interval"]["auroc"]
    assert f"AUROC (95 % interval {low:.3f} to {high:.3f})" in {entry.metric_name for entry in card.data.eval_results}
    assert "view (PA, AP)" in card.text
    assert "the same at thresholds chosen on validation:" in card.text  # what is folded in the report
    assert all(split in card.text for split in numbers["split"]["hashes"])
    assert "The labels of chestxray14 were mined from reports" in card.text
    assert "figures/" not in card.text
    assert not [*folder.glob(f"*_cnn/{NAME}")]  # of several runs it is the report's


def test_a_single_runs_folder_has_its_card(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    _, _, out = evaluate(run)
    assert (run / NAME).read_text() == (out / NAME).read_text()
    assert ModelCard.load(run / NAME).data.model_name == "CNN"
    assert (
        "What the label can be guessed from without the lungs: not measured, the runs recorded none."
        in (run / NAME).read_text()
    )


def test_of_other_data_the_card_lies_with_the_report_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    _, _, out = evaluate(run, tmp_path / "report", external="montgomery")
    assert not (run / NAME).exists()
    assert {entry.dataset_split for entry in ModelCard.load(out / NAME).data.eval_results} == {"other data"}
