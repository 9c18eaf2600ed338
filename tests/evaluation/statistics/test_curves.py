"""Curves agree with another implementation, and begin where something is recalled."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from lungdet.evaluation.statistics.curves import POINTS, curves


def test_curves_are_those_of_another_implementation_and_precision_begins_at_the_first_hit():
    y = np.tile([0.0, 1, 1, 0, 1], 8)
    logit = np.linspace(2, -2, len(y))  # the first is a false alarm: nothing is recalled yet
    table = pd.DataFrame({"patient_id": np.arange(len(y)), "target_abnormal": y, "logit_abnormal": logit})
    alarms, recall, _ = metrics.roc_curve(y, logit)
    assert curves([table], "abnormal", "roc").y == pytest.approx(np.interp(POINTS, alarms, recall), abs=0.05)
    precision = curves([table], "abnormal", "pr").y
    assert precision[0] == precision[1] == 0.5
    assert precision[-1] == pytest.approx(y.mean(), abs=0.02)
