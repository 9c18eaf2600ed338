"""The prepared store: right pixels for the right rows, made once, never stale."""

import json
import os

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lungdet.data.store import building
from lungdet.data.store.images import Settings
from lungdet.data.store.store import StoreError, prepare
from lungdet.programs import prepare as prepare_program
from tests.calling import call
from tests.data.store.toys import SMALL, stores, table


def test_images_are_the_resized_originals_in_the_manifests_rows(toy):
    store = toy.prepare()
    assert store.images.dtype == np.uint8
    assert not store.images.flags.writeable
    np.testing.assert_array_equal(store.images, toy.squares)
    pd.testing.assert_frame_equal(store.manifest, toy.manifest)
    assert stores(toy.stores) == [store.folder.name]
    assert store.folder.name == f"toy-16-squash-{store.fingerprint[:12]}"
    assert stores(store.folder) == ["excluded.csv", "images.npy", "manifest.parquet", "store.json"]
    np.testing.assert_array_equal(np.load(store.folder / "images.npy"), toy.squares)
    facts = json.loads((store.folder / "store.json").read_text())
    assert facts["fingerprint"] == store.fingerprint
    assert facts["images"] == 6


def test_a_second_run_decodes_nothing(toy, monkeypatch):
    first = toy.prepare()
    monkeypatch.setattr(building, "read_square", None)
    second = toy.prepare()
    assert second.folder == first.folder
    np.testing.assert_array_equal(second.images, toy.squares)


def test_new_labels_and_another_order_find_the_same_pixels(toy, monkeypatch):
    toy.prepare()
    monkeypatch.setattr(building, "read_square", None)
    newer = toy.manifest.assign(abnormal=[1.0, 0, 1, 0, 1, 1], age=range(6)).sample(frac=1, random_state=3)
    store = toy.prepare(newer)
    assert stores(toy.stores) == [store.folder.name]
    expected = newer.set_index("image_id")
    for row, image in zip(store.manifest.itertuples(), store.images, strict=True):
        assert row.abnormal == expected.loc[row.image_id, "abnormal"]
        assert row.age == expected.loc[row.image_id, "age"]
        np.testing.assert_array_equal(image, toy.squares[int(row.image_id[-2:])])


def test_anything_that_changes_pixels_makes_a_new_store(toy):
    folders = [toy.prepare().folder]
    os.utime(toy.root / "03.png", ns=(0, 1_700_000_000_000_000_001))
    folders.append(toy.prepare().folder)
    os.utime(toy.root / "03.png", ns=(0, 1_700_000_000_000_000_002))
    folders.append(toy.prepare().folder)
    content, before = (toy.root / "03.png").read_bytes(), (toy.root / "03.png").stat()
    (toy.root / "03.png").write_bytes(content + b" ")
    os.utime(toy.root / "03.png", ns=(0, before.st_mtime_ns))
    folders.append(toy.prepare().folder)
    for settings in (Settings(size=17), Settings(size=16, resize="pad"), Settings(size=16, bits=12)):
        folders.append(toy.prepare(settings=settings).folder)
    folders.append(toy.prepare(toy.manifest[1:]).folder)
    assert len(set(folders)) == len(folders) == len(stores(toy.stores))


def test_a_moved_dataset_keeps_its_store(toy):
    folder = toy.prepare().folder
    toy.root = toy.root.rename(toy.root.with_name("elsewhere"))
    assert toy.prepare().folder == folder


def test_unusable_files_are_listed_and_the_others_stay_with_their_rows(toy, caplog):
    content = (toy.root / "01.png").read_bytes()
    (toy.root / "00.png").unlink()
    (toy.root / "01.png").write_bytes(content[: len(content) // 2])
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(toy.root / "03.png")
    for _ in range(2):  # made, and found again
        caplog.clear()
        store = toy.prepare()
        assert sorted(store.manifest["image_id"]) == ["toy/02", "toy/04", "toy/05"]
        for row, image in zip(store.manifest.itertuples(), store.images, strict=True):
            np.testing.assert_array_equal(image, toy.squares[int(row.image_id[-2:])])
        assert store.excluded["path"].tolist() == ["00.png", "01.png", "03.png"]
        missing, truncated, blank = store.excluded["reason"]
        assert missing == "no such file"
        assert "truncated" in truncated
        assert blank == "blank: every pixel is 0"
        assert "3 of 6 images cannot be used" in caplog.text
        assert "no such file" in caplog.text
    assert pd.read_csv(store.folder / "excluded.csv")["image_id"].tolist() == ["toy/00", "toy/01", "toy/03"]
    assert np.load(store.folder / "images.npy").shape == (3, 16, 16)
    assert (store.folder / "images.npy").stat().st_size == 128 + 3 * 16 * 16


def test_two_folders_with_equal_names_sizes_and_times_have_a_store_each(toy):
    other = toy.root.with_name("other")
    other.mkdir()
    for name in toy.manifest["path"]:  # not compressed, so that any pixels take as many bytes
        for folder, value in ((toy.root, 10), (other, 20)):
            Image.fromarray(np.eye(9, dtype=np.uint8) * value).save(folder / name, "BMP")
            os.utime(folder / name, ns=(0, 1_700_000_000_000_000_000))
    first, second = toy.prepare(), prepare(toy.manifest, {"toy": other}, SMALL, toy.stores)
    assert (first.images.max(), second.images.max()) == (10, 20)


@pytest.mark.parametrize("names", [["../../x"], ["/x"], [f"clinic-{i}" for i in range(40)], ["北" * 200]])
def test_a_datasets_name_neither_leaves_the_stores_folder_nor_is_too_long_for_it(toy, names):
    manifest = pd.concat([toy.manifest.iloc[[i % 6]].assign(dataset=name) for i, name in enumerate(names)])
    manifest = manifest.assign(image_id=[f"{name}/{i}" for i, name in enumerate(manifest["dataset"])])
    store = prepare(manifest, dict.fromkeys(names, toy.root), SMALL, toy.stores / "deep" / "er")
    assert store.folder.parent == toy.stores / "deep" / "er"
    assert len(store.images) == len(names)
    assert prepare(manifest, dict.fromkeys(names, toy.root), SMALL, toy.stores / "deep" / "er").folder == store.folder


def test_a_reader_that_names_no_folder_of_a_dataset_is_told(toy):
    with pytest.raises(
        StoreError, match="the reader's `roots` names no folder of other, whose images its `read` gives"
    ):
        toy.prepare(pd.concat([toy.manifest, table("07.png", dataset="other")]))


def test_nothing_usable_is_an_error_with_the_reasons(toy):
    for file in toy.root.iterdir():
        file.write_text("no image")
    with pytest.raises(StoreError, match=r"none of the 6 images could be used: 00\.png: no PNG"):
        toy.prepare()
    assert stores(toy.stores) == []


@pytest.mark.parametrize("name", ["images.npy", "manifest.parquet", "excluded.csv", "store.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_a_damaged_store_says_to_delete_the_folder(toy, name, damage):
    file = toy.prepare().folder / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) * 2 // 3], "text": b"oops"}[damage])
    with pytest.raises(StoreError, match=r"damaged.*delete that folder"):
        toy.prepare()


def test_real_originals(real_data, tmp_path):
    root = real_data / "ChestX-ray14"
    files = sorted((root / "images").glob("*.png"))[::10]
    manifest = table(*(f"images/{file.name}" for file in files), dataset="chestxray14")
    store = prepare(manifest, {"chestxray14": root}, Settings(), tmp_path)
    assert store.images.shape == (45, 224, 224)
    assert store.excluded.empty
    assert store.bits == {}
    for row in range(0, 45, 5):
        original = cv2.imread(str(files[row]), cv2.IMREAD_GRAYSCALE)
        expected = cv2.resize(original, (224, 224), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(store.images[row], expected)


def test_the_command_prepares_and_leaves_nothing_but_the_store(toy):
    (toy.root / "03.png").write_text("no image")
    toy.manifest[["path", "abnormal"]].to_csv(toy.root / "my.csv", index=False)
    folder = toy.root.parent / "here"
    folder.mkdir()
    words = ["data=table", f"data.table={toy.root}/my.csv", f"data.store={toy.stores}"]
    words += ["data.image_size=16", "data.resize=pad"]
    done = call(prepare_program, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    (name,) = stores(toy.stores)
    assert f"{toy.stores / name}\n" in done.stdout
    assert "5 (5 table)" in done.stdout
    assert "16 x 16, pad" in done.stdout
    assert "03.png: no PNG, JPEG" in done.stdout
    assert not list(folder.iterdir())

    done = call(prepare_program, *words, "data.image_sise=16", cwd=folder)
    assert done.returncode != 0
    assert "image_sise" in done.stderr
    assert not list(folder.iterdir())
