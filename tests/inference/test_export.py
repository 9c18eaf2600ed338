"""A finished run leaves as one file that computes what it does, says what it is, and is not kept where it does not."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import lungdet
from lungdet.data.sources.table import TableDataModule
from lungdet.data.store.images import RESIZES, Settings, resize
from lungdet.data.store.store import StoreError
from lungdet.errors import InputError, RunError
from lungdet.inference import export, formats
from lungdet.inference.squares import Squares
from lungdet.programs import export as program
from lungdet.runs.predictions import prediction_table
from tests.calling import CHECKOUT, call
from tests.fake_runs import write_run

SIDE = 32
LAYERS = {"backbone": {"_target_": "lungdet.models.backbone.ConvBackbone", "widths": [4, 8]}}
HEAD = {"hidden": 8, "dropout": 0.5, "task": "abnormal", "learning_rate": 0.001}
MODELS = {
    "rows": {"_target_": "lungdet.models.cnn_lstm.CNNLSTM", "layers": 1, "width": 8, "sequence": "rows"},
    "visits": {
        "_target_": "lungdet.models.cnn_lstm.CNNLSTM",
        "layers": 2,
        "width": 8,
        "sequence": "visits",
        "visits": 8,
        "gap": "age",
    },
    "shuffled": {"_target_": "lungdet.models.cnn_lstm.CNNLSTM", "layers": 1, "width": 8, "shuffle": True},
    "timm": {
        "_target_": "lungdet.models.cnn.CNN",
        "backbone": {"_target_": "lungdet.models.backbone.TimmBackbone", "name": "resnet10t"},
    },
    "length": {"_target_": "lungdet.models.length_only.LengthOnly"},
}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 20 patients with two images each, and a folder for runs of it, which nobody trained."""
    folder = tmp_path_factory.mktemp("clinic")
    generator = np.random.default_rng(0)
    names = [f"{patient}_{visit}.png" for patient in range(20) for visit in range(2)]
    for name in names:
        cv2.imwrite(str(folder / name), generator.integers(0, 256, (70, 48)).astype(np.uint8))
    columns = {"path": names, "patient_id": np.arange(40) // 2, "visit": np.arange(40) % 2}
    pd.DataFrame({**columns, "age": 50 + np.arange(40) % 2, "abnormal": np.arange(40) // 2 % 2}).to_csv(
        folder / "table.csv", index=False
    )
    return folder


def run_of(clinic: Path, name: str) -> Path:
    """A run as training leaves it, of weights that were drawn, tested on the second half of the patients."""
    folder = clinic / "runs" / name
    if folder.is_dir():
        return folder
    keys = {"image_size": SIDE, "resize": "squash", "bits": None, "visits": 8}
    places = {"table": str(clinic / "table.csv"), "store": str(clinic / "prepared")}
    data = TableDataModule(**places, **{key: keys[key] for key in ("image_size", "resize")})
    data.prepare_data()
    logit = np.random.default_rng(1).normal(size=(40, 1))
    table = prediction_table(data.store.manifest, ["abnormal"], logit)
    model = LAYERS | HEAD | MODELS[name]
    trainer = {"accelerator": "cpu", "precision": "32-true", "memory_format": "contiguous_format"}
    data_keys = {"_target_": "lungdet.data.sources.table.TableDataModule", **places, **keys}
    config = {"data": data_keys, "model": model, "trainer": trainer}
    write_run(folder, val=table[:20], test=table[20:], config=config)
    facts = json.loads((folder / "environment.json").read_text())
    described = {"fingerprint": data.store.fingerprint, "store": str(data.store.folder)}
    (folder / "environment.json").write_text(json.dumps(facts | {"data": facts["data"] | described}))
    torch.manual_seed(0)
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": instantiate(model).state_dict()}, folder / "checkpoints" / "best.ckpt")
    return folder


def content(path: Path) -> bytes:
    """What anybody can read in a file, unpacked."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"".join(map(archive.read, archive.namelist()))


def reopened(path: Path, format: str = "onnx") -> tuple[formats.Predictor, dict]:
    return formats.FORMATS[format].open(path.read_bytes())


@pytest.mark.parametrize("format", [pytest.param("onnx", marks=pytest.mark.slow), "torchscript"])
def test_a_file_of_visits_computes_what_the_run_does_and_says_what_it_is(clinic: Path, format: str) -> None:
    run = run_of(clinic, "visits")
    name = f"model{formats.FORMATS[format].suffix}"
    done = call(program, f"run={run}", f"format={format}")
    assert done.returncode == 0, done.stderr
    assert "checked on 20 test images: log-odds differ by at most" in done.stdout
    assert "This is no medical device" in done.stdout
    predict, facts = reopened(run / name, format)
    assert facts["checked"]["log_odds"] < export.TOLERANCE
    assert facts["labels"] == ["abnormal"]
    assert facts["image"] == {"size": SIDE, "resize": "squash", "bits": None, "visits": 8, "gap": "age"}
    assert facts["thresholds"]["abnormal"]["rule"] == "youden"
    assert facts["runs"][0]["split"] == lungdet.load(run).hashes[str(run)]["split"]
    assert not [*run.glob(".*")]  # one file, and nothing of its making
    for secret in (str(CHECKOUT), "site-packages", *(f"table/{patient}_" for patient in range(20))):
        assert secret.encode() not in content(run / name)
    # Three images of two patients, larger than prepared ones: the order of visits and their gap count.
    paths = [clinic / name for name in ("0_0.png", "0_1.png", "1_0.png")]
    table = pd.DataFrame({"path": paths, "patient_id": ["0", "0", "1"], "visit": [0, 1, 0], "age": [50, 51, 50]})
    own = lungdet.load(run).predict(table.astype({"path": str}))
    images = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths])[:, None]
    when = table[["age", "visit"]].to_numpy(np.float32)
    log_odds, calibrated = predict({"image": images, "length": np.array([2, 1]), "when": when})
    np.testing.assert_allclose(log_odds[:, 0], own["logit_abnormal"][[1, 2]], atol=1e-3)  # a grey level or two apart
    np.testing.assert_allclose(calibrated[:, 0], own["calibrated_abnormal"][[1, 2]], atol=1e-3)


def test_a_file_is_checked_on_noise_where_the_images_are_gone(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = lungdet.load([run_of(clinic, "rows"), run_of(clinic, "visits")])

    def gone(*_: object) -> None:
        raise StoreError("the images are no longer there")

    monkeypatch.setattr(export, "sample", gone)
    facts = export.export(model, tmp_path / "both.pt", "torchscript")
    assert (facts["checked"]["images"], facts["checked"]["log_odds"] < export.TOLERANCE) == ("noise", True)
    assert reopened(tmp_path / "both.pt", "torchscript")[1] == facts
    assert "images of noise" in export.sentences(facts, tmp_path / "both.pt")[1]
    caplog.set_level("INFO")
    export.export(model, tmp_path / "both.pt", "torchscript")
    assert f"{tmp_path}/both.pt: a file is there already, and is going to be replaced" in caplog.text
    with pytest.raises(InputError, match="int8 is set by the run's validation images, and they cannot be read"):
        export._validation(model)


def test_a_file_that_computes_something_else_is_not_kept(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = formats.FORMATS["torchscript"]

    def shifted(data: bytes) -> tuple[formats.Predictor, dict]:
        predict, facts = kind.open(data)
        return lambda inputs: tuple(output + (len(inputs["image"]) == 1) * 1e-3 for output in predict(inputs)), facts

    monkeypatch.setitem(formats.FORMATS, "torchscript", kind._replace(open=shifted))
    with pytest.raises(RunError, match=r"not written. In torchscript the log-odds of table/\S+ differ .* by 0.001"):
        export.export(lungdet.load(run_of(clinic, "rows")), tmp_path / "a.pt", "torchscript")
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_exported_is_refused_before_anything_is_written(clinic: Path, tmp_path: Path) -> None:
    done = call(program, f"run={run_of(clinic, 'rows')}", "format=tflite")
    assert done.returncode == 1
    assert "format=tflite: one of onnx, torchscript, exported is needed" in done.stderr
    model = lungdet.load(run_of(clinic, "rows"))
    for format, precision, name, message in (
        ("exported", "fp16", "a.pt2", "only format=onnx has it, and format=exported is asked for"),
        ("onnx", "fp8", "a.onnx", "precision=fp8: one of fp32, fp16, int8"),
        (
            "onnx",
            "fp32",
            "a.pt",
            r"in .onnx is needed for format=onnx; \.pt is format=torchscript, \.pt2 is format=exported$",
        ),
    ):
        with pytest.raises(InputError, match=message):
            export.export(model, tmp_path / name, format, precision)
    for name, message in (("shuffled", "an order that an image's name decides"), ("length", "sees no pixel")):
        with pytest.raises(InputError, match=f"{name}: this control .*{message}"):
            export.export(lungdet.load(run_of(clinic, name)), tmp_path / "a.pt", "torchscript")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("group", "key", "message"),
    [
        (None, "task", "config.yaml has no task; put a copy of it back"),
        ("trainer", "precision", r"config.yaml has no trainer\.precision; put"),
        ("model", "dropout", "model cannot be made of these values: .*'dropout'"),
    ],
)
def test_what_a_runs_configuration_lacks_is_named(
    clinic: Path, tmp_path: Path, group: str | None, key: str, message: str
) -> None:
    run = shutil.copytree(run_of(clinic, "rows"), tmp_path / "run")
    config = OmegaConf.load(run / "config.yaml")
    (config[group] if group else config).pop(key)
    OmegaConf.save(config, run / "config.yaml")
    with pytest.raises(InputError, match=message):
        lungdet.load(run)


@pytest.mark.parametrize("how", RESIZES)
def test_squares_are_the_stores(how: str) -> None:
    generator = np.random.default_rng(0)
    for shape in ((64, 64), (128, 128), (96, 128), (301, 257), (64, 200)):
        image = generator.integers(0, 256, shape).astype(np.uint8)
        expected = resize(image, 64, how)
        square = Squares(Settings(64, how))(torch.from_numpy(image)[None, None])[0, 0] * 255
        gap = np.abs(square.round().numpy() - expected)
        assert (gap.max() <= 1) & ((gap > 0).mean() < 0.02), shape
    small = generator.integers(0, 256, (40, 48)).astype(np.uint8)  # enlarged, in eleven bits by OpenCV
    square = Squares(Settings(64, how))(torch.from_numpy(small)[None, None])[0, 0] * 255
    assert np.abs(square.round().numpy() - resize(small, 64, how)).max() <= 1


@pytest.mark.slow
def test_every_precision_and_torch_export_and_a_timm_backbone(clinic: Path, tmp_path: Path) -> None:
    run = lungdet.load(run_of(clinic, "visits"))
    facts = export.export(run, tmp_path / "a.pt2", "exported")
    assert facts["checked"]["log_odds"] < export.TOLERANCE
    assert str(CHECKOUT).encode() not in content(tmp_path / "a.pt2")
    for precision, most in (("fp16", 0.01), ("int8", 0.5)):
        facts = export.export(run, tmp_path / f"{precision}.onnx", "onnx", precision)
        assert 0 < facts["checked"]["log_odds"] < most
        assert facts["checked"]["auroc"]["abnormal"].keys() == {"run", "file"}
    facts = export.export(lungdet.load(run_of(clinic, "timm")), tmp_path / "resnet.onnx")
    assert facts["checked"]["log_odds"] < export.TOLERANCE


@pytest.mark.slow
def test_the_consumers_example_needs_onnxruntime_alone(clinic: Path, tmp_path: Path) -> None:
    text = (CHECKOUT / "docs" / "export.md").read_text()
    [lines] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in lines.splitlines() if line.strip()]) <= 14
    run = run_of(clinic, "rows")
    export.export(lungdet.load(run), tmp_path / "model.onnx")
    (tmp_path / "radiograph.png").write_bytes((clinic / "3_0.png").read_bytes())
    scope: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(lines, scope)
    own = lungdet.load(run).predict(str(clinic / "3_0.png"))
    np.testing.assert_allclose(scope["log_odds"][0, 0], own["logit_abnormal"][0], atol=1e-3)
    assert "torch" not in lines
