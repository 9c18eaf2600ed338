"""Splits keep patients whole and refuse what must not be trained on; a plan draws what it says."""

import numpy as np
import pandas as pd
import pytest

from lungdet.data.dicom.pseudonyms import keyed
from lungdet.data.splitting import narrowing, protocols, splits
from lungdet.data.splitting.plan import PROTOCOLS, Plan
from lungdet.data.splitting.splits import SplitError
from lungdet.errors import InputError
from tests.data.splitting.cohorts import cohort, drawn_by_every_protocol, parts, three_sources, unasked


def test_no_patient_stands_in_two_parts_and_every_image_in_one() -> None:
    table = cohort(300)
    split = protocols.random(table)
    assert (parts(split, table).groupby("patient_id")["split"].nunique() == 1).all()
    assert sorted(split.table["image_id"]) == sorted(table["image_id"])


def test_the_split_does_not_depend_on_what_patients_are_called() -> None:
    table = cohort(60)
    renamed = table.assign(patient_id=table["patient_id"].map(lambda name: keyed(name, b"another key of patients")))
    for plan in (Plan(), Plan(split="folds", fold=2), Plan(train_fraction=0.4, train_prevalence=0.3)):
        assert plan.draw(renamed, unasked, unasked).hash == plan.draw(table, unasked, unasked).hash
    assert [*narrowing.limited(renamed, 20, 0)["image_id"]] == [*narrowing.limited(table, 20, 0)["image_id"]]


def test_a_part_hash_depends_on_that_parts_images_alone() -> None:
    table = cohort(100)
    split = protocols.random(table)
    swapped = split.table.copy()
    swapped["split"] = swapped["split"].replace({"train": "val", "val": "train"})
    other = splits.Split("swapped", None, swapped)
    assert other.part_hash("test") == split.part_hash("test")
    assert other.part_hash("train") != split.part_hash("train")
    assert other.hash != split.hash


def test_a_patient_on_both_official_lists_is_found_by_the_check() -> None:
    table = cohort(60)
    lists = pd.Series(np.where(table["patient_id"] < "clinic/3", "test", "train_val"), index=table["image_id"])
    several = table[table["patient_id"].duplicated(keep=False)]
    torn = several["image_id"].iloc[0]
    lists[torn] = "test" if lists[torn] == "train_val" else "train_val"
    split = protocols.official(table, lists)
    with pytest.raises(SplitError, match=f"1 patients have images in more than one part: {several.patient_id.iloc[0]}"):
        splits.check(split, table)


def test_patients_on_two_sides_are_refused_and_ten_are_named() -> None:
    table = cohort(100, seed=2)
    leaky = protocols.random(
        table.assign(patient_id=table["image_id"])
    )  # an image-level split, as careless studies make
    with pytest.raises(
        SplitError, match=r"\d+ patients have images in more than one part: (clinic/\d+, ){9}clinic/\d+ \.\."
    ) as caught:
        splits.check(leaky, table)
    shared = parts(leaky, table).groupby("patient_id")["split"].nunique()
    assert str(caught.value).startswith(f"split random: {(shared > 1).sum()} patients")


def test_a_part_without_a_class_is_refused() -> None:
    table = cohort(40)
    split = protocols.random(table)
    one_class = table.assign(abnormal=table["abnormal"].where(~table["image_id"].isin(split.images("val")), 0.0))
    with pytest.raises(SplitError, match="the val part holds no abnormal image"):
        splits.check(split, one_class)
    with pytest.raises(SplitError, match=r"train part holds no abnormal image \(.*none of all images is"):
        splits.check(split, table.assign(abnormal=0.0))


def test_an_image_in_no_part_is_refused() -> None:
    table = cohort(40)
    split = protocols.random(table.iloc[1:])
    with pytest.raises(SplitError, match="1 images are in no part, first clinic/0_0"):
        splits.check(split, table)


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.3, 0.3), (1.0, 0.0, 0.0), (0.8, 0.3, -0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(SplitError, match=r"data\.fractions"):
        Plan(fractions=fractions)


@pytest.mark.parametrize(("fold", "of"), [(5, 5), (-1, 5), (0, 1)])
def test_a_fold_out_of_range_is_refused(fold: int, of: int) -> None:
    with pytest.raises(InputError, match=r"data\.fold"):
        Plan(split="folds", fold=fold, folds=of)


def test_a_saved_split_names_each_images_patient_and_images_without_a_label_are_not_counted_as_labelled(
    tmp_path,
) -> None:
    table = cohort(40)
    drawn = protocols.random(table)
    drawn.save(tmp_path / "split.csv", table.sample(frac=1, random_state=0))
    saved = pd.read_csv(tmp_path / "split.csv", dtype=str)
    assert list(saved.columns) == ["image_id", "patient_id", "dataset", "split"]
    assert (saved["patient_id"] == saved["image_id"].str.rsplit("_", n=1).str[0]).all()
    test = table["image_id"].isin(drawn.images("test"))
    table.loc[table.index[test][:3], "abnormal"] = np.nan
    part = drawn.describe(table)["parts"]["test"]
    assert (part["images"], part["labelled"]) == (test.sum(), test.sum() - 3)


def test_a_plan_names_every_protocol_and_draws_what_it_says(tmp_path) -> None:
    table = three_sources()
    lists = protocols.random(table, seed=9).table.set_index("image_id")["split"]
    lists = lists.replace({"train": "train_val", "val": "train_val"})
    drawn = drawn_by_every_protocol(table, tmp_path)
    assert {*drawn} == {*PROTOCOLS}
    for protocol, split in drawn.items():
        own = {"file": {"split_file": tmp_path / "mine.csv"}, "folds": {"fold": 1}}
        own["leave_one_source_out"] = {"held_out": "hospital"}
        plan = Plan(split=protocol, **own.get(protocol, {}))
        planned = plan.draw(table, lambda: lists, unasked)
        assert (planned.facts, planned.hash) == (split.facts, split.hash)
        assert (plan.source_hash(table, lambda: lists, unasked) is None) == (protocol not in ("official", "file"))
    for key, value, needed in (
        ("split_file", "mine.csv", "file"), ("held_out", "ward", "leave_one_source_out"), ("fold", 3, "folds"),
    ):  # fmt: skip
        message = f"data.{key}={value}: data.split=random takes none; set data.split={needed}"
        with pytest.raises(SplitError, match=message):
            Plan(**{key: value})
    with pytest.raises(SplitError, match="three positive numbers"):
        Plan(fractions=(float("nan"), 0.5, 0.5))
    seeded = Plan(split_seed=5).draw(table, unasked, unasked)
    assert seeded.hash == protocols.random(table, seed=5).hash != drawn["random"].hash
    whole = Plan(train_fraction=0.5, train_on=("ward", "clinic"), train_prevalence=0.3).draw(table, unasked, unasked)
    assert whole.facts == drawn["random"].facts | {
        "name": "random, 0.5 of train, trained on clinic+ward, 0.3 abnormal in train",
        "train_fraction": 0.5, "train_on": ("clinic", "ward"), "train_prevalence": 0.3,
    }  # fmt: skip


def test_the_facts_of_a_split_are_the_same_whatever_datasets_are_called() -> None:
    odd = "x, 0.5 of train"
    table = pd.concat([cohort(120), cohort(60, "fold 1 of 3", 1), cohort(90, odd, 2)])
    held_out = protocols.leave_one_source_out(table, odd)
    assert held_out.held_out == odd
    assert held_out.train_fraction == 1
    split = narrowing.trained_on(protocols.random(table), table, [odd, "fold 1 of 3"])
    facts = split.describe(table)
    assert {key: facts[key] for key in ("protocol", "seed", "train_on", "train_fraction")} == {
        "protocol": "random", "seed": 0, "train_on": ("fold 1 of 3", odd), "train_fraction": 1.0,
    }  # fmt: skip
    assert [facts[key] for key in ("fold", "of", "held_out", "file", "train_prevalence")] == [None] * 5


def test_a_patient_some_of_whose_images_are_unused_is_no_leak_and_one_in_two_parts_still_is() -> None:
    table = pd.DataFrame(
        {"patient_id": list("aabbccdd"), "image_id": list("stuvwxyz"), "dataset": "d", "abnormal": [0.0, 1] * 4}
    )
    parts_ = ["train", "train", "val", "val", "test", "test", "unused", "train"]
    split = splits.Split("mine", None, pd.DataFrame({"image_id": table["image_id"], "split": parts_}))
    splits.check(split, table)
    torn = split.table.assign(split=[*parts_[:6], "test", "train"])
    with pytest.raises(SplitError, match="1 patients have images in more than one part: d"):
        splits.check(splits.Split("mine", None, torn), table)
