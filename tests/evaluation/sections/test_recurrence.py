"""When the recurrence is said to help, on which cases it is judged, and what the report makes of it."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from lungdet.evaluation import report
from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.results import Result
from lungdet.evaluation.sections import choice, earlier_visits, recurrence
from lungdet.evaluation.statistics import visits
from lungdet.evaluation.statistics.intervals import holm
from lungdet.evaluation.statistics.measure import estimated
from lungdet.findings import FINDINGS
from lungdet.page import sentences
from lungdet.page.document import Table, flat
from tests.evaluation.summaries import rendered
from tests.fake_runs import evaluate, predictions, write_run
from tests.simulated import several_seeds

ROLES = {
    Model("cnn"): "cnn",
    Model("cnn_lstm", {"model.frozen": False, "model.shuffle": False}): "cnn_lstm",
    Model("cnn_lstm", {"model.frozen": False, "model.shuffle": True}): "cnn_lstm_shuffled",
    Model("cnn_mlp"): "cnn_mlp",
    Model("length_only"): "length_only",
}
CNN, LSTM, SHUFFLED = list(ROLES)[:3]
CONTROLS = {
    "cnn_mlp": {"model._target_": "lungdet.models.cnn_mlp.CNNMLP"},
    "pool": {"model._target_": "lungdet.models.pool.Pool"},
    "length_only": {"model._target_": "lungdet.models.length_only.LengthOnly"},
    "cnn_lstm": {"model.shuffle": False, "model.frozen": False},
    "cnn_lstm_shuffled": {"model.shuffle": True, "model.frozen": False},
    "cnn_lstm_frozen": {"model.shuffle": False, "model.frozen": True},
}


def cohort(patients: int = 250, seed: int = 0) -> pd.DataFrame:
    """Patients with 1 to 10 visits, whose labels mostly stay what they were; one image in ten is unlabelled."""
    generator = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        label = float(generator.random() < 0.4)
        for visit in range(generator.integers(1, 11)):
            label = 1 - label if visit and generator.random() < 0.25 else label
            rows.append((f"{patient}_{visit}", patient, visit, np.nan if generator.random() < 0.1 else label, label))
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "visit", "target_abnormal", "truth"])
    return table.sort_values("image_id", ignore_index=True)


def replicates(table, log_odds, sequence="visits", task="abnormal"):
    """A model's replicates, one for each seed's log-odds (a dict by label, or those of `abnormal`)."""
    model = {"_target_": "x.y.Z", "sequence": sequence}
    found = []
    for seed, some in enumerate(log_odds):
        some = some if isinstance(some, dict) else {"abnormal": some}
        test = table.assign(**{f"logit_{label}": logit for label, logit in some.items()})
        config = OmegaConf.create({"task": task, "seed": seed, "model": model, "data": {"visits": 8}})
        found.append(Replicate({"test": Result(SimpleNamespace(config=config), test, test)}))
    return found


def simulated(table, skills, seeds=3, sequence="visits"):
    """Models by name, each as skilled as `skills` has it by role: a number, or one an image."""
    generator = np.random.default_rng(1)
    return {
        name: replicates(
            table,
            several_seeds(generator, table["truth"].to_numpy(), table["patient_id"], seeds, skills[role], 0.02),
            sequence,
        )
        for name, role in ROLES.items()
        if role in skills
    }


def summarised(models, draws=300):
    """The summary, as far as the section on the recurrence reads it."""
    roles = {name: ROLES[name] for name in models}
    estimates = {
        name: estimated([one.test for one in some], ("abnormal",), draws, ["auroc"]) for name, some in models.items()
    }
    pairs = [(name, LSTM) for name in models if name != LSTM]
    sequence = models[LSTM][0].first.run.config.model.sequence
    study = SimpleNamespace(models=models, estimates=estimates, pairs=pairs, draws=draws)
    return {
        "task": "abnormal",
        "models": {name: {"settings": {"role": roles[name], "sequence": sequence}} for name in models},
        **recurrence.measure(study),
        **earlier_visits.measure(study),
    }


@cache
def helping(sequence="visits"):
    """The summary of a CNN-LSTM that is better than all others."""
    return summarised(simulated(cohort(), WEAKER | {"cnn_lstm": 2.0}, sequence=sequence))


def verdict(numbers):
    [one] = numbers["recurrence"]
    rendered(recurrence.tell(numbers))
    json.dumps(numbers, allow_nan=False)
    return recurrence.sentence(numbers, one)


WEAKER = {"cnn": 0.8, "cnn_mlp": 0.8, "cnn_lstm_shuffled": 0.8, "length_only": 0.1}


def test_a_recurrence_that_helps_everywhere_is_said_to_help():
    numbers = helping()
    assert numbers["recurrence"][0]["helps"]
    assert verdict(numbers) == (
        "The recurrence helps: CNN-LSTM's AUROC is above that of CNN-MLP and CNN-LSTM shuffled on all cases and cases "
        "with two or more earlier visits, and each of these differences is shown."
    )


def test_without_an_effect_none_is_claimed_and_every_comparison_that_shows_none_is_named():
    numbers = summarised(simulated(cohort(), WEAKER | {"cnn_lstm": 0.8}))
    assert not numbers["recurrence"][0]["helps"]
    said = verdict(numbers)
    assert said.startswith(
        "No effect of the recurrence is shown: on all cases CNN-LSTM is not shown to be better than "
    )
    for control in ("CNN-MLP", "CNN-LSTM shuffled"):
        for cases in ("all cases", "cases with two or more earlier visits"):
            assert f"on {cases} CNN-LSTM is not shown to be better than {control}" in said


@pytest.mark.parametrize(("strong", "name"), [("cnn_lstm_shuffled", "CNN-LSTM shuffled"), ("cnn_mlp", "CNN-MLP")])
def test_a_control_that_is_as_good_forbids_the_claim_whatever_else_is_beaten(strong, name):
    numbers = summarised(simulated(cohort(), WEAKER | {"cnn_lstm": 2.0, strong: 2.0}))
    by_model = {one["first"]: one for one in numbers["recurrence"][0]["cases"]["all"]["comparisons"]}
    assert sentences.significant(by_model["cnn"], "auroc")
    assert not numbers["recurrence"][0]["helps"]
    said = verdict(numbers)
    assert said.count("not shown to be better than") == 2
    assert f"on all cases CNN-LSTM is not shown to be better than {name};" in said


def test_a_control_that_is_better_is_said_to_be():
    said = verdict(summarised(simulated(cohort(), WEAKER | {"cnn_lstm": 0.8, "cnn_lstm_shuffled": 2.0})))
    assert "on all cases CNN-LSTM shuffled is better than CNN-LSTM, which is shown" in said


def test_a_gain_that_cases_with_an_order_of_earlier_visits_do_not_have_is_not_the_recurrences():
    table = cohort()
    early = np.where(visits.earlier_visits(table) < 2, 5.0, 0.8)
    numbers = summarised(simulated(table, WEAKER | {"cnn_lstm": early}))
    all_cases = numbers["recurrence"][0]["cases"]["all"]["comparisons"]
    assert all(sentences.significant(one, "auroc") and one["metrics"]["auroc"]["difference"] > 0 for one in all_cases)
    assert not numbers["recurrence"][0]["helps"]
    said = verdict(numbers)
    assert "on cases with two or more earlier visits CNN-LSTM is not shown to be better than CNN-MLP" in said
    assert "on all cases" not in said


@pytest.mark.parametrize(
    ("lacks", "name", "sequence"),
    [("cnn_lstm_shuffled", "CNN-LSTM shuffled", "visits"), ("cnn_mlp", "CNN-MLP", "rows")],
)
def test_a_missing_control_is_named_with_the_command_that_adds_it(lacks, name, sequence):
    skills = {role: skill for role, skill in (WEAKER | {"cnn_lstm": 2.0}).items() if role != lacks}
    numbers = summarised(simulated(cohort(), skills, sequence=sequence))
    said = verdict(numbers)
    reads = " model.sequence=visits" if sequence == "visits" else ""
    assert said.startswith(f"No effect of the recurrence is shown: {name} is missing (")
    assert said.endswith(f"): `python train.py experiment=controls{reads} data.root=DIR` adds it.")


def test_without_any_control_or_any_plain_cnn_lstm_it_is_not_measured():
    models = simulated(cohort(40), {"cnn": 1.0, "cnn_lstm": 1.0})
    numbers = summarised(models)
    assert numbers["recurrence"] == []
    assert recurrence.tell(numbers) == []
    assert recurrence.unmeasured(numbers)[0].remedy == "`python train.py experiment=controls data.root=DIR`"
    shuffled = SimpleNamespace(models={CNN: models[CNN], SHUFFLED: models[LSTM]}, pairs=[(CNN, SHUFFLED)])
    assert recurrence.measure(shuffled) == {"recurrence": []}


def test_below_three_seeds_the_claim_is_about_these_very_runs():
    said = verdict(summarised(simulated(cohort(), WEAKER | {"cnn_lstm": 2.0}, seeds=2)))
    assert said.startswith("The recurrence helps, for these very runs: ")


def test_p_is_adjusted_over_the_comparisons_that_decide_and_over_the_others_apart():
    [one] = summarised(simulated(cohort(), WEAKER | {"cnn_lstm": 0.9}))["recurrence"]
    compared = [each for case in one["cases"].values() for each in case["comparisons"]]
    for some in (lambda role: role in recurrence.DECIDE, lambda role: role not in recurrence.DECIDE):
        family = [each["metrics"]["auroc"] for each in compared if some(ROLES[each["first"]])]
        assert len(family) == 4
        assert [found["p_holm"] for found in family] == pytest.approx(holm([found["p"] for found in family]))


def test_the_table_holds_every_model_on_both_kinds_of_cases():
    table = cohort()
    models = simulated(table, WEAKER | {"cnn_lstm": 2.0})
    numbers = helping()
    [one] = numbers["recurrence"]
    inside = (visits.earlier_visits(table) >= 2) & table["target_abnormal"].notna()
    assert one["cases"]["earlier"]["labelled"] == one["cases"]["earlier"]["images"] == inside.sum()
    areas = []
    for replicate in models["cnn_mlp"]:
        rows = replicate.test[inside]
        areas.append(roc_auc_score(rows["target_abnormal"], rows["logit_abnormal"]))
    assert one["cases"]["earlier"]["models"]["cnn_mlp"]["test"]["auroc"] == pytest.approx(np.mean(areas))
    [shown] = [block for block in flat(recurrence.tell(numbers)) if isinstance(block, Table)]
    assert [row[0] for row in shown.rows] == ["CNN-LSTM", "CNN", "CNN-MLP", "CNN-LSTM shuffled", "length alone"]
    assert shown.rows[2][4].startswith(f"{np.mean(areas):.3f} [")
    assert shown.rows[0][2:4] == ["", ""]
    assert any(
        f"{inside.sum():,} of {table['target_abnormal'].notna().sum():,} labelled" in note for note in shown.notes
    )


def test_where_no_case_has_two_earlier_visits_or_a_map_is_read_all_cases_decide_alone():
    skills = WEAKER | {"cnn_lstm": 2.0}
    short = cohort(600)
    short = short[short["visit"] < 2].reset_index(drop=True)
    for numbers in (summarised(simulated(short, skills)), helping("rows")):
        assert list(numbers["recurrence"][0]["cases"]) == ["all"]
        assert verdict(numbers).endswith("CNN-LSTM shuffled on all cases, and each of these differences is shown.")


def test_a_report_with_all_controls_names_them_and_advises_none(tmp_path: Path):
    test = predictions({"chestxray14": 120}, seed=1)
    rows = np.arange(len(test))
    test = test.assign(patient_id=[f"p{row // 6}" for row in rows], visit=rows % 6)
    test.loc[3, [f"target_{name}" for name in ("abnormal", *FINDINGS)]] = np.nan
    for name, config in {"cnn": {}, **CONTROLS}.items():
        draws = predictions({"chestxray14": 120}, seed=1, draw=len(name))
        told = test.assign(**{key: draws[key] for key in ("logit_abnormal", "probability_abnormal")})
        base = "cnn_lstm" if name.startswith("cnn_lstm") else "cnn"
        write_run(tmp_path / name, base, test=told, config={"model.sequence": "visits", **config})
    numbers, written, out = evaluate(tmp_path, draws=60)
    lstm = "cnn_lstm model.frozen=False model.shuffle=False"
    assert {(one["first"], one["second"]) for one in numbers["comparisons"]} == {
        (name, lstm) for name in numbers["models"] if name != lstm
    }
    assert [next(iter(one["models"])) for one in numbers["combined"]] == [f"cnn + {lstm}"]
    assert written.title.endswith("evaluation of CNN, CNN-LSTM, CNN-MLP, length alone and pooled steps")
    assert written.answer.endswith("No effect of the recurrence is shown ([why](#recurrence)).")
    assert not any(name in written.answer for name in ("pooled", "alone", "MLP", "shuffled"))
    assert numbers["recurrence"][0]["missing"] == []
    assert list(numbers["recurrence"][0]["cases"]) == ["all", "earlier"]
    assert [(one["first"], one["second"]) for one in numbers["series"]] == [("cnn", lstm)]
    text = (out / "report.md").read_text()
    for said in ("## Is it the recurrence?", "| CNN-LSTM frozen |", "The study says that the CNN-LSTM profits most"):
        assert said in text
    assert "=False" not in text
    assert "=True" not in text
    [table] = choice.tell(numbers | {"advice": report.advice(numbers)})
    assert not any(
        name in cell for row in table.rows for cell in row for name in ("MLP", "pooled", "alone", "shuffled")
    )
    situation = {row[0]: row[1] for row in table.rows}
    assert situation["Series of a patient's images"] != choice.NOT_MEASURED
