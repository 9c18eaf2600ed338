"""Figures are drawn from what there is; where a number is missing there is a gap, and no error."""

import numpy as np
import pandas as pd
import pytest

from lungdet.page import figures
from lungdet.page.drawing import colour_of, marker_of
from lungdet.page.marked import legible, marked

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
    element = figures.losses({"CNN": [table]})
    assert element.startswith("<svg")
    assert "nan" not in element.lower()


@pytest.mark.parametrize("rows", [["a", "b"], ["a name of a model with all that it was trained on", "b"]])
def test_dots_bars_and_matrices_have_gaps_where_a_number_is_missing(rows):
    marks = [(0.8, 0.1, 0.05), (np.nan, 0.0, 0.0)]
    strokes = {"always normal": [0.5, np.nan]}
    for element in (
        figures.dots(rows, {"CNN": marks, "other": marks[::-1]}, "AUROC", "dots", strokes=strokes),
        figures.bars(rows, {"train": [40.0, 0.0], "test": [10.0, 90.0]}, "per cent", "bars"),
        figures.confusion({"CNN": [3, 1, 0, 0], "other": [2.5, 1.5, 4, 5], "third": [0, 0, 1, 1]}),
        figures.reliability({"CNN": marks}, {"CNN": [0.4, 0.6]}),
    ):
        assert element.startswith("<svg")
        assert "nan" not in element.lower()


def test_a_matrix_writes_large_counts_out_and_means_with_one_decimal():
    element = figures.confusion({"CNN": [12345, 2 / 3, 8, 1000]})
    assert all(f">{count}<" in element for count in ("12,345", "0.7", "8", "1,000"))


def test_a_marked_figure_says_its_numbers_in_words():
    models = {"CNN": {"all": POINT, "few": BARE}, "other": {"all": {"test": {"auroc": 0.6}}, "few": BARE}}
    drawn = marked("areas", "AUROC by group", models, "A caption.")
    assert drawn.alt == "all: CNN 0.800 [0.700 to 0.850], other 0.600; few: CNN undefined, other undefined."
    alone = marked("areas", "AUROC by group", {"": {"all": POINT}}, "A caption.")
    assert alone.alt == "all: 0.800 [0.700 to 0.850]."


def test_no_two_of_many_models_are_drawn_alike():
    assert len({(colour_of(number), marker_of(number)) for number in range(64)}) == 64


def test_of_many_models_each_is_a_row_of_a_marked_figure():
    models = {f"CNN {number}": {"all": POINT, "few": BARE} for number in range(9)}
    assert legible(models)
    drawn = marked("areas", "AUROC by group", models, "A caption.")
    assert drawn.alt.startswith("CNN 0: all 0.800 [0.700 to 0.850], few undefined; CNN 1: all 0.800")
    assert not legible({name: dict.fromkeys(map(str, range(9)), POINT) for name in models})
