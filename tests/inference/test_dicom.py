"""Real radiographs, DICOM, from a folder to a worklist: the same numbers as from exported PNG, and nobody is named."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import lungdet
import train
from lungdet.data.store.images import read_grey
from lungdet.programs import check, predict
from tests.calling import call, output
from tests.dicom_files import NATIVE, PERSON, write

PATIENTS = 20


def identifying(patient: int) -> dict[str, str]:
    return PERSON | {"PatientID": f"QX-4711-{patient}", "PatientName": f"Zzyzx{patient}^Quagmire"}


@pytest.fixture
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 patients of two visits, in every syntax that pydicom writes; names of files say nothing, and not the order."""
    folder, generator = tmp_path_factory.mktemp("clinic") / "dicom", np.random.default_rng(0)
    for number in range(2 * PATIENTS):
        patient, later = number % PATIENTS, number < PATIENTS  # the later visit comes first
        image = generator.integers(0, 1300, (40, 48)).astype(np.uint16)
        if patient % 2:
            cv2.circle(image, tuple(int(c) for c in generator.integers(12, 30, 2)), 8, 3000, -1)
        tags = identifying(patient) | {
            "StudyDate": "20190823" if later else "20180402", "PatientAge": f"{40 + later:03d}Y", "BitsStored": 12,
            "PatientSex": "F", "WindowCenter": 1500, "WindowWidth": 2800,
            "PhotometricInterpretation": f"MONOCHROME{1 + number % 2}",
        }  # fmt: skip
        if number % 2 == 0:
            image = 4095 - image
            tags["WindowCenter"] = 4095 - 1500
        write(
            folder / ("abnormal" if patient % 2 else "normal") / f"1.2.{number}", image, [*NATIVE][number % 6], **tags
        )
    write(folder / "normal" / "side.dcm", image, **identifying(0), ViewPosition="LATERAL")
    return folder


def trained(clinic: Path) -> tuple[Path, str]:
    """A run that reads visits, and what it printed."""
    data = ["data=folder", f"data.root={clinic}", "data.image_size=32", "data.num_workers=0", "data.batch_size=16"]
    model = ["model=cnn_lstm", "model.sequence=visits", "model.hidden=16", "trainer.max_epochs=1"]
    where = [f"outputs={clinic.parent}/outputs", f"hydra.run.dir={clinic.parent}/run", "logger=csv"]
    return clinic.parent / "run", output(train, *data, *model, "trainer.precision=32-true", *where)


def test_dicom_is_trained_on_and_predicted_as_the_exported_png_and_nobody_is_named(
    clinic: Path, tmp_path: Path
) -> None:
    run, log = trained(clinic)
    test = pd.read_parquet(run / "predictions" / "test.parquet")
    assert "41 DICOM files of 20 patients" in log
    assert "1 of 41 images cannot be used" in log
    assert "normal/side.dcm: (0018,5101) ViewPosition LATERAL: no frontal view" in log
    assert (test.groupby("patient_id")["visit"].agg(["min", "max"]) == [0, 1]).all(axis=None)
    assert {*test["sex"]} == {"F"}
    assert (test["age"] == 40 + test["visit"]).all()

    done = call(predict, f"run={run}", f"images={clinic}", f"out={tmp_path}/list.csv", cwd=tmp_path)
    assert done.returncode == predict.SOME_UNREADABLE, done.stderr
    worklist = pd.read_csv(tmp_path / "list.csv").set_index("image")
    files = [str(clinic / name.removeprefix("folder/")) for name in test["image_id"]]
    np.testing.assert_allclose(worklist.loc[files, "logit_abnormal"], test["logit_abnormal"], atol=1e-6)

    exported = [str(tmp_path / f"{number}.png") for number in range(len(files))]
    for file, path in zip(files, exported, strict=True):
        Image.fromarray(read_grey(Path(file))).save(path)
    table = test[["patient_id", "visit", "age"]].assign(path=exported)
    png = lungdet.load(run).predict(table)
    np.testing.assert_allclose(png["logit_abnormal"], test["logit_abnormal"], atol=1e-6)

    words = ["data=folder", f"data.root={clinic}", "data.image_size=32", f"outputs={clinic.parent}/outputs"]
    (tmp_path / "log.txt").write_text(log + done.stdout + done.stderr + output(check, *words, f"out={tmp_path}/check"))
    require_nobody_named(
        [*tmp_path.rglob("*"), *(path for path in clinic.parent.rglob("*") if clinic not in path.parents)]
    )


def require_nobody_named(paths: list[Path]) -> None:
    """Of no patient anything stands in anything that was written."""
    files = [path for path in paths if path.is_file()]
    assert {"images.npy", "manifest.parquet", "excluded.csv", "best.ckpt", "check.html", "list.csv"} <= {
        path.name for path in files
    }
    for path in files:
        content = pd.read_parquet(path).to_csv().encode() if path.suffix == ".parquet" else path.read_bytes()
        for value in (*PERSON.values(), "QX-4711", "Zzyzx", "Quagmire", "20180402", "2019-08-23", "2018-04-02"):
            assert value.encode() not in content, path
