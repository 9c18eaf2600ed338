"""`lungdet check` counts what there is, names what is odd or missing, and advises by stated rules."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lungdet.data.check import advice, fingerprint, inspection, official, showing
from lungdet.data.check.examining import examine
from lungdet.data.sources import chestxray14
from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.sources.table import TableDataModule
from lungdet.programs import check
from tests.calling import call, output

PATIENTS = 40


def film(rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """A bright middle between dark lungs, and much of its own."""
    x = np.linspace(-1, 1, side)
    chest = 70 * np.cos(3 * np.pi * x)[None] * np.hanning(side)[:, None]
    own = cv2.resize(rng.normal(0, 22, (9, 9)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + chest + own + rng.normal(0, 10, (side, side)), 20, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, two visits a patient, one of each oddity; the csv file."""
    folder = tmp_path_factory.mktemp("clinic")
    rng, rows = np.random.default_rng(0), []
    for patient in range(PATIENTS):
        for visit in range(2):
            image, name = film(rng), f"{patient}_{visit}.png"
            if name == "3_0.png":
                image = 255 - image
            if name == "4_0.png":
                image[:, :8] = 3
            if name == "13_0.png":
                image[:32, 0] = 3  # dark, but no border
            if name == "5_0.png":
                image = cv2.merge([image] * 3)
            if name == "6_0.png":
                image = image.astype(np.uint16) * 16
            if name == "7_0.png":
                image[:] = 0
            if name == "8_0.png":
                image = film(rng, 80)
            cv2.imwrite(str(folder / name), image)
            rows.append(
                {
                    "path": name,
                    "patient_id": patient,
                    "visit": visit,
                    "abnormal": "" if patient == 9 else int(patient % 4 == 0),
                    "effusion": int(patient % 8 == 0),
                    "age": "" if patient == 10 else 20 + patient,
                    "sex": "F" if patient % 2 else "M",
                    "view": "PA" if visit else "",
                    "dataset": "<i>north" if patient < 30 else "south",
                }
            )
    (folder / "12_1.png").write_bytes((folder / "12_0.png").read_bytes())  # one patient's
    for name in ("20_0.png", "31_0.png"):  # three patients'
        (folder / name).write_bytes((folder / "11_1.png").read_bytes())
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def module(clinic: Path, folder: Path, **keys: object) -> TableDataModule:
    return TableDataModule(table=clinic, store=folder, image_size=64, num_workers=0, **keys)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def report(clinic: Path, store: Path) -> dict:
    return examine(module(clinic, store))


def test_every_number_is_the_tables_own(report: dict, clinic: Path) -> None:
    table = pd.read_csv(clinic).query("path != '7_0.png'")  # that one is blank
    numbers = report["numbers"]["all"]
    assert (numbers["images"], numbers["patients"], numbers["most_images_of_a_patient"]) == (79, PATIENTS, 2)
    assert numbers["images_per_patient"] == {"2 images": 39, "1 image": 1}
    assert numbers["abnormal"] == {"present": 20, "absent": 57, "unknown": 2, "prevalence": 20 / 77}
    assert numbers["findings"]["effusion"]["present"] == table["effusion"].sum()
    assert numbers["findings"]["mass"] == {"present": 0, "absent": 0, "unknown": 79, "prevalence": None}
    assert numbers["sex"] == {"M": 40, "F": 39}
    assert [*numbers["ages"].values()] == [0, 0, 19, 18, 20, 20, 0, 0, 0, 0]
    assert numbers["view"] == {"PA": 40, "unknown": 39}
    assert (numbers["age"]["median"], numbers["age"]["unknown"]) == (table["age"].median(), 2)
    assert numbers["size"] == {"64 x 64": 78, "80 x 80": 1}
    assert numbers["mode"] == {"L": 77, "RGB": 1, "I;16": 1}
    assert numbers["bits"] == {"8": 78, "16": 1}
    assert (numbers["left_out"], numbers["blank"]) == (1, 1)
    assert (numbers["copies_in_same_patient"], numbers["copies_in_other_patients"]) == (2, 3)


def test_datasets_and_parts_add_up_to_the_whole(report: dict) -> None:
    numbers = report["numbers"]
    assert set(numbers["datasets"]) == {"<i>north", "south"}
    assert set(numbers["parts"]) == {"train", "val", "test"}
    crossed = [part for parts in numbers["datasets_and_parts"].values() for part in parts.values()]
    for groups in (numbers["datasets"].values(), numbers["parts"].values(), crossed):
        for key in ("images", "patients", "wide_border", "copies_in_same_patient"):
            assert sum(group[key] for group in groups) == numbers["all"][key]
        assert sum(group["abnormal"]["present"] for group in groups) == 20
    assert numbers["datasets"]["<i>north"]["left_out"] == 1
    assert report["split"]["parts"]["test"]["images"] == numbers["parts"]["test"]["images"]


def test_what_is_odd_is_named(report: dict) -> None:
    assert report["odd"]["inverted"] == ["<i>north/3_0"]
    assert report["odd"]["wide_border"] == ["<i>north/4_0"]
    assert report["odd"]["almost_blank"] == []
    assert [(file["image_id"], file["reason"][:5]) for file in report["left_out"]] == [("<i>north/7_0", "blank")]
    assert [(c["image_id_a"], c["image_id_b"], c["kind"], c["same_patient"]) for c in report["copies"]] == [
        ("<i>north/11_1", "<i>north/20_0", "identical", False),
        ("<i>north/11_1", "south/31_0", "identical", False),
        ("<i>north/12_0", "<i>north/12_1", "identical", True),
    ]


def test_a_split_that_training_refuses_is_reported_with_its_numbers(clinic: Path, store: Path, tmp_path: Path) -> None:
    table = pd.read_csv(clinic)
    parts = np.where(table["patient_id"] < 18, "train", np.where(table["patient_id"] < 30, "test", "val"))
    names = table["dataset"] + "/" + table["path"].str.removesuffix(".png")
    split = pd.DataFrame({"image_id": names, "split": parts})[table["path"] != "7_0.png"]
    split.to_csv(tmp_path / "split.csv", index=False)
    data = module(clinic, store, split="file", split_file=tmp_path / "split.csv")
    report = examine(data)
    assert "<i>north/11_1 (train" in report["refused"]
    assert report["numbers"]["parts"]["val"]["patients"] == 10
    assert "refuse" in showing.gist(report)[1]


def test_whose_images_and_which_depth_are_doubted_with_cause_and_cure(clinic: Path, tmp_path: Path) -> None:
    for row, name in enumerate("abcdefgh"):
        deep = cv2.imread(str(clinic.with_name(f"{row + 20}_1.png")), 0).astype(np.uint16) * 15
        deep[0, 0] = 65535 if name == "c" else deep[0, 0]
        cv2.imwrite(str(tmp_path / f"{name}.png"), deep)
    lines = [f"{name}.png,{row % 2},{60 - 8 * row},7" for row, name in enumerate("abcdefgh")]
    (tmp_path / "without.csv").write_text("\n".join(["path,abnormal,age,number", *lines]))
    (tmp_path / "one.csv").write_text("\n".join(["path,abnormal,age,patient_id", *lines]))
    gist = showing.gist(examine(module(tmp_path / "without.csv", tmp_path / "store")))
    assert gist[0].startswith("8 images from table;")
    assert any("Nothing says whose the images are (no column patient_id)" in sentence for sentence in gist)
    assert any("table/c (65535)" in sentence and "data.bits=12 leaves them out" in sentence for sentence in gist)
    gist = showing.gist(examine(module(tmp_path / "one.csv", tmp_path / "store")))
    assert gist[0].startswith("8 images of 1 patients from table;")
    assert any("table/7 is 60 years old in table/a, and later 52 in table/b" in sentence for sentence in gist)


def test_the_page_holds_everything_itself_and_escapes_names(report: dict) -> None:
    page = showing.page(report)
    elsewhere = r"""(?:src|href)\s*=\s*["'](?!data:image/jpeg;base64,|#)|url\((?!#)|<script |<link|@import"""
    assert not re.search(elsewhere, page)
    assert "&lt;i&gt;north" in page
    assert "<i>" not in page
    assert page.count("<figure>") == sum(map(len, report["sheet"].values())) + 2 > 14  # ages and classes
    assert "abnormal 2" in page[page.index("classes-words") :]
    assert set(report["sheet"]) >= {"<i>north, normal", "south, abnormal", "Look inverted"}
    for sentence in report["advice"]:
        assert sentence.split("(")[0].replace("'", "&#39;")[:30] in page


def test_the_console_cuts_nothing_and_shows_the_first_names(
    report: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    many = report | {"odd": {"inverted": [f"north/{i}" for i in range(30)]}}
    showing.show(many, 3)
    text = capsys.readouterr().out
    assert "inverted: north/0, north/1, north/2, .." in text
    assert "north/3" not in text
    assert "…" not in text
    assert "<i>north/11_1 and <i>north/20_0 (identical, different patients)" in text
    assert re.search(r"images +79 +59 +20 +\d+ +\d+ +\d+", text)


def test_the_command_writes_both_files(clinic: Path, tmp_path: Path) -> None:
    words = [f"data.table={clinic}", "data=table", f"outputs={tmp_path}", "data.image_size=64"]
    assert "written: " in output(check, *words)
    facts = json.loads((tmp_path / "check" / "table" / "check.json").read_text())
    assert facts["numbers"]["all"]["images"] == 79
    assert (tmp_path / "check" / "table" / "check.html").read_text().startswith("<!doctype html>")


def test_the_command_says_plainly_what_is_wrong(tmp_path: Path) -> None:
    wrong = call(check, "data=table", f"outputs={tmp_path}", "data.table=nowhere.csv")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("lungdet check: ")
    assert "nowhere.csv" in wrong.stderr


def test_the_official_sets_have_their_names() -> None:
    for dataset, normal, abnormal in (("montgomery", 80, 58), ("shenzhen", 326, 336)):
        names = official.expected_names(dataset)
        assert sum(name.endswith("_0") for name in names) == normal
        assert sum(name.endswith("_1") for name in names) == abnormal
        assert len(names) == normal + abnormal == len({name[:-2] for name in names})
    assert "shenzhen/CHNCXR_0326_0" in official.expected_names("shenzhen")
    assert {"montgomery/MCUCXR_0001_0", "montgomery/MCUCXR_0399_1"} <= official.expected_names("montgomery")


def copy_of(name: str, names: list[str]) -> pd.DataFrame:
    labels = [float(image_id[-1]) for image_id in names]
    return pd.DataFrame({"image_id": names, "dataset": name, "patient_id": names, "abnormal": labels})


def test_a_whole_set_is_whole_and_a_part_lacks_what_it_lacks() -> None:
    names = sorted(official.expected_names("shenzhen"))
    none = pd.DataFrame(columns=["image_id", "reason"])
    whole = official.verify("shenzhen", copy_of("shenzhen", names), none, Path())
    assert whole["whole"]
    assert whole["found"] == whole["expected"] == {"images": 662, "normal": 326, "abnormal": 336}
    present = [*names[:100], *names[103:], "shenzhen/CHNCXR_0001_1"]
    bad = pd.DataFrame({"image_id": [names[7]], "reason": ["truncated"]})
    part = official.verify("shenzhen", copy_of("shenzhen", present), bad, Path())
    assert not part["whole"]
    assert part["missing"] == names[100:103]
    assert part["unexpected"] == ["shenzhen/CHNCXR_0001_1"]
    assert part["unusable"] == {names[7]: "truncated"}
    damaged = official.verify("shenzhen", copy_of("shenzhen", names), bad, Path())
    assert not damaged["whole"]


def test_an_inverted_film_is_told_from_many() -> None:
    rng = np.random.default_rng(1)
    films = np.array([film(rng) for _ in range(200)])
    films[:5] = 255 - films[:5]
    flagged = inspection.agreement(films) < inspection.INVERTED
    assert flagged[:5].all()
    assert not flagged[5:].any()


def test_class_weights_make_both_classes_count_alike() -> None:
    normal, abnormal = advice.class_weights(300, 100)
    assert 300 * normal == pytest.approx(100 * abnormal) == pytest.approx(200)


def test_the_intervals_to_expect_are_those_that_samples_have() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (1500, 100)) + 1.812 * np.repeat([0, 1], [60, 40])
    aurocs = (scores[:, 60:, None] > scores[:, None, :60]).mean((1, 2))
    assert np.mean(aurocs) == pytest.approx(0.9, abs=0.005)
    assert advice.auroc_half_width(60, 40) == pytest.approx(1.96 * np.std(aurocs), rel=0.15)
    accuracies = rng.binomial(100, 0.9, 5000) / 100
    assert advice.accuracy_half_width(100) == pytest.approx(1.96 * np.std(accuracies), rel=0.05)


def group(normal: int, abnormal: int, **more: object) -> dict:
    total = normal + abnormal
    return {
        "images": total,
        "patients": total,
        "patients_normal": normal,
        "patients_abnormal": abnormal,
        "abnormal": {"present": abnormal, "absent": normal, "unknown": 0, "prevalence": abnormal / total},
        "patients_by_finding": {"mass": 0, "effusion": 0},
        "copies_in_other_patients": 0,
        **more,
    }


def advised(train: dict, test: dict, protocol: str = "random", **datasets: dict) -> str:
    everything = group(train["patients_normal"] * 2, train["patients_abnormal"] * 2)
    numbers = {"all": everything, "parts": {"train": train, "test": test}, "datasets": datasets or {"one": everything}}
    return "\n".join(advice.advise(numbers, protocol))


def test_advice_follows_its_rules() -> None:
    plenty = advised(group(500, 500), group(400, 400))
    assert "No class weights" in plenty
    assert "folds" not in plenty
    small = advised(group(500, 500), group(60, 60))
    assert "± 5.4%" in small
    assert "data.split=folds" in small
    assert "data.split=folds" not in advised(group(500, 500), group(60, 60), "folds")
    assert "29 test patients" in advised(group(500, 500), group(400, 29))
    skewed = advised(group(800, 200), group(400, 400))
    assert "0.625 for normal and 2.500 for abnormal" in skewed
    assert "model.class_weights=balanced" in skewed
    rare = advised(group(500, 500), group(400, 400, patients_by_finding={"mass": 29, "effusion": 30, "hernia": 0}))
    assert "mass (29)." in rare
    apart = advised(group(500, 500), group(400, 400), north=group(80, 20), south=group(60, 40))
    assert "data.sampler=balanced" in apart
    assert "data.sampler" not in advised(group(500, 500), group(400, 400), north=group(65, 35), south=group(60, 40))
    assert "only one class" in advised(group(500, 0), group(400, 400)).lower()
    assert "holds one class only" in advised(group(500, 500), group(0, 400))
    mixed = advised(group(500, 500), group(400, 400, patients_normal=0))
    assert "one class only" not in mixed
    assert "Each of them has an abnormal image" in mixed


@pytest.mark.slow
def test_the_real_originals_are_counted_and_none_passes_for_inverted(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "ChestX-ray14"
    data = ChestXray14DataModule(root, store=tmp_path, split="official")
    report = examine(data)
    numbers, whole = report["numbers"]["all"], report["official"]["chestxray14"]
    assert (numbers["images"], numbers["patients"]) == (450, 223)
    assert numbers["mode"] == {"L": 448, "RGBA": 2}
    assert report["numbers"]["parts"]["test"]["images"] == 92
    assert numbers["inverted"] == 0
    assert len(whole["missing"]) == chestxray14.IMAGES - 450
    assert whole["found"] == {"images": 450, "patients": 223}
    assert report["split"] is not None
    small = [cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) for image in data.store.images[:200]]
    negatives = np.array([*small, *(255 - image for image in small[:20])])
    flagged = inspection.agreement(negatives) < inspection.INVERTED
    assert flagged[200:].sum() >= 18
    assert not flagged[:200].any()


def test_an_image_file_that_is_gone_is_unknown_not_an_error(clinic: Path, store: Path, tmp_path: Path) -> None:
    data = module(clinic, store)
    data.prepare_data()
    appearance = inspection.inspect(data.store, dict.fromkeys(data.roots(), tmp_path))
    assert appearance["width"].isna().all()
    assert appearance["border"].notna().all()
    links = pd.DataFrame({"row_a": [], "row_b": []}, dtype=int)
    numbers = fingerprint.describe(data.store.manifest, appearance, links, data.store.excluded, None)
    assert numbers["all"]["size"] == {"unknown": 79}
    assert numbers["parts"] == {}
