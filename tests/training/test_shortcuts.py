"""Shortcuts find what gives the label away, learn from the training part alone, and are written with the run."""

import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lungdet.data.serving.serving import Serving
from lungdet.findings import FINDINGS
from lungdet.training import shortcuts

SIZE = 600


def data_of(task: str = "abnormal", **columns) -> SimpleNamespace:
    """Data whose labels depend on nothing, with these columns laid over; a third of the images in each part."""
    rng = np.random.default_rng(0)
    manifest = pd.DataFrame(
        {
            "image_id": [f"a/{i:04d}" for i in range(SIZE)],
            "dataset": "a",
            "patient_id": [f"a/{i // 2}" for i in range(SIZE)],
            "visit": np.arange(SIZE) % 2,
            "age": rng.normal(50, 10, SIZE),
            "sex": rng.choice(["F", "M"], SIZE),
            "view": rng.choice(["PA", "AP", "L"], SIZE),
            **{label: rng.integers(0, 2, SIZE).astype("float32") for label in ("abnormal", *FINDINGS)},
        }
    ).assign(**columns)
    for column in ("dataset", "sex", "view"):
        manifest[column] = manifest[column].astype("str")
    images = rng.integers(90, 110, (SIZE, 40, 40)).astype(np.uint8)
    part = np.repeat(["train", "val", "test"], SIZE // 3)
    return SimpleNamespace(
        manifest=manifest,
        store=SimpleNamespace(images=images),
        rows=lambda name: np.flatnonzero(part == name),
        serving=Serving(task=task),
    )


def areas(data: SimpleNamespace, part: str = "test", label: str = "abnormal") -> dict[str, float]:
    table = shortcuts.predict(data)[part]
    labels = data.manifest.set_index("image_id")[label]
    return {
        name: roc_auc_score(labels[rows["image_id"]], rows[f"logit_{label}"])
        for name, rows in table.groupby("shortcut")
    }


@pytest.mark.parametrize("name", ["dataset", "view", "age", "sex", "visit"])
def test_what_gives_the_label_away_is_found_by_its_own_shortcut_and_by_all_together(name):
    data = data_of()
    y = data.manifest["abnormal"].to_numpy()
    given = {
        "dataset": np.where(y, "b", "a"),
        "view": np.where(y, "AP", "PA"),
        "age": 40 + 20 * y,
        "sex": np.where(y, "M", "F"),
        "visit": y.astype(int),
    }
    aurocs = areas(data_of(**{name: given[name]}))
    assert aurocs[name] == aurocs["all"] == 1
    others = [area for other, area in aurocs.items() if other not in (name, "all")]
    assert max(others) < 0.62


def test_the_number_of_a_patients_images_gives_the_label_away():
    patient = np.concatenate([np.arange(200) // (1 + 3 * (np.arange(200) < 100)) + 1000 * part for part in range(3)])
    label = np.tile(np.arange(200) < 100, 3).astype(np.float32)
    assert areas(data_of(patient_id=patient.astype(str), abnormal=label))["visits"] == 1


def test_a_bright_lung_shows_in_the_thumbnail_and_a_bright_frame_in_the_border():
    data = data_of()
    y = data.manifest["abnormal"].to_numpy() == 1
    data.store.images[y, 15:25, 15:25] += 30
    aurocs = areas(data)
    assert aurocs["thumbnail"] > 0.99
    assert aurocs["border"] < 0.62
    data = data_of()
    data.store.images[y, :, -2:] += 30
    aurocs = areas(data)
    assert aurocs["border"] > 0.99
    assert aurocs["age"] < 0.62


def test_thumbnail_and_border_are_means_of_their_places(monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (5, 80, 80)).astype(np.uint8)
    monkeypatch.setattr(shortcuts, "BLOCK", 2)
    thumbnail, border = shortcuts.pixels(images)
    means = images.reshape(5, 8, 10, 8, 10).mean((2, 4)).reshape(5, 64)
    assert np.abs(thumbnail - means).max() <= 0.51  # whole grey levels
    frame = [images[:, :6], images[:, -6:], images[:, :, :6], images[:, :, -6:]]
    sides = [frame[0].reshape(5, 6, 8, 10).mean((1, 3)), frame[1].reshape(5, 6, 8, 10).mean((1, 3))]
    sides += [frame[2].reshape(5, 8, 10, 6).mean((2, 3)), frame[3].reshape(5, 8, 10, 6).mean((2, 3))]
    assert np.abs(border - np.concatenate(sides, axis=1)).max() <= 0.51


def test_chance_is_chance_and_nothing_is_learnt_from_the_test_part():
    data = data_of()
    before = shortcuts.predict(data)["test"]
    assert 0.4 < min(areas(data).values()) <= max(areas(data).values()) < 0.62
    held_out = ~np.isin(np.arange(SIZE), data.rows("train"))
    data.manifest["abnormal"] = data.manifest["abnormal"].where(~held_out, 1 - data.manifest["abnormal"])
    pd.testing.assert_frame_equal(shortcuts.predict(data)["test"], before)


def test_what_is_the_same_on_all_training_images_is_no_shortcut():
    everywhere = {"view": "PA", "sex": "F", "visit": 0, "patient_id": [f"a/{i}" for i in range(SIZE)]}
    assert set(shortcuts.predict(data_of(**everywhere))["val"]["shortcut"]) == {"age", "thumbnail", "border"}
    data = data_of(**everywhere, age=np.where(np.arange(SIZE) < SIZE // 3, 50.0, 70.0))
    assert set(shortcuts.predict(data)["val"]["shortcut"]) == {"thumbnail", "border"}


def test_missing_values_are_told_apart_and_never_stop_it():
    data = data_of()
    y = data.manifest["abnormal"].to_numpy() == 1
    aurocs = areas(data_of(age=np.where(y, np.nan, 50), view=np.where(y, None, "PA"), sex=np.where(y, None, "F")))
    assert aurocs["age"] == aurocs["view"] == 1
    gone = data_of(age=np.nan, view=None, sex=None)
    assert {"age", "view", "sex"}.isdisjoint(shortcuts.predict(gone)["test"]["shortcut"])


def test_a_source_that_training_never_saw_is_predicted_alike_for_all():
    data = data_of(dataset=np.where(np.arange(SIZE) < 2 * SIZE // 3, np.where(np.arange(SIZE) % 2, "a", "b"), "c"))
    table = shortcuts.predict(data)["test"]
    assert table.loc[table["shortcut"] == "dataset", "logit_abnormal"].nunique() == 1


def test_findings_are_guessed_one_by_one_and_unknown_labels_are_left_out():
    data = data_of(task="findings")
    hernia = data.manifest["hernia"].to_numpy()
    data = data_of(task="findings", age=40 + 20 * hernia, tuberculosis=np.float32("nan"), edema=np.float32(0))
    data.manifest.loc[::3, "hernia"] = np.nan
    table = shortcuts.predict(data)["test"]
    assert [c for c in table if c.startswith("logit_")] == [f"logit_{finding}" for finding in FINDINGS]
    age = table[table["shortcut"] == "age"].set_index("image_id")
    truth = pd.Series(hernia, data.manifest["image_id"])[age.index]
    assert roc_auc_score(truth, age["logit_hernia"]) == 1
    assert (age["logit_tuberculosis"] == 0).all()
    assert (age["logit_edema"] == -shortcuts.ONE_CLASS).all()


def test_the_run_folder_gets_both_tables_and_the_log_names_the_strongest(caplog):
    data = data_of()
    data = data_of(age=40 + 20 * data.manifest["abnormal"])
    written = {}
    run = SimpleNamespace(write_predictions=lambda name, table: written.update({name: table}))
    with caplog.at_level(logging.INFO):
        shortcuts.record(run, data)
    assert set(written) == {"shortcuts_val", "shortcuts_test"}
    assert list(written["shortcuts_test"]) == ["image_id", "shortcut", "logit_abnormal"]
    assert sorted(written["shortcuts_val"].query("shortcut == 'age'")["image_id"]) == sorted(
        data.manifest["image_id"].iloc[data.rows("val")]
    )
    assert "strongest shortcut: age, with a validation AUROC of 1.000" in caplog.text
