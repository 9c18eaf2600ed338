"""Each protocol draws what it says: strata in proportion, published lists as they are, folds, a source held out."""

import numpy as np
import pandas as pd
import pytest

from lungdet.data.splitting import protocols, splits
from lungdet.data.splitting.splits import SplitError
from tests.data.splitting.cohorts import cohort, parts


def test_shares_of_patients_are_70_15_15_within_each_dataset_and_label() -> None:
    table = pd.concat([cohort(400), cohort(200, "hospital", 1)])
    table = parts(protocols.random(table), table)
    table["patient_label"] = table.groupby("patient_id")["abnormal"].transform("max")
    for _, stratum in table.groupby(["dataset", "patient_label"]):
        shares = stratum.drop_duplicates("patient_id")["split"].value_counts(normalize=True)
        size = stratum["patient_id"].nunique()
        assert abs(shares["train"] - 0.7) <= 1 / size
        assert abs(shares["val"] - 0.15) <= 1 / size
        assert abs(shares["test"] - 0.15) <= 1 / size


def test_same_seed_same_split_whatever_the_rows_order_and_another_seed_another() -> None:
    table = cohort(100)
    first, again = protocols.random(table, seed=3), protocols.random(table.sample(frac=1, random_state=1), seed=3)
    assert first.hash == again.hash
    assert first.hash != protocols.random(table, seed=4).hash


def test_a_stratum_of_two_patients_joins_its_label() -> None:
    table = pd.concat([cohort(100), cohort(2, "tiny", abnormal=1.0)])
    split = protocols.random(table)
    assert sorted(split.table["image_id"]) == sorted(table["image_id"])
    splits.check(split, table)


def test_three_patients_of_a_stratum_stand_in_three_parts() -> None:
    table = pd.DataFrame(
        {"patient_id": list("abcdef"), "image_id": list("uvwxyz"), "dataset": "d", "abnormal": [0.0, 0, 0, 1, 1, 1]}
    )
    split = protocols.random(table)
    assert split.table["split"].value_counts().to_dict() == {"train": 2, "val": 2, "test": 2}
    splits.check(split, table)


def test_the_official_test_list_is_kept_and_validation_is_cut_by_patient() -> None:
    table = cohort(300)
    held_out = table["patient_id"].isin([f"clinic/{p}" for p in range(60)])
    lists = pd.Series(np.where(held_out, "test", "train_val"), index=table["image_id"])
    split = protocols.official(table, pd.concat([lists, pd.Series({"clinic/absent": "test"})]))
    assert set(split.images("test")) == set(table.loc[held_out, "image_id"])
    splits.check(split, table)
    train, val = (parts(split, table).query("split == @p")["patient_id"].nunique() for p in ("train", "val"))
    assert val / (train + val) == pytest.approx(0.15 / 0.85, abs=0.01)


def test_an_image_on_no_official_list_is_refused() -> None:
    table = cohort(10)
    with pytest.raises(SplitError, match=r"1 images are on no official list, the first clinic/0_0"):
        protocols.official(table, pd.Series("test", index=table["image_id"][1:]))


def test_over_all_folds_each_patient_is_tested_once() -> None:
    table = cohort(103)
    tested = [set(protocols.folds(table, fold, 5).images("test")) for fold in range(5)]
    assert sorted(image for part in tested for image in part) == sorted(table["image_id"])
    for fold in range(5):
        split = protocols.folds(table, fold, 5)
        splits.check(split, table)
        assert split.name == f"fold {fold} of 5"


def test_folds_are_stratified() -> None:
    table = pd.concat([cohort(200), cohort(100, "hospital", 1)])
    for fold in range(5):
        test = parts(protocols.folds(table, fold, 5), table).query("split == 'test'")
        assert test.groupby("dataset")["patient_id"].nunique().tolist() == pytest.approx([40, 20], abs=2)


def test_the_held_out_source_is_tested_whole_and_never_trained_on() -> None:
    table = pd.concat([cohort(60), cohort(30, "hospital", 1)])
    split = protocols.leave_one_source_out(table, "hospital")
    splits.check(split, table)
    assert set(split.images("test")) == set(table.loc[table["dataset"] == "hospital", "image_id"])


@pytest.mark.parametrize("name", ["elsewhere", None])
def test_a_held_out_source_that_is_not_there_is_refused(name: str | None) -> None:
    with pytest.raises(SplitError, match=rf"data\.held_out={name}: not among the sources at hand, clinic"):
        protocols.leave_one_source_out(cohort(20), name)
    with pytest.raises(SplitError, match="only source at hand"):
        protocols.leave_one_source_out(cohort(20), "clinic")


def test_a_users_split_file_is_read_and_unknown_images_are_counted(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    table = cohort(40)
    drawn = protocols.random(table)
    drawn.save(tmp_path / "mine.csv", table)
    assert protocols.from_file(table, tmp_path / "mine.csv").hash == drawn.hash
    extra = pd.concat([drawn.table, pd.DataFrame({"image_id": ["x/1", "x/2"], "split": "train"})])
    extra.to_csv(tmp_path / "more.csv", index=False)
    assert protocols.from_file(table, tmp_path / "more.csv").hash == drawn.hash
    assert "2 of" in caplog.text
    assert "x/1, x/2" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,split\nclinic/0_0,train\n", "image_id missing; found are image, split"),
        (
            "image_id,split\nclinic/0_0,training\n",
            "line 2, column split: 'training'; one of train, val, test, unused is needed",
        ),
        ("image_id,split\nelse/0_0,train\n", "none of its 1 images is at hand, of which the first is clinic/0_0"),
        (
            "\nimage_id,split\n\nclinic/0_0,training\n",
            "line 4, column split: 'training'; one of train, val, test, unused is needed",
        ),
        (
            "sep=;\nimage_id;split\nclinic/0_0;training\n",
            "line 3, column split: 'training'; one of train, val, test, unused is needed",
        ),
        (
            "image_id;split\nclinic/0_0;train;9;8\n",
            r"data\.split_file=.*Expected 2 fields in line 2, saw 4; a cell with ';' needs quotes",
        ),
        ("", r"data\.split_file=.*no table with a header, separated by ',' \("),
    ],
)
def test_a_split_file_that_cannot_be_used_is_refused(tmp_path, text: str, message: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(SplitError, match=message):
        protocols.from_file(cohort(20), tmp_path / "split.csv")
    with pytest.raises(SplitError, match="no such file"):
        protocols.from_file(cohort(20), tmp_path / "absent.csv")
