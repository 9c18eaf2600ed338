"""The prepared store: right pixels for the right rows, made once, never lost, never stale."""

import errno
import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lungdet.data.store import building, depth, partial
from lungdet.data.store.images import Settings, resize
from lungdet.data.store.store import StoreError, prepare
from lungdet.programs import prepare as prepare_program
from tests.calling import call

SMALL = Settings(size=16)


def table(*paths, dataset="toy", **columns):
    ids = [f"{dataset}/{Path(path).stem}" for path in paths]
    return pd.DataFrame({"image_id": ids, "dataset": dataset, "path": list(paths), "abnormal": 0.0, **columns})


def write(folder, count=6, seed=0, scale=1):
    """`count` noisy images, each of its own brightness; 16 bit where scaled."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    arrays = {}
    for i in range(count):
        grey = rng.integers(20 * i, 20 * i + 100, (40, 30)).astype(np.uint8)
        arrays[f"{i:02d}.png"] = grey if scale == 1 else grey.astype(np.uint16) * scale
        Image.fromarray(arrays[f"{i:02d}.png"]).save(folder / f"{i:02d}.png")
    return arrays


@pytest.fixture
def toy(tmp_path):
    """A folder of six images, their arrays, their manifest, and a way to prepare them."""
    arrays = write(tmp_path / "toy")

    class Toy:
        root, stores, manifest = tmp_path / "toy", tmp_path / "stores", table(*arrays)
        squares = np.stack([resize(a, 16, "squash") for a in arrays.values()])

        def prepare(self, manifest=None, settings=SMALL, **more):
            manifest = self.manifest if manifest is None else manifest
            return prepare(manifest, {"toy": self.root}, settings, self.stores, **more)

    return Toy()


def stores(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


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


def test_dark_and_bright_16_bit_images_are_scaled_alike(tmp_path):
    """Scaled by its own range, the dark image would look like the bright one."""
    deep = tmp_path / "deep"
    deep.mkdir()
    ramp = np.linspace(0, 1, 16 * 16).reshape(16, 16)
    for name, top in (("bright", 4000), ("dark", 400)):
        Image.fromarray((ramp * top).astype(np.uint16)).save(deep / f"{name}.png")
    Image.fromarray((ramp * 200).astype(np.uint8)).save(deep / "eight.png")
    store = prepare(table("bright.png", "dark.png", "eight.png"), {"toy": deep}, SMALL, tmp_path / "stores")
    assert store.bits == {"toy": 12}
    assert [image.max() for image in store.images] == [round(4000 * 255 / 4095), round(400 * 255 / 4095), 200]
    np.testing.assert_array_equal(store.images[0], np.rint((ramp * 4000).astype(np.uint16) * (255 / 4095)))


def test_depth_is_each_datasets_own_and_can_be_given(tmp_path):
    roots = {"ten": tmp_path / "ten", "sixteen": tmp_path / "sixteen", "eight": tmp_path / "eight"}
    for name, scale in (("ten", 4), ("sixteen", 200), ("eight", 1)):
        write(roots[name], 3, scale=scale)
    names = ("00.png", "01.png", "02.png")
    manifest = pd.concat([table(*names, dataset=dataset) for dataset in roots], ignore_index=True)
    store = prepare(manifest, roots, SMALL, tmp_path / "stores")
    assert store.bits == {"ten": 10, "sixteen": 16}
    assert store.folder.name.startswith("eight+sixteen+ten-16-squash-")
    assert json.loads((store.folder / "store.json").read_text())["bits"] == store.bits
    assert prepare(manifest, roots, SMALL, tmp_path / "stores").bits == store.bits

    store = prepare(manifest, roots, Settings(size=16, bits=12), tmp_path / "stores")
    assert store.bits == {"ten": 12}
    assert set(store.excluded["image_id"].str.split("/").str[0]) == {"sixteen"}
    assert store.excluded["reason"].str.contains("does not fit data.bits=12; set data.bits=").all()

    store = prepare(manifest, roots, Settings(size=16, bits={"ten": 12}), tmp_path / "stores")
    assert store.bits == {"ten": 12, "sixteen": 16}
    assert store.excluded.empty


def test_an_image_whose_range_no_other_explains_is_warned_of_each_time(tmp_path, caplog):
    """A single white pixel of 16 bits turns 24 images of 12 bits nearly black."""
    arrays = write(tmp_path / "toy", 24, scale=7)
    roots, stores_ = {"toy": tmp_path / "toy"}, tmp_path / "stores"
    arrays["05.png"][0, 0] = 65535
    Image.fromarray(arrays["05.png"]).save(tmp_path / "toy" / "05.png")
    for _ in range(2):  # made, and found again
        caplog.clear()
        store = prepare(table(*arrays), roots, SMALL, stores_)
        assert store.bits == {"toy": 16}
        assert store.outliers["toy"].images == {"toy/05": 65535}
        assert "1 of 24 16-bit images hold values that the range of no other (up to " in caplog.text
        assert "toy/05 (65535). All are read as 16 bit, so the others have 8 of 256 greys" in caplog.text
        assert "data.bits=12 leaves them out" in caplog.text
    caplog.clear()
    cured = prepare(table(*arrays), roots, Settings(size=16, bits=12), stores_)
    assert cured.excluded["image_id"].tolist() == ["toy/05"]
    assert cured.images.max() > 100
    assert not prepare(table(*arrays), roots, Settings(size=16, bits=16), stores_).outliers
    assert "explains" not in caplog.text


def test_a_dataset_of_two_depths_in_two_datasets_is_cured_by_name(tmp_path, caplog):
    roots = {"a": tmp_path / "a", "b": tmp_path / "b"}
    for name in roots:
        write(roots[name], 3, scale=200 if name == "b" else 4)
    Image.fromarray(np.eye(40, dtype=np.uint16) * 60000).save(roots["a"] / "02.png")
    manifest = pd.concat([table("00.png", "01.png", "02.png", dataset=name) for name in roots], ignore_index=True)
    prepare(manifest, roots, SMALL, tmp_path / "stores")
    assert "'data.bits={a: 10}' leaves them out" in caplog.text
    assert prepare(manifest, roots, Settings(size=16, bits={"a": 10}), tmp_path / "stores").bits == {"a": 10, "b": 16}


@pytest.mark.parametrize(
    ("largest", "far"),
    [
        ([4000, 3900, 4095, 65535], [3]),
        ([65535], []),
        ([4000, 3000, 2000, 4095], []),
        ([900] * 19 + [1100], []),  # not beyond twice the others: a tail, if of more depth
        ([300] * 19 + [1000], []),  # no more depth is needed for it
        ([4000] * 18 + [20000, 65535], [18, 19]),
        ([4000] * 12 + [65535] * 8, []),  # no outliers, a scanner of its own
    ],
)
def test_outliers_are_few_far_and_cost_the_others_depth(largest, far):
    assert np.flatnonzero(depth.outlying(np.array(largest))).tolist() == far


def test_a_file_that_may_not_be_read_stops_the_work_and_is_taken_once_it_may(toy, monkeypatch):
    real, refused = Path.open, PermissionError(errno.EACCES, "Permission denied")

    def opened(path, *more, **named):
        if path.name == "03.png":
            raise refused
        return real(path, *more, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", opened)
        with pytest.raises(StoreError, match=r"03\.png: Permission denied; let this user read it"):
            toy.prepare()
    np.testing.assert_array_equal(toy.prepare().images, toy.squares)


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


@pytest.mark.parametrize("where", ["Path.mkdir", "Partial"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT])
def test_a_disk_that_refuses_is_told_plainly(toy, monkeypatch, where, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refused) if where == "Path.mkdir" else monkeypatch.setattr(
        building.Partial, "checkpoint", refused
    )
    with pytest.raises(StoreError, match=r"data\.store|make some"):
        toy.prepare()


def test_what_it_takes_is_said_first(toy, caplog):
    caplog.set_level(logging.INFO)
    toy.prepare()
    said = [record.getMessage() for record in caplog.records]
    assert "preparing 6 images, 16 x 16 (squash)" in said[0]
    assert "MB on disk" in said[0]
    assert "images/s" in said[1]


def test_a_disk_too_small_is_refused_before_anything_is_written(toy, monkeypatch):
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(StoreError, match=r"needs 0\.0 MB more.* 0\.0 MB free.*data\.store"):
        toy.prepare()
    assert stores(toy.stores) == []


def test_nothing_usable_is_an_error_with_the_reasons(toy):
    for file in toy.root.iterdir():
        file.write_text("no image")
    with pytest.raises(StoreError, match=r"none of the 6 images could be used: 00\.png: no PNG"):
        toy.prepare()
    assert stores(toy.stores) == []
    with pytest.raises(StoreError, match="no image"):
        toy.prepare(toy.manifest[:0])


def test_a_dataset_without_a_root_is_named(toy):
    with pytest.raises(StoreError, match="toy has no root folder; given are other"):
        prepare(toy.manifest, {"other": toy.root}, SMALL, toy.stores)


def test_files_that_vanish_meanwhile_stop_the_work_and_are_not_left_out(toy, monkeypatch):
    real = building.read_square

    def unmounted(path, settings):
        path.unlink(missing_ok=True)
        return real(path, settings)

    monkeypatch.setattr(building, "read_square", unmounted)
    with pytest.raises(StoreError, match="still mounted"):
        toy.prepare()


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


def test_a_stopped_run_goes_on_where_it_was(toy, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    real, seen = building.read_square, []

    def stopping(path, settings):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(path.name)
        return real(path, settings)

    monkeypatch.setattr(building, "read_square", stopping)
    with pytest.raises(KeyboardInterrupt):
        toy.prepare(workers=1)
    assert [name.endswith(".partial") for name in stores(toy.stores)] == [True]
    kept = set(seen)
    monkeypatch.setattr(building, "read_square", lambda p, s: (seen.append(p.name), real(p, s))[1])
    store = toy.prepare()
    assert len(seen) == 6
    assert set(seen[4:]).isdisjoint(kept)
    assert "going on: 4 of 6 are done" in caplog.text
    np.testing.assert_array_equal(store.images, toy.squares)


def test_what_was_finished_is_known_after_a_stop_and_what_cannot_be_used_is_tried_again(tmp_path):
    square = np.ones((4, 4), np.uint8)
    with partial.Partial(tmp_path / "growing", 4, 4) as growing:
        growing.add(0, square, 1)
        growing.leave_out(1, "why")
        growing.add(2, square.astype(np.uint16), 1)
        assert growing.finished.tolist() == [True, True, True, False]
    with partial.Partial(tmp_path / "growing", 4, 4) as growing:
        assert growing.finished.tolist() == [True, False, True, False]
        assert growing.deep.tolist() == [False, False, True, False]


def test_a_stop_while_finishing_is_repeated_without_harm(tmp_path):
    """Gaps are closed by moving images and 16-bit rows are scaled: done twice, the result must be the same."""
    squares = np.random.default_rng(0).integers(1, 250, (5, 4, 4)).astype(np.uint8)
    for _ in range(3):
        with partial.Partial(tmp_path / "growing", 5, 4) as growing:
            for row in np.flatnonzero(~growing.finished):
                if row in (0, 2):
                    growing.leave_out(int(row), "why")
                else:
                    deep = row == 3
                    growing.add(
                        row, squares[row].astype(np.uint16) * 16 if deep else squares[row], 255 * (16 if deep else 1)
                    )
            order, bits = growing.finish(np.array(["a"] * 5), Settings(size=4))
            assert order.tolist() == [3, 1, 4]
            assert bits == {"a": 12}
            assert growing.reasons == {0: "why", 2: "why"}
    partial.clear(tmp_path / "growing", 4)
    images = np.load(tmp_path / "growing" / "images.npy")
    np.testing.assert_array_equal(images[1:], squares[[1, 4]])
    np.testing.assert_array_equal(images[0], np.rint(squares[3] * 16.0 * 255 / 4095))


PREPARING = """
    import logging, sys
    from pathlib import Path
    import pandas as pd
    from lungdet.data.store import building, partial, store
    from lungdet.data.store.images import Settings

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    partial.CHECKPOINT_SECONDS = 0
    real, left = building.read_square, int(sys.argv[1])
    def read(path, settings):
        global left
        if not left:
            print("waits", flush=True)
            sys.stdin.readline()
        left -= 1
        print("decoded", path.name, flush=True)
        return real(path, settings)
    building.read_square = read
    manifest = pd.read_parquet("manifest.parquet")
    made = store.prepare(manifest, {"toy": Path("toy")}, Settings(size=16), Path("stores"), workers=1)
    print("images", len(made.images), flush=True)
"""


def preparing(toy, before=-1):
    """A process that prepares the toy images; after so many it waits for a line on its standard input."""
    toy.manifest.to_parquet(toy.root.parent / "manifest.parquet")
    command = [sys.executable, "-c", textwrap.dedent(PREPARING), str(before)]
    return subprocess.Popen(
        command, cwd=toy.root.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def until(process, words):
    """What the process says up to the line with these words."""
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it never said {words}: {said}")


def test_work_survives_kill_9(toy):
    killed = preparing(toy, before=4)
    until(killed, "waits")
    while not (rows := list(toy.stores.glob("*.partial/rows.npy"))) or (np.load(rows[0])[0] >= 0).sum() < 2:
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    done = (np.load(rows[0])[0] >= 0).sum()
    assert 2 <= done <= 4
    said, _ = preparing(toy).communicate()
    assert f"going on: {done} of 6 are done" in said
    assert said.count("decoded") == 6 - done
    np.testing.assert_array_equal(toy.prepare().images, toy.squares)


def test_two_processes_at_once_make_one_store(toy):
    first = preparing(toy, before=1)
    said = until(first, "waits")
    second = preparing(toy)
    waiting = until(second, "another process is preparing")
    said += first.communicate("\n")[0]
    waiting += second.communicate()[0]
    assert said.count("decoded") == 6
    assert "decoded" not in waiting
    assert "images 6" in said
    assert "images 6" in waiting
    assert len(stores(toy.stores)) == 1


def test_opencvs_threads_are_left_as_they_were(toy):
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        toy.prepare()
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


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
    done = call(prepare_program, *words, "-m", cwd=folder)
    assert done.returncode != 0
    assert "one dataset at a time" in done.stderr
    assert not list(folder.iterdir())
