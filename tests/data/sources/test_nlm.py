"""The Montgomery and Shenzhen readers: file names, reading texts, repeated patients, folders with less in them."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.sources import montgomery
from lungdet.data.sources.montgomery import MontgomeryDataModule
from lungdet.data.sources.nlm import parse_reading, same_patient
from lungdet.data.sources.shenzhen import ShenzhenDataModule
from lungdet.errors import DatasetError
from lungdet.findings import CHESTXRAY14_FINDINGS
from tests.data.sources.files import image

MONTGOMERY_TEXT = "Patient's Sex: F \nPatient's Age: 027Y\nnormal\n"
SHENZHEN_TEXT = "male 45yrs\r\nnormal"


def dataset(root: Path, *names: str, text: str | None = MONTGOMERY_TEXT) -> Path:
    for name in names:
        image(root / "CXR_png" / name)
        if text is not None:
            reading(root, Path(name).stem, text)
    return root


def read(source: type[RadiographDataModule], root: Path) -> pd.DataFrame:
    return source(root).read()


def reading(root: Path, stem: str, text: str) -> None:
    (root / "ClinicalReadings").mkdir(parents=True, exist_ok=True)
    (root / "ClinicalReadings" / f"{stem}.txt").write_bytes(text.encode())


@pytest.mark.parametrize(
    ("text", "sex", "age"),
    [
        (MONTGOMERY_TEXT, "F", 27),
        ("Patient's Sex: M\r\nPatient's Age: 068Y\r\nh/o treatment in hospital 17Y ago\r\n", "M", 68),
        ("Patient's Sex: O \nPatient's Age: 008Y", "O", 8),
        ("Patient's Sex: F \nPatient's Age: 018M\n", "F", 1.5),
        ("male 45yrs\r\nnormal", "M", 45),
        ("male 33yrs  \t\nsecondary PTB  in the left upper field \t", "M", 33),
        ("femal 32yrs\r\nnormal", "F", 32),
        ("male 16month\r\nnormal", "M", 16 / 12),
        ("female 64days \r\nnormal", "F", 64 / 365.25),
        ("male45yrs\nnormal", "M", 45),
        ("Female, 24 yrs\nnormal", "F", 24),
        ("30 years\nnormal", None, 30),
        ("\r\n  \t female\t\t53yrs\r\nnormal", "F", 53),
        ("O 40yrs", "O", 40),
    ],
)
def test_reading_texts_are_understood(text, sex, age):
    assert parse_reading(text) == (sex, pytest.approx(age))


@pytest.mark.parametrize(
    ("text", "sex", "age"),
    [
        ("", None, None),
        ("normal", None, None),
        ("male 42\nnormal", "M", None),  # 42 of what?
        ("male 45mm\nnormal", "M", None),
        ("male 1-2yrs\nnormal", "M", None),
        ("male 450yrs\nnormal", "M", None),
        ("follow-up 33 years later", None, None),
        ("maleficent 33yrs", None, None),
        ("Patient's Sex: F \nno age; treated 17Y ago", "F", None),
        ("Patient's Age: 027Y\nmale pattern", None, 27),
    ],
)
def test_what_a_reading_does_not_state_is_unknown_and_never_guessed(text, sex, age):
    assert parse_reading(text) == (sex, age)


def test_the_label_is_the_last_digit_of_the_name(tmp_path):
    table = read(MontgomeryDataModule, dataset(tmp_path, "MCUCXR_0104_1.png", "MCUCXR_0001_0.png"))
    assert table["image_id"].tolist() == ["montgomery/MCUCXR_0001_0", "montgomery/MCUCXR_0104_1"]
    assert table["tuberculosis"].tolist() == table["abnormal"].tolist() == [0, 1]
    assert table[list(CHESTXRAY14_FINDINGS)].isna().all(axis=None)
    assert table["path"].tolist() == ["CXR_png/MCUCXR_0001_0.png", "CXR_png/MCUCXR_0104_1.png"]
    assert table["patient_id"].tolist() == ["montgomery/0001", "montgomery/0104"]
    assert table[["age", "sex", "view"]].iloc[0].tolist() == [27, "F", "PA"]


def test_shenzhen_states_no_view(tmp_path):
    table = read(ShenzhenDataModule, dataset(tmp_path, "CHNCXR_0001_0.png", "CHNCXR_0352_1.png", text=SHENZHEN_TEXT))
    assert table["abnormal"].tolist() == [0, 1]
    assert table["view"].isna().all()
    assert table[["age", "sex"]].iloc[0].tolist() == [45, "M"]


def test_repeated_patients_of_montgomery_are_one_patient_without_any_reading(tmp_path):
    names = [f"MCUCXR_{number}_1.png" for number in ("0113", "0117", "0162", "0166", "0170", "0173")]
    table = read(MontgomeryDataModule, dataset(tmp_path, *names, text=None))
    assert table["patient_id"].str[-4:].tolist() == ["0113", "0113", "0162", "0162", "0162", "0173"]
    assert table["visit"].tolist() == [0, 1, 0, 1, 2, 0]


def test_a_repeated_patient_keeps_id_and_visit_where_the_first_image_is_not_at_hand(tmp_path):
    table = read(MontgomeryDataModule, dataset(tmp_path, "MCUCXR_0170_1.png", text=None))
    assert table[["patient_id", "visit"]].iloc[0].tolist() == ["montgomery/0162", 2]


def test_a_reading_that_tells_of_another_repeated_patient_is_believed(tmp_path):
    root = dataset(tmp_path, "MCUCXR_0254_1.png", "MCUCXR_0255_1.png", "MCUCXR_0173_1.png")
    reading(root, "MCUCXR_0255_1", "Patient's Sex: M\nPatient's Age: 033Y\nstable (same patient as MCUCXR_0254_1)")
    reading(root, "MCUCXR_0173_1", "Patient's Sex: M\nPatient's Age: 054Y\nas before (same pt as MCUCXR_0166_1)")
    table = read(MontgomeryDataModule, root).set_index("image_id")
    assert table.loc["montgomery/MCUCXR_0255_1", ["patient_id", "visit"]].tolist() == ["montgomery/0254", 1]
    assert table.loc["montgomery/MCUCXR_0173_1", ["patient_id", "visit"]].tolist() == ["montgomery/0162", 3]


def test_missing_and_unclear_readings_are_unknown_and_told(tmp_path, caplog):
    root = dataset(tmp_path, "CHNCXR_0001_0.png", "CHNCXR_0002_0.png", "CHNCXR_0003_0.png", text=None)
    reading(root, "CHNCXR_0001_0", "male ??")
    reading(root, "CHNCXR_0002_0", "\xff\xfe\x00")
    with caplog.at_level(logging.INFO):
        table = read(ShenzhenDataModule, root)
    assert table["age"].isna().all()
    assert table["sex"].tolist()[0] == "M"
    assert table["sex"].isna().tolist() == [False, True, True]
    assert any("1 of 3 images have no reading" in line for line in caplog.messages)
    assert any("2 readings do not state" in line and "CHNCXR_0001_0, CHNCXR_0002_0" in line for line in caplog.messages)


def test_files_of_other_names_are_listed_and_left_out_and_masks_are_not_read(tmp_path, caplog):
    root = dataset(tmp_path, "MCUCXR_0001_0.png", "MCUCXR_0104_1.jpeg", "mask_0001.png", "._MCUCXR_0002_0.png")
    (root / "CXR_png" / "Thumbs.db").write_bytes(b"x")
    image(root / "ManualMask" / "leftMask" / "MCUCXR_0002_0.png")
    with caplog.at_level(logging.INFO):
        table = read(MontgomeryDataModule, root)
    assert table["path"].tolist() == ["CXR_png/MCUCXR_0001_0.png", "CXR_png/MCUCXR_0104_1.jpeg"]
    line = next(line for line in caplog.messages if "left out" in line)
    assert "3 files" in line
    assert "Thumbs.db" in line
    assert "mask_0001.png" in line


@pytest.mark.parametrize(
    ("module", "archive", "name"),
    [
        (MontgomeryDataModule, "MontgomerySet", "MCUCXR_0001_0.png"),
        (ShenzhenDataModule, "ChinaSet_AllFiles", "CHNCXR_0001_0.png"),
    ],
)
def test_the_archives_top_folder_may_stand_between(tmp_path, module, archive, name):
    dataset(tmp_path / archive, name)
    table = read(module, tmp_path)
    assert table["path"].tolist() == [f"{archive}/CXR_png/{name}"]
    assert table["age"].tolist() == [27]


@pytest.mark.parametrize("other", ["MCUCXR_0001_0.jpg", "MCUCXR_1_0.png"])
def test_one_number_twice_is_an_error_that_names_both_files(tmp_path, other):
    root = dataset(tmp_path, "MCUCXR_0001_0.png", other)
    with pytest.raises(DatasetError, match=rf"image 0001 is twice (?=.*{other})(?=.*MCUCXR_0001_0.png)"):
        read(MontgomeryDataModule, root)


def test_readings_without_images_are_an_error_that_says_so(tmp_path):
    reading(tmp_path, "MCUCXR_0001_0", MONTGOMERY_TEXT)
    with pytest.raises(DatasetError, match=r"no image in .*There are readings.*CXR_png/MCUCXR_0001_0.png"):
        read(MontgomeryDataModule, tmp_path)


def test_no_folder_and_an_empty_one_are_errors_that_say_what_is_expected(tmp_path):
    with pytest.raises(DatasetError, match=r"shenzhen: there is no folder .*absent.*CXR_png/CHNCXR_0001_0.png"):
        read(ShenzhenDataModule, tmp_path / "absent")
    with pytest.raises(DatasetError, match=r"is empty.*ChinaSet_AllFiles"):
        read(ShenzhenDataModule, tmp_path)


def test_the_real_readings_are_understood_as_a_later_table_has_them(real_data):
    compared = 0
    for folder in (real_data / "Montgomery", real_data / "Shenzhen"):
        known = pd.read_csv(folder / "readings.csv").set_index("file")
        for path in (folder / "ClinicalReadings").glob("*.txt"):
            sex, age = parse_reading(path.read_text())
            assert sex is not None
            assert age is not None
            if f"{path.stem}.png" in known.index:
                assert known.loc[f"{path.stem}.png", ["sex", "age"]].tolist() == [sex, age]
                compared += 1
    assert compared >= 20


def test_the_findings_of_montgomery_tell_of_the_known_repeated_patients_and_no_other(real_data):
    table = pd.read_csv(real_data / "Montgomery" / "readings.csv")
    assert len(table) == montgomery.IMAGES
    assert table["file"].str.endswith("_0.png").sum() == montgomery.NORMAL
    assert table["file"].str.endswith("_1.png").sum() == montgomery.TUBERCULOSIS
    statements = {
        file[7:11]: set(same_patient(finding, "MCUCXR"))
        for file, finding in zip(table["file"], table["finding"], strict=True)
    }
    statements = {number: others for number, others in statements.items() if others}
    assert statements == {"0117": {"0113"}, "0166": {"0162"}, "0170": {"0166", "0162"}}
    repeated = [set(group) for group in MontgomeryDataModule.repeated]
    assert all(any({number, *others} <= group for group in repeated) for number, others in statements.items())
    assert sum(map(len, repeated)) - len(repeated) == montgomery.IMAGES - montgomery.PATIENTS == len(statements)
    age = table.set_index(table["file"].str[7:11])["age"]
    assert all(age[list(group)].is_monotonic_increasing for group in MontgomeryDataModule.repeated)


def test_the_real_folders_hold_what_they_hold(real_data):
    table = read(ShenzhenDataModule, real_data / "Shenzhen")
    assert table["abnormal"].value_counts().to_dict() == {0: 15, 1: 3}
    assert table["patient_id"].is_unique
    with pytest.raises(DatasetError, match="montgomery: there is no image"):
        read(MontgomeryDataModule, real_data / "Montgomery")
