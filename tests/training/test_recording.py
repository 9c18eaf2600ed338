"""metrics.csv loses no epoch, and a checkpoint that anybody wrote leads nowhere."""

from pathlib import Path

import pandas as pd

from lungdet.training.recording import Record


def test_metrics_of_epochs_trained_again_are_replaced_and_earlier_ones_kept(tmp_path: Path) -> None:
    first = Record(tmp_path)
    for epoch in range(4):
        first._write({"epoch": epoch, "val/loss": 1.0 - epoch / 10})
    again = Record(tmp_path)
    again._write({"epoch": 2, "val/loss": 0.5, "val/new": 1.0})
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["val/loss"].tolist() == [1.0, 0.9, 0.5]
    assert table["val/new"].isna().tolist() == [True, True, False]


def test_no_path_is_taken_from_a_checkpoint_so_that_nothing_elsewhere_is_deleted(tmp_path: Path) -> None:
    """Lightning deletes the checkpoint that was the best before, by the path that the resumed one names."""
    foreign = f"local://{tmp_path}/home"
    state = {"monitor": "val/loss", "dirpath": "/elsewhere", "best_model_path": foreign, "best_model_score": 0.5}
    state |= {"kth_best_model_path": foreign, "best_k_models": {foreign: 0.5}, "last_model_path": foreign}
    Record(tmp_path).on_load_checkpoint(None, None, {"callbacks": {"ModelCheckpoint": state}})
    own = str(tmp_path / "checkpoints" / "best.ckpt")
    assert state["best_k_models"] == {own: 0.5}
    assert {value for key, value in state.items() if key.endswith("model_path")} == {own}
