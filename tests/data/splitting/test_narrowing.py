"""What training is narrowed to: a share of the patients, some sources, a prevalence; test parts stay as they are."""

import itertools

import numpy as np
import pytest

from lungdet.data.splitting import narrowing, protocols, splits
from lungdet.data.splitting.plan import Plan
from lungdet.data.splitting.splits import SplitError
from tests.data.splitting.cohorts import cohort, drawn_by_every_protocol, three_sources, unasked


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
