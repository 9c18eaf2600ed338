"""The leak guard finds copies of an image under other names, nothing else, and refuses splits that part them."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.splitting import leaks
from lungdet.data.splitting.splits import Split, SplitError
from lungdet.data.store import copies
from lungdet.data.store.alignment import aligned_correlation, enough_correlation
from lungdet.data.store.images import Settings, read_grey
from lungdet.data.store.store import Store, prepare

SIDE = 224


def structure(rng: np.random.Generator, cells: int, amplitude: float) -> np.ndarray:
    coarse = rng.normal(0, amplitude, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def films(count: int, seed: int = 0) -> np.ndarray:
    """Images of a common coarse shape, each with structure of its own at every scale, and grain."""
    rng = np.random.default_rng(seed)
    chest = structure(np.random.default_rng(99), 5, 24)
    own = [sum(structure(rng, cells, 14) for cells in (6, 12, 24, 40)) for _ in range(count)]
    grain = rng.normal(0, 5, (count, SIDE, SIDE))
    return np.clip(128 + chest + np.array(own) + grain, 0, 255).astype(np.uint8)


def table(patients: list[str], dataset: str = "clinic") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"{dataset}/{i}" for i in range(len(patients))],
            "dataset": dataset,
            "path": [f"{i}.png" for i in range(len(patients))],
            "patient_id": patients,
            "abnormal": [float(i % 2) for i in range(len(patients))],
        }
    )


def each_its_own(count: int) -> pd.DataFrame:
    return table([f"clinic/p{i}" for i in range(count)])


# What happens to images on their way from one collection to another; `image` may have any size.


def recompressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 91))]
    return cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_GRAYSCALE)


def cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top, left, bottom, right = rng.integers(0, 3, 4)
    return image[top : len(image) - bottom, left : image.shape[1] - right]


def brightened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    scaled = image / 255
    changed = (scaled ** rng.uniform(0.7, 1.5), (scaled - 0.5) * rng.uniform(0.7, 1.3) + rng.uniform(0.4, 0.6))
    return np.clip(np.rint(255 * changed[rng.integers(2)]), 0, 255).astype(np.uint8)


def resized(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = int(rng.integers(160, 513))
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def prepared(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def cropped_after_resizing(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cropped(prepared(image), rng)


CHANGES: list[Callable] = [recompressed, cropped, cropped_after_resizing, brightened, resized]


def copies_between_patients(images: np.ndarray, manifest: pd.DataFrame) -> pd.DataFrame:
    return leaks.between_patients(copies.search(images), manifest)


def planted(originals: list[np.ndarray], seed: int) -> np.ndarray:
    """A copy of each, changed in one of the ways; every sixth in all of them."""
    rng = np.random.default_rng(seed)
    images = []
    for i, image in enumerate(originals):
        for change in CHANGES if i % 6 == 5 else [CHANGES[i % 6]]:
            image = change(image, rng)
        images.append(prepared(image))
    return np.array(images)


def test_changed_copies_are_found_and_nothing_else_is() -> None:
    originals = films(90)
    changed = planted(list(originals[:60]), seed=1)
    images = np.concatenate([originals, changed])
    pairs = copies_between_patients(images, each_its_own(len(images)))
    assert list(pairs.columns) == ["image_id_a", "image_id_b", "kind", "correlation"]
    named = set(zip(pairs["image_id_a"], pairs["image_id_b"], strict=True))
    true = {(f"clinic/{i}", f"clinic/{90 + i}") for i in range(60)}
    assert named <= true
    assert len(named) >= 57
    assert pairs["correlation"].between(enough_correlation(SIDE), 1).all()


def test_the_same_pixels_are_identical_and_a_negative_is_near() -> None:
    images = films(6)
    images = np.concatenate([images, images[2:3], 255 - images[4:5]])
    pairs = copies_between_patients(images, each_its_own(8))
    assert pairs[["image_id_a", "image_id_b", "kind"]].to_numpy().tolist() == [
        ["clinic/2", "clinic/6", "identical"],
        ["clinic/4", "clinic/7", "near"],
    ]
    assert pairs["correlation"][0] == 1
    assert pairs["correlation"][1] > 0.9


def test_two_images_of_one_patient_are_no_alarm() -> None:
    images = films(3)
    images = np.concatenate([images, images[:1], planted([images[1]], 0)])
    assert copies_between_patients(images, table(["a", "b", "c", "a", "b"])).empty
    assert len(copies_between_patients(images, table(["a", "b", "c", "d", "e"]))) == 2
    assert len(copies.search(images)) == 2  # `check` reports them


def test_another_exposure_of_the_same_chest_is_no_copy() -> None:
    rng = np.random.default_rng(3)
    chest = sum(structure(rng, cells, 16) for cells in (4, 7, 12, 16))
    first, second = (
        np.clip(128 + chest + sum(structure(rng, c, 4) for c in (28, 40)), 0, 255).astype(np.uint8) for _ in range(2)
    )
    hashes = copies.perceptual_hashes(np.array([first, second]))
    assert len(copies.propose(hashes)[0]) == 1  # alike enough to be compared
    assert 0.3 < aligned_correlation(first, second) < enough_correlation(SIDE)
    assert copies_between_patients(np.array([first, second]), each_its_own(2)).empty


def test_every_one_of_many_copies_is_named_and_linked_without_naming_all_pairs() -> None:
    images = np.concatenate([films(2)[[0] * 30], films(3, seed=5), planted([films(2)[0]] * 6, seed=2)])
    pairs = copies_between_patients(images, each_its_own(len(images)))
    assert len(pairs) == 35
    named = set(pairs["image_id_a"]) | set(pairs["image_id_b"])
    assert named == {f"clinic/{i}" for i in (*range(30), *range(33, 39))}


@pytest.mark.parametrize("side", [8, 64, 300])
def test_any_size_of_square_can_be_searched(side: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, side, side), np.uint8)
    images = np.concatenate(
        [images, images[:1], np.full((2, side, side), 7, np.uint8), np.zeros((1, side, side), "u1")]
    )
    pairs = copies_between_patients(images, each_its_own(len(images)))
    assert pairs["image_id_b"].tolist() == ["clinic/5", "clinic/7"]
    assert copies_between_patients(images[:1], each_its_own(1)).empty


def test_proposals_are_all_pairs_of_few_differing_bits() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((600, 255)) < 0.5
    for i in range(1, 300):
        bits[300 + i] = bits[rng.integers(300)] ^ (rng.random(255) < i / 300)
    hashes = np.packbits(bits, axis=1).view(np.uint64)
    differing = (bits[:, None] != bits[None]).sum(2)
    near = np.minimum(differing, 255 - differing) <= copies.DISTANCE
    a, b, bits_apart = copies.propose(hashes)
    assert {*zip(a.tolist(), b.tolist(), strict=True)} == {(i, j) for i, j in np.argwhere(near).tolist() if i < j}
    assert (bits_apart == differing[a, b]).all()
    assert (np.diff(np.minimum(bits_apart, 255 - bits_apart).astype(int)) >= 0).all()


def test_too_many_lookalikes_are_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(copies, "COMPARED", 7)
    hashes = np.zeros((600, 4), np.uint64)
    hashes[-1] = 2**64 - 2
    a, b, _ = copies.propose(hashes)
    assert len(a) == len(b) == 7
    assert "179,700 pairs of images look alike" in caplog.text


def split(parts: list[str]) -> Split:
    return Split("random", 0, pd.DataFrame({"image_id": [f"clinic/{i}" for i in range(len(parts))], "split": parts}))


def pairs_of(*pairs: tuple[int, int, str, float]) -> pd.DataFrame:
    rows = [(f"clinic/{a}", f"clinic/{b}", kind, correlation) for a, b, kind, correlation in pairs]
    return pd.DataFrame(rows, columns=["image_id_a", "image_id_b", "kind", "correlation"])


def test_a_copy_in_another_part_is_refused_and_named() -> None:
    manifest = each_its_own(4)
    pairs = pairs_of((0, 1, "near", 0.912), (2, 3, "identical", 1.0))
    leaks.refuse_copies(pairs, split(["train", "train", "test", "test"]), manifest)
    with pytest.raises(SplitError) as error:
        leaks.refuse_copies(pairs, split(["train", "test", "val", "train"]), manifest)
    for words in (
        "clinic/0 (train, patient clinic/p0) and clinic/1 (test, patient clinic/p1): correlation 0.91",
        "clinic/2 (val, patient clinic/p2) and clinic/3 (train, patient clinic/p3): identical",
        "the same patient_id",
        "2 times",
    ):
        assert words in str(error.value)


def test_ten_pairs_are_named_of_many() -> None:
    pairs = pairs_of(*[(i, i + 12, "near", 0.9) for i in range(12)])
    with pytest.raises(SplitError, match=r"12 times(?s:.*)\.\. and 2 more") as error:
        leaks.refuse_copies(pairs, split(["train"] * 12 + ["test"] * 12), each_its_own(24))
    assert str(error.value).count("correlation 0.90") == 10


def test_an_image_that_is_used_nowhere_does_no_harm_but_links_its_copies() -> None:
    pairs = pairs_of((0, 1, "near", 0.9), (0, 2, "near", 0.9))
    leaks.refuse_copies(pairs, split(["unused", "train", "train"]), each_its_own(3))
    with pytest.raises(SplitError, match=r"clinic/1 \(train.* and clinic/2 \(test.*in no part"):
        leaks.refuse_copies(pairs, split(["unused", "train", "test"]), each_its_own(3))


def store_of(images: np.ndarray, folder: Path, manifest: pd.DataFrame) -> Store:
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", images)
    images = np.load(folder / "images.npy", mmap_mode="r")
    return Store(images, manifest, pd.DataFrame(), Settings(), {}, {}, "f", folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    images = films(5)
    return store_of(np.concatenate([images, images[:2]]), tmp_path / "store", each_its_own(7))


def test_a_store_is_searched_once_whatever_its_labels(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = leaks.store_copies(store)
    assert len(first) == 2
    monkeypatch.setattr(leaks, "search", lambda _: pytest.fail("searched again"))
    pd.testing.assert_frame_equal(leaks.store_copies(store), first)
    store.manifest.loc[5, "patient_id"] = store.manifest.loc[0, "patient_id"]  # a newer table
    assert leaks.store_copies(store)["image_id_a"].tolist() == ["clinic/1"]
    assert [file.name for file in store.folder.iterdir() if "copies" in file.name] == ["copies-1.parquet"]


def test_another_version_of_the_search_and_a_damaged_file_search_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leaks.store_copies(store)
    kept = store.folder / "copies-1.parquet"
    kept.write_bytes(kept.read_bytes()[:100])
    assert len(leaks.store_copies(store)) == 2
    assert "cannot be read" in caplog.text
    calls = []
    monkeypatch.setattr(leaks, "VERSION", 2)
    monkeypatch.setattr(leaks, "search", lambda images: calls.append(1) or copies.search(images))
    leaks.store_copies(store)
    assert calls == [1]


def test_a_store_that_cannot_be_written_is_searched_each_time(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", read_only)
    monkeypatch.setattr(leaks.FileLock, "acquire", read_only)
    caplog.set_level("INFO")
    for _ in range(2):
        assert len(leaks.store_copies(store)) == 2
    assert caplog.text.count("cannot be kept") == 2
    assert not list(store.folder.glob("copies*"))


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = real_data / "ChestX-ray14"
    return prepare(
        ChestXray14DataModule(root).read(), {"chestxray14": root}, Settings(), tmp_path_factory.mktemp("prepared")
    )


@pytest.mark.slow
def test_no_two_patients_of_the_real_originals_share_an_image(real: Store) -> None:
    assert leaks.store_copies(real).empty
    # Two files of one patient hold the same pixels; that is the source's own.
    assert leaks.links(real)["kind"].tolist() == ["identical"]


@pytest.mark.slow
def test_95_in_100_copies_of_real_originals_are_found(real: Store, real_data: Path) -> None:
    rows = np.random.default_rng(7).permutation(len(real.manifest))[:100]
    originals = [read_grey(real_data / "ChestX-ray14" / real.manifest["path"][row]) for row in rows]
    images = np.concatenate([real.images, planted(originals, seed=8)])
    manifest = each_its_own(len(images)).assign(
        patient_id=[*real.manifest["patient_id"], *(f"copy/{i}" for i in range(100))]
    )
    pairs = copies_between_patients(images, manifest)
    twins = {row: len(real.manifest) + i for i, row in enumerate(rows.tolist())}
    same = leaks.links(real)[["row_a", "row_b"]].to_numpy().tolist()
    allowed = set(twins.items()) | {(x, twins[y]) for p in same for x, y in (p, p[::-1]) if y in twins}
    number = {name: i for i, name in enumerate(manifest["image_id"])}
    named = {(number[a], number[b]) for a, b in zip(pairs["image_id_a"], pairs["image_id_b"], strict=True)}
    print(json.dumps({"found": len({b for _, b in named}), "of": 100, "false": len(named - allowed)}))
    assert named <= allowed
    assert len({b for _, b in named}) >= 95
