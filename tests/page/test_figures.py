"""Figures are drawn from what there is; where a number is missing there is a gap, and no error."""

import numpy as np
import pandas as pd
import pytest

from lungdet.page import figures

POINT = {"test": {"auroc": 0.8}, "test_interval": {"auroc": (0.7, 0.85)}}
BARE = {"test": {"auroc": None}, "test_interval": {"auroc": None}}
ALONE = {"test": {"auroc": 0.6}, "test_interval": {"auroc": None}}


@pytest.mark.parametrize("blocks", [[POINT, ALONE, BARE], [None, POINT, None], [BARE, None, BARE]])
def test_a_panel_leaves_out_what_is_undefined_or_was_not_measured(blocks):
    panel = figures.Panel({"CNN": [POINT] * 3, "other": blocks}, "test", range(3), list("abc"), ("x", "y"), 0.5, 0.1)
    element = figures.panels([panel, panel], 2.0, "shares", {"sharex": True})
    assert element.startswith("<svg")
    assert "nan" not in element.lower()


@pytest.mark.parametrize("val", [[0.5, 0.4], [np.nan, 0.4], [np.nan, np.nan]])
def test_losses_are_lines_by_epoch_also_where_an_epoch_was_not_validated(val):
    table = pd.DataFrame({"epoch": [0, 1], "train/loss": [0.7, 0.6], "val/loss": val})
    element = figures.losses({"CNN": [table]}, {"train/loss": "--", "val/loss": "-"})
    assert element.startswith("<svg")
    assert "nan" not in element.lower()
