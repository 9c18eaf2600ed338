"""Splits keep patients whole, strata in proportion, and refuse what must not be trained on."""

import itertools

import numpy as np
import pandas as pd
import pytest

from lungdet.data.dicom.pseudonyms import keyed
from lungdet.data.splitting import narrowing, protocols, splits
from lungdet.data.splitting.plan import PROTOCOLS, Plan
from lungdet.data.splitting.splits import SplitError
from lungdet.errors import InputError


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
    split = protocols.random(table)
    assert (parts(split, table).groupby("patient_id")["split"].nunique() == 1).all()
    assert sorted(split.table["image_id"]) == sorted(table["image_id"])


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


def test_a_patient_on_both_official_lists_is_found_by_the_check() -> None:
    table = cohort(60)
    lists = pd.Series(np.where(table["patient_id"] < "clinic/3", "test", "train_val"), index=table["image_id"])
    several = table[table["patient_id"].duplicated(keep=False)]
    torn = several["image_id"].iloc[0]
    lists[torn] = "test" if lists[torn] == "train_val" else "train_val"
    split = protocols.official(table, lists)
    with pytest.raises(SplitError, match=f"1 patients have images in more than one part: {several.patient_id.iloc[0]}"):
        splits.check(split, table)


def test_an_image_on_no_official_list_is_refused() -> None:
    table = cohort(10)
    with pytest.raises(SplitError, match=r"1 images are on no official list, the first clinic/0_0"):
        protocols.official(table, pd.Series("test", index=table["image_id"][1:]))


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


def test_an_image_in_no_part_is_refused() -> None:
    table = cohort(40)
    split = protocols.random(table.iloc[1:])
    with pytest.raises(SplitError, match="1 images are in no part, first clinic/0_0"):
        splits.check(split, table)


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.3, 0.3), (1.0, 0.0, 0.0), (0.8, 0.3, -0.1)])
def test_fractions_that_are_no_shares_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(SplitError, match=r"data\.fractions"):
        Plan(fractions=fractions)


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


@pytest.mark.parametrize(("fold", "of"), [(5, 5), (-1, 5), (0, 1)])
def test_a_fold_out_of_range_is_refused(fold: int, of: int) -> None:
    with pytest.raises(InputError, match=r"data\.fold"):
        Plan(split="folds", fold=fold, folds=of)


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,split\nclinic/0_0,train\n", "image_id missing; found are image, split"),
        ("image_id,split\nclinic/0_0,training\n", "line 2: 'training' is none of train, val, test"),
        ("image_id,split\nelse/0_0,train\n", "none of its 1 images is at hand; ids look like clinic/0_0"),
        ("\nimage_id,split\n\nclinic/0_0,training\n", "line 4: 'training' is none of train, val, test"),
        ("sep=;\nimage_id;split\nclinic/0_0;training\n", "line 3: 'training' is none of train, val, test"),
        (
            "image_id;split\nclinic/0_0;train;9;8\n",
            r"data\.split_file=.*more cells than the header; a cell with ';' needs quotes",
        ),
        ("", r"data\.split_file=.*no table in UTF-8 with a header, separated by ',' \("),
    ],
)
def test_a_split_file_that_cannot_be_used_is_refused(tmp_path, text: str, message: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(SplitError, match=message):
        protocols.from_file(cohort(20), tmp_path / "split.csv")
    with pytest.raises(SplitError, match="no such file"):
        protocols.from_file(cohort(20), tmp_path / "absent.csv")


def test_training_fractions_are_nested_and_leave_validation_and_test_alone() -> None:
    table = cohort(400)
    whole = protocols.random(table)
    halves = {f: narrowing.with_train_fraction(whole, table, f) for f in (0.1, 0.2, 0.5, 1.0)}
    assert halves[1.0].hash == whole.hash
    train = {f: set(split.images("train")) for f, split in halves.items()}
    assert train[0.1] < train[0.2] < train[0.5] < train[1.0]
    for fraction, split in halves.items():
        splits.check(split, table)
        assert (split.part_hash("val"), split.part_hash("test")) == (whole.part_hash("val"), whole.part_hash("test"))
        patients = table[table["image_id"].isin(train[fraction])].groupby("patient_id")["abnormal"].max()
        everyone = table[table["image_id"].isin(train[1.0])].groupby("patient_id")["abnormal"].max()
        assert len(patients) == pytest.approx(fraction * len(everyone), abs=2)
        assert patients.mean() == pytest.approx(everyone.mean(), abs=0.05)


def test_a_fraction_that_leaves_no_abnormal_image_is_refused() -> None:
    table = cohort(40, abnormal=0.02, seed=5)
    whole = protocols.random(table)
    splits.check(whole, table)
    tiny = narrowing.with_train_fraction(whole, table, 0.05)
    with pytest.raises(SplitError, match="the train part holds no abnormal image"):
        splits.check(tiny, table)
    with pytest.raises(SplitError, match=r"data\.train_fraction=0"):
        Plan(train_fraction=0)


def unasked() -> pd.DataFrame:
    raise AssertionError("nobody asked for a split that the data come with")


def drawn_by_every_protocol(table: pd.DataFrame, tmp_path) -> dict[str, splits.Split]:
    protocols.random(table).save(tmp_path / "mine.csv", table)
    lists = protocols.random(table, seed=9).table.set_index("image_id")["split"]
    return {
        "random": protocols.random(table),
        "official": protocols.official(table, lists.replace({"train": "train_val", "val": "train_val"})),
        "folds": protocols.folds(table, 1),
        "leave_one_source_out": protocols.leave_one_source_out(table, "hospital"),
        "file": protocols.from_file(table, tmp_path / "mine.csv"),
    }


def test_a_plan_names_every_protocol_and_draws_what_it_says(tmp_path) -> None:
    table = three_sources()
    lists = protocols.random(table, seed=9).table.set_index("image_id")["split"]
    lists = lists.replace({"train": "train_val", "val": "train_val"})
    drawn = drawn_by_every_protocol(table, tmp_path)
    assert {*drawn} == {*PROTOCOLS}
    for protocol, split in drawn.items():
        file = tmp_path / "mine.csv" if protocol == "file" else None
        plan = Plan(split=protocol, fold=1, held_out="hospital", split_file=file)
        planned = plan.draw(table, lambda: lists, unasked)
        assert (planned.facts, planned.hash) == (split.facts, split.hash)
        assert (plan.source_hash(table, lambda: lists, unasked) is None) == (protocol not in ("official", "file"))
    with pytest.raises(SplitError, match=r"data\.split_file=mine\.csv: data\.split=random reads none"):
        Plan(split_file="mine.csv")
    seeded = Plan(split_seed=5).draw(table, unasked, unasked)
    assert seeded.hash == protocols.random(table, seed=5).hash != drawn["random"].hash
    whole = Plan(train_fraction=0.5, train_on=("ward", "clinic"), train_prevalence=0.3).draw(table, unasked, unasked)
    assert whole.facts == drawn["random"].facts | {
        "name": "random, 0.5 of train, trained on clinic+ward, 0.3 abnormal in train",
        "train_fraction": 0.5, "train_on": ("clinic", "ward"), "train_prevalence": 0.3,
    }  # fmt: skip


def three_sources() -> pd.DataFrame:
    return pd.concat([cohort(120), cohort(60, "hospital", 1), cohort(90, "ward", 2)])


def test_what_is_trained_on_is_restricted_under_every_protocol_and_what_is_tested_is_not(tmp_path) -> None:
    table = three_sources()
    for protocol, whole in drawn_by_every_protocol(table, tmp_path).items():
        split = narrowing.trained_on(whole, table, ["ward"])
        splits.check(split, table)
        assert split.name == f"{whole.name}, trained on ward"
        assert split.part_hash("test") == whole.part_hash("test"), protocol
        for part in ("train", "val"):
            assert set(split.images(part)) == {name for name in whole.images(part) if name.startswith("ward/")}
        left_out = set(table["image_id"]) - {name for part in splits.PARTS for name in split.images(part)}
        assert set(split.images(splits.UNUSED)) == left_out


def test_several_sources_to_train_on_are_named_in_one_order() -> None:
    table = three_sources()
    whole = protocols.random(table)
    one, two = (narrowing.trained_on(whole, table, names) for names in (["ward", "clinic"], ["clinic", "ward"]))
    assert one.name == two.name == "random, trained on clinic+ward"
    assert one.hash == two.hash


@pytest.mark.parametrize("names", [["elsewhere"], ["clinic", "elsewhere"], []])
def test_a_source_to_train_on_that_is_not_there_is_refused(names: list[str]) -> None:
    table = three_sources()
    with pytest.raises(SplitError, match=r"data\.train_on=.*training images of clinic, hospital, ward"):
        narrowing.trained_on(protocols.random(table), table, names)
    with pytest.raises(SplitError, match=r"data\.train_on=\['ward'\]: there are training images of clinic, hospital;"):
        narrowing.trained_on(protocols.leave_one_source_out(table, "ward"), table, ["ward"])


def test_the_share_of_abnormal_training_images_is_as_asked_and_their_number_does_not_depend_on_it() -> None:
    table = cohort(400)
    table.loc[table.sample(frac=0.1, random_state=0).index, "abnormal"] = np.nan
    whole = protocols.random(table)
    labels = table.set_index("image_id")["abnormal"]
    shares = (0.05, 0.1, 0.25, 0.5, 0.75, 0.95)
    narrowed = {share: narrowing.with_train_prevalence(whole, table, share) for share in shares}
    rarer = labels[whole.images("train")].value_counts().min()
    for share, split in narrowed.items():
        splits.check(split, table)
        assert split.name == f"random, {share:g} abnormal in train"
        train = labels[split.images("train")]
        assert len(train) == train.count() == rarer
        assert train.sum() == round(share * rarer)
        assert set(split.images("train")) <= set(whole.images("train"))
        assert (split.part_hash("val"), split.part_hash("test")) == (whole.part_hash("val"), whole.part_hash("test"))
    for smaller, larger in itertools.pairwise(shares):
        fewer, more = (labels[narrowed[share].images("train")] for share in (smaller, larger))
        assert set(fewer.index[fewer == 1]) < set(more.index[more == 1])
        assert set(more.index[more == 0]) < set(fewer.index[fewer == 0])


def test_the_training_images_of_a_prevalence_do_not_depend_on_the_rows_order_but_on_the_splits_seed() -> None:
    table = cohort(200)
    shuffled = table.sample(frac=1, random_state=1)
    of = {seed: narrowing.with_train_prevalence(protocols.random(table, seed=seed), table, 0.2).hash for seed in (0, 1)}
    assert narrowing.with_train_prevalence(protocols.random(shuffled), shuffled, 0.2).hash == of[0]
    whole = protocols.random(table)
    reseeded = splits.Split(whole.name, 1, whole.table)
    assert narrowing.with_train_prevalence(reseeded, table, 0.2).part_hash("train") != of[0]


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, 0.001])
def test_a_prevalence_that_cannot_be_had_is_refused(share: float) -> None:
    table = cohort(60)
    with pytest.raises(SplitError, match=rf"data\.train_prevalence={share}: "):
        Plan(train_prevalence=share).draw(table, unasked, unasked)


def test_what_was_left_out_is_told_in_one_order_and_adds_up() -> None:
    table = three_sources()
    split = narrowing.with_train_fraction(protocols.folds(table, 0), table, 0.5)
    split = narrowing.trained_on(split, table, ["clinic", "ward"])
    split = narrowing.with_train_prevalence(split, table, 0.1)
    splits.check(split, table)
    assert split.name == "fold 0 of 5, 0.5 of train, trained on clinic+ward, 0.1 abnormal in train"
    assert split.part_hash("test") == protocols.folds(table, 0).part_hash("test")


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
