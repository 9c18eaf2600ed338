"""What the CNN-LSTM gains from series, where findings change and where not, and what is told without them."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lungdet.evaluation.sections import earlier_visits
from lungdet.evaluation.statistics.intervals import holm
from lungdet.evaluation.statistics.visits import Group, groups, label_before
from lungdet.findings import FINDINGS
from lungdet.page import sentences
from lungdet.page.document import Table, flat
from tests.evaluation.sections.test_recurrence import CNN, LSTM, cohort, replicates, simulated, summarised
from tests.evaluation.summaries import rendered


def of_labels(table, logit):
    """Log-odds of a model that these are but for its seed's noise."""
    noise = [np.random.default_rng([7, seed]).normal(size=len(table)) for seed in range(3)]
    return [logit + one for one in noise]


def test_who_reads_change_gains_where_findings_change_and_who_repeats_the_last_label_only_where_they_do_not():
    table = cohort()
    before = np.nan_to_num(label_before(table, "abnormal"), nan=0.5) - 0.5
    poor = of_labels(table, 0.8 * (table["truth"].to_numpy() - 0.5))
    reading = of_labels(table, 3.0 * (table["truth"].to_numpy() - 0.5))
    repeating = of_labels(table, 0.8 * (table["truth"].to_numpy() - 0.5) + 3.0 * before)
    gains = {}
    for name, of in (("reading", reading), ("repeating", repeating)):
        numbers = summarised({CNN: replicates(table, poor), LSTM: replicates(table, of)})
        [one] = numbers["series"]
        gains[name] = {
            group: sentences.significant(one, group) for group in one["metrics"] if group.startswith("abnormal")
        }
        text = rendered(earlier_visits.tell(numbers))
        if name == "reading":
            assert "a gain in AUROC is shown where any finding appeared, where any finding cleared" in text
            found = one["metrics"]["abnormal appeared"]
            rows = table[groups(table, ("abnormal",))[Group("abnormal", "appeared")][1]]
            areas = [
                np.mean([roc_auc_score(rows["target_abnormal"], p[rows.index]) for p in some])
                for some in (poor, reading)
            ]
            assert found["difference"] == pytest.approx(areas[1] - areas[0])
            assert "CNN-LSTM's AUROC where any finding appeared is " in text
            assert "the intervals overlap: that it grows is not shown." in text
        assert "Of no case it is known both now and at the visit before: pneumonia and effusion." in text
    assert gains["reading"] == dict.fromkeys(("abnormal appeared", "abnormal cleared", "abnormal unchanged"), True)
    assert gains["repeating"] == dict.fromkeys(("abnormal appeared", "abnormal cleared"), False) | {
        "abnormal unchanged": True
    }


def test_small_groups_are_listed_without_a_claim_and_outside_the_family():
    table = cohort(40)
    models = simulated(table, {"cnn": 0.5, "cnn_lstm": 4.0})
    numbers = summarised(models)
    [one] = numbers["series"]
    few = [group for group, block in one["groups"].items() if block["few"]]
    assert "abnormal cleared" in few
    assert all(one["metrics"][group]["p_holm"] is None for group in few)
    judged = [found for group, found in one["metrics"].items() if group not in few]
    assert [found["p_holm"] for found in judged] == pytest.approx(holm([found["p"] for found in judged]))
    [shown] = [block for block in flat(earlier_visits.tell(numbers)) if isinstance(block, Table)]
    assert "any finding cleared (against: still there) (few)" in [row[0] for row in shown.rows]
    block = one["groups"]["abnormal cleared"]
    expected = table[groups(table, ("abnormal",))[Group("abnormal", "cleared")][1]]["target_abnormal"]
    assert (block["abnormal"], block["labelled"]) == (expected.sum(), len(expected))


def test_models_of_findings_are_asked_each_finding_by_its_own_prediction():
    table = cohort().rename(columns={"target_abnormal": "target_effusion"})
    table = table.assign(target_pneumonia=np.nan, target_abnormal=table["target_effusion"])
    truth = table["truth"].to_numpy() - 0.5
    labels = FINDINGS
    table = table.assign(**{f"target_{name}": np.nan for name in labels if name != "effusion"})

    def model(skill):
        return [dict.fromkeys(labels, np.zeros(len(table))) | {"effusion": p} for p in of_labels(table, skill * truth)]

    models = {
        CNN: replicates(table, model(0.5), task="findings"),
        LSTM: replicates(table, model(3.0), task="findings"),
    }
    study = SimpleNamespace(models=models, pairs=[(CNN, LSTM)], draws=200)
    [one] = earlier_visits.measure(study)["series"]
    assert [group for group in one["groups"] if " " in group and group[0].isalpha()] == [
        "effusion appeared",
        "effusion cleared",
        "effusion unchanged",
    ]
    assert sentences.significant(one, "effusion appeared")
    assert one["groups"]["1"]["findings"] == ["effusion"]
    settings = {"settings": {"role": "cnn_lstm", "sequence": "visits"}}
    text = rendered(earlier_visits.tell({"models": {LSTM: settings}, "series": [one]}))
    assert "By length of series AUROC is the mean over the findings" in text
    assert "at the visit before: pneumonia." in text


def test_runs_that_read_no_series_say_how_many_images_there_would_be_to_read():
    data = {"test": {"images": 68, "patients": 34}, "patients_known": True}
    assert earlier_visits.tell({"series": []}) == []
    [lacking] = earlier_visits.unmeasured({"series": [], "data": data})
    assert lacking.question.endswith("earlier images (34 further images here)")
    assert lacking.remedy == "`python train.py -m model=cnn,cnn_lstm model.sequence=visits seed=0,1,2`"
    [lacking] = earlier_visits.unmeasured({"series": [], "data": data | {"patients_known": False}})
    assert lacking.remedy == "`python train.py experiment=temporal` on phantoms"
