"""Order and augmentation depend on seed, epoch and image alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lungdet.data.augment import Augmentation
from lungdet.data.serving.batches import Batches
from lungdet.data.serving.loading import Draws, InOrder, Radiographs
from lungdet.data.serving.series import Series

# Twenty images of eight patients; patient 2 came most often, and not in the table's order.
PATIENT = [0, 0, 1, 2, 2, 2, 2, 2, 3, 4, 4, 4, 5, 6, 7, 7, 7, 7, 2, 1]
VISIT = [0, 1, 0, 5, 1, 2, 9, 4, 0, 0, 1, 2, 0, 0, 3, 2, 1, 0, 3, 1]
MANIFEST = pd.DataFrame(
    {
        "image_id": [f"d/{i}" for i in range(20)],
        "patient_id": [f"d/{patient}" for patient in PATIENT],
        "visit": VISIT,
        "age": 50.0,
        "abnormal": np.arange(20) % 2,
    }
)
STRONG = {"rotation": 30, "flip": 0.5, "zoom": 0.3, "shift": 0.2}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32), np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    return tmp_path / "images.npy"


def dataset(images: Path, augmentation: Augmentation | None, seed: int = 0) -> Radiographs:
    return Radiographs(images, MANIFEST, ["abnormal"], augmentation=augmentation, seed=seed)


def epoch_of(
    images: Path, *, epoch: int, workers: int = 0, seed: int = 0, world_size: int = 1
) -> dict[int, torch.Tensor]:
    """Each row's augmented image in one epoch."""
    images_of = {}
    for rank in range(world_size):
        order = InOrder(np.arange(20), 4, shuffle=True, seed=seed, rank=rank, world_size=world_size)
        order.set_epoch(epoch)
        for batch in Batches(dataset(images, Augmentation(**STRONG), seed), order, workers):
            images_of |= dict(zip(batch["row"].tolist(), batch["image"].clone(), strict=True))
    return images_of


def fetched(data: Radiographs, *rows: int, occurrence: list[int] | int = 0) -> dict[str, torch.Tensor]:
    """A batch of these rows, finished."""
    order = [Draws(np.array(rows), 0, np.array(occurrence))]
    return next(iter(Batches(data, order)))


def each(order: InOrder) -> list[tuple[int, int, int]]:
    """Row, epoch and occurrence of every image, batch after batch."""
    return [
        (row, draws.epoch, which)
        for draws in order
        for row, which in zip(draws.row.tolist(), draws.occurrence.tolist(), strict=True)
    ]


def same(a: dict[int, torch.Tensor], b: dict[int, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[row], b[row]) for row in a)


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_do_not_change_what_augmentation_does(images: Path, workers: int) -> None:
    assert same(epoch_of(images, epoch=0), epoch_of(images, epoch=0, workers=workers))


def test_ranks_do_not_change_what_augmentation_does(images: Path) -> None:
    assert same(epoch_of(images, epoch=2), epoch_of(images, epoch=2, world_size=2))


def test_augmentation_differs_from_epoch_to_epoch_and_is_repeated_by_the_same_seed(images: Path) -> None:
    first = epoch_of(images, epoch=0)
    assert same(first, epoch_of(images, epoch=0))
    other_epoch, other_seed = epoch_of(images, epoch=1), epoch_of(images, epoch=0, seed=1)
    assert not any(torch.equal(first[row], other_epoch[row]) for row in first)
    assert not any(torch.equal(first[row], other_seed[row]) for row in first)


def test_augmentation_differs_from_image_to_image_and_between_appearances(tmp_path: Path) -> None:
    np.save(tmp_path / "same.npy", np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32), np.uint8), 20, 0))
    data = dataset(tmp_path / "same.npy", Augmentation(**STRONG))
    batch = fetched(data, *np.repeat(np.arange(10), 2), occurrence=[0, 1] * 10)
    assert len({image.numpy().tobytes() for image in batch["image"]}) == 20


def test_without_augmentation_images_are_the_stores_in_0_to_1(images: Path) -> None:
    batch = fetched(dataset(images, Augmentation()), 5, 3)
    expected = np.load(images)[[5, 3]].astype(np.float32) / 255
    assert batch["image"].shape == (2, 1, 32, 32)
    assert np.array_equal(batch["image"][:, 0].numpy(), expected)
    assert batch["row"].tolist() == [5, 3]
    assert batch["length"].tolist() == [1, 1]
    assert batch["target"].tolist() == [1.0, 1.0]


def test_global_batches_hold_the_same_images_for_any_number_of_ranks() -> None:
    def global_batches(world_size: int, batch_size: int) -> list[set[int]]:
        shares = []
        for rank in range(world_size):
            order = InOrder(np.arange(50), batch_size, shuffle=True, seed=1, rank=rank, world_size=world_size)
            shares.append([draws.row.tolist() for draws in order])
            assert len(order) == len(shares[-1])
            assert max(map(len, shares[-1])) == batch_size
        assert len({len(share) for share in shares}) == 1
        return [set().union(*batch) for batch in zip(*shares, strict=True)]

    alone, pair, quartet = global_batches(1, 8), global_batches(2, 4), global_batches(4, 2)
    assert alone[:6] == pair[:6] == quartet[:6]
    assert set().union(*quartet) == set(range(50))


@pytest.mark.parametrize(("ranks", "sizes"), [(1, [8, 8, 2]), (2, [8, 2])])
def test_no_rank_trains_on_a_single_image_and_none_is_left_out(ranks: int, sizes: list[int]) -> None:
    shares = [
        list(InOrder(np.arange(17), 8, shuffle=True, seed=1, rank=rank, world_size=ranks)) for rank in range(ranks)
    ]
    assert all([len(draws.row) for draws in share] == sizes for share in shares)
    assert {row for share in shares for draws in share for row in draws.row.tolist()} == set(range(17))
    assert [len(draws.row) for draws in InOrder(np.arange(17), 8, shuffle=False)] == [8, 8, 1]


def test_a_row_that_comes_twice_in_an_epoch_is_another_appearance() -> None:
    orders = [InOrder(np.arange(4), 2, shuffle=False, rank=rank, world_size=3) for rank in range(3)]
    drawn = [draw for order in orders for draw in each(order)]
    assert sorted(row for row, *_ in drawn) == [0, 0, 1, 1, 2, 3]
    assert len(set(drawn)) == 6


def test_a_pickled_dataset_does_not_carry_the_store(images: Path) -> None:
    import pickle

    data = dataset(images, None)
    data[Draws(np.array([0]))]
    assert len(pickle.dumps(data)) < 3000


def test_balanced_order_draws_each_stratum_alike_and_spreads_its_images_evenly() -> None:
    strata = np.repeat([0, 1, 2], [70, 20, 10])
    order = InOrder(np.arange(100), 10, shuffle=True, strata=strata)
    drawn = each(order)
    rows = np.array([row for row, *_ in drawn])
    assert len(rows) == 100
    assert sorted(np.bincount(strata[rows])) == [33, 33, 34]
    times = np.bincount(rows, minlength=100)
    assert set(times[:70]) == {0, 1}
    assert set(times[70:90]) <= {1, 2}
    assert set(times[90:]) <= {3, 4}
    assert len(set(drawn)) == 100
    order.set_epoch(1)
    assert [row for row, *_ in each(order)] != rows.tolist()


def test_a_series_ends_with_its_case_and_holds_the_patients_earlier_images_in_the_order_of_visits() -> None:
    series = Series(MANIFEST, 3)
    for row in range(20):
        same = [other for other in range(20) if PATIENT[other] == PATIENT[row] and VISIT[other] <= VISIT[row]]
        expected = sorted(same, key=lambda other: VISIT[other])[-3:]
        assert series.of(np.array([row])).tolist() == expected
        assert series.length(np.array([row])) == len(expected)
        assert series.earlier[row] == len(same) - 1
    rows = np.array([6, 0, 17, 4])
    one_by_one = np.concatenate([series.of(rows[i : i + 1]) for i in range(4)])
    assert series.of(rows).tolist() == one_by_one.tolist()
    assert Series(MANIFEST, 1).of(rows).tolist() == rows.tolist()


def test_a_batch_of_series_holds_real_images_alone_with_age_and_visit_of_each(images: Path) -> None:
    data = Radiographs(images, MANIFEST.assign(age=np.arange(20.0)), ["abnormal"], visits=4)
    batch = fetched(data, 6, 2, 19)  # five visits before, none, one
    read = [18, 7, 3, 6, 2, 2, 19]
    assert batch["length"].tolist() == [4, 1, 2]
    assert torch.equal((batch["image"][:, 0] * 255).round().byte(), torch.from_numpy(np.load(images)[read]))
    assert batch["when"].tolist() == [[float(row), VISIT[row]] for row in read]
    assert batch["row"].tolist() == [6, 2, 19]
    assert batch["target"].tolist() == [0.0, 0.0, 1.0]


def test_no_later_image_is_in_an_earlier_cases_batch(images: Path, tmp_path: Path) -> None:
    pixels = np.load(images)
    pixels[6] = 255 - pixels[6]  # patient 2's last visit
    np.save(tmp_path / "later.npy", pixels)
    before, after = (
        fetched(Radiographs(path, MANIFEST, ["abnormal"], visits=8), 3, 4, 5, 7, 18)["image"]
        for path in (images, tmp_path / "later.npy")
    )
    assert torch.equal(before, after)
    without = MANIFEST.drop(index=6).reset_index(drop=True)  # rows after it move up
    np.save(tmp_path / "fewer.npy", np.delete(np.load(images), 6, axis=0))
    fewer = Radiographs(tmp_path / "fewer.npy", without, ["abnormal"], visits=8)
    assert torch.equal(before, fetched(fewer, 3, 4, 5, 6, 17)["image"])


def test_the_number_of_a_case_is_its_image_ids_alone(images: Path) -> None:
    cases = fetched(Radiographs(images, MANIFEST, ["abnormal"]), 3, 8)["case"]
    backwards = fetched(Radiographs(images, MANIFEST[::-1].reset_index(drop=True), ["abnormal"]), 16, 11)["case"]
    assert torch.equal(cases, backwards)
    assert cases[0] != cases[1]


def test_an_image_is_augmented_alike_in_every_case_of_an_epoch(images: Path) -> None:
    data = Radiographs(images, MANIFEST, ["abnormal"], visits=2, augmentation=Augmentation(**STRONG))
    batch = fetched(data, 0, 1)  # the first visit, and the second with the first
    assert torch.equal(batch["image"][0], batch["image"][1])
