"""Splits keep patients whole, strata in proportion, and refuse what must not be trained on."""

import numpy as np
import pandas as pd
import pytest

from lungdet.data import splits
from lungdet.data.splits import SplitError


def cohort(patients: int, dataset: str = "clinic", seed: int = 0, abnormal: float = 0.4) -> pd.DataFrame:
    """Patients with 1 to 6 images each; a patient's label may change from image to image."""
    generator = np.random.default_rng(seed)
    rows = [
        {"patient_id": f"{dataset}/{p}", "image_id": f"{dataset}/{p}_{i}", "dataset": dataset, "abnormal": float(label)}
        for p in range(patients)
        for i, label in enumerate(generator.random(generator.integers(1, 7)) < abnormal)
    ]
    return pd.DataFrame(rows)


def parts(split: splits.Split, table: pd.DataFrame) -> pd.DataFrame:
    return table.merge(split.table, on="image_id")


def test_no_patient_stands_in_two_parts_and_every_image_in_one() -> None:
    table = cohort(300)
    split = splits.random(table)
    assert (parts(split, table).groupby("patient_id")["split"].nunique() == 1).all()
    assert sorted(split.table["image_id"]) == sorted(table["image_id"])


def test_shares_of_patients_are_70_15_15_within_each_dataset_and_label() -> None:
    table = pd.concat([cohort(400), cohort(200, "hospital", 1)])
    table = parts(splits.random(table), table)
    table["patient_label"] = table.groupby("patient_id")["abnormal"].transform("max")
    for _, stratum in table.groupby(["dataset", "patient_label"]):
        shares = stratum.drop_duplicates("patient_id")["split"].value_counts(normalize=True)
        size = stratum["patient_id"].nunique()
        assert abs(shares["train"] - 0.7) <= 1 / size
        assert abs(shares["val"] - 0.15) <= 1 / size
        assert abs(shares["test"] - 0.15) <= 1 / size


def test_same_seed_same_split_whatever_the_rows_order_and_another_seed_another() -> None:
    table = cohort(100)
    first, again = splits.random(table, seed=3), splits.random(table.sample(frac=1, random_state=1), seed=3)
    assert first.hash == again.hash
    assert first.hash != splits.random(table, seed=4).hash


def test_a_part_hash_depends_on_that_parts_images_alone() -> None:
    table = cohort(100)
    split = splits.random(table)
    swapped = split.table.copy()
    swapped["split"] = swapped["split"].replace({"train": "val", "val": "train"})
    other = splits.Split("swapped", None, swapped)
    assert other.part_hash("test") == split.part_hash("test")
    assert other.part_hash("train") != split.part_hash("train")
    assert other.hash != split.hash


def test_a_stratum_of_two_patients_joins_its_label() -> None:
    table = pd.concat([cohort(100), cohort(2, "tiny", abnormal=1.0)])
    split = splits.random(table)
    assert sorted(split.table["image_id"]) == sorted(table["image_id"])
    splits.check(split, table)


def test_three_patients_of_a_stratum_stand_in_three_parts() -> None:
    table = pd.DataFrame(
        {"patient_id": list("abcdef"), "image_id": list("uvwxyz"), "dataset": "d", "abnormal": [0.0, 0, 0, 1, 1, 1]}
    )
    split = splits.random(table)
    assert split.table["split"].value_counts().to_dict() == {"train": 2, "val": 2, "test": 2}
    splits.check(split, table)


def test_the_official_test_list_is_kept_and_validation_is_cut_by_patient() -> None:
    table = cohort(300)
    held_out = table["patient_id"].isin([f"clinic/{p}" for p in range(60)])
    lists = pd.Series(np.where(held_out, "test", "train_val"), index=table["image_id"])
    split = splits.official(table, pd.concat([lists, pd.Series({"clinic/absent": "test"})]))
    assert set(split.images("test")) == set(table.loc[held_out, "image_id"])
    splits.check(split, table)
    train, val = (parts(split, table).query("split == @p")["patient_id"].nunique() for p in ("train", "val"))
    assert val / (train + val) == pytest.approx(0.15 / 0.85, abs=0.01)


def test_an_image_on_no_official_list_is_refused() -> None:
    table = cohort(10)
    with pytest.raises(SplitError, match=r"1 images are on no official list, the first clinic/0_0"):
        splits.official(table, pd.Series("test", index=table["image_id"][1:]))


def test_patients_on_two_sides_are_refused_and_ten_are_named() -> None:
    table = cohort(100, seed=2)
    leaky = splits.random(table.assign(patient_id=table["image_id"]))  # an image-level split, as careless studies make
    with pytest.raises(
        SplitError, match=r"\d+ patients have images in more than one part: (clinic/\d+, ){9}clinic/\d+ \.\."
    ) as caught:
        splits.check(leaky, table)
    shared = parts(leaky, table).groupby("patient_id")["split"].nunique()
    assert str(caught.value).startswith(f"split random: {(shared > 1).sum()} patients")


def test_a_part_without_a_class_is_refused() -> None:
    table = cohort(40)
    split = splits.random(table)
    one_class = table.assign(abnormal=table["abnormal"].where(~table["image_id"].isin(split.images("val")), 0.0))
    with pytest.raises(SplitError, match="the val part holds no abnormal image"):
        splits.check(split, one_class)


def test_an_image_in_no_part_is_refused() -> None:
    table = cohort(40)
    split = splits.random(table.iloc[1:])
    with pytest.raises(SplitError, match="1 images are in no part, first clinic/0_0"):
        splits.check(split, table)


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.3, 0.3), (1.0, 0.0, 0.0), (0.8, 0.3, -0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(SplitError, match="data.fractions"):
        splits.random(cohort(20), fractions)
