"""A finished run predicts files as it predicted its own test part: in a notebook, as a program, cut and resumed."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from scipy.special import expit

import lungdet
import train
from lungdet.errors import InputError, RunError
from lungdet.evaluation.statistics import thresholds
from lungdet.evaluation.statistics.calibration import temperature
from lungdet.evaluation.statistics.metrics import ensemble
from lungdet.inference import cases, model, overlays, worklist
from lungdet.inference.explaining import join
from lungdet.inference.parts import Parts
from lungdet.programs import predict
from tests.calling import CHECKOUT, call, output
from tests.fake_runs import write_run

COLUMNS = ["image", "logit_abnormal", "probability_abnormal", "calibrated_abnormal", "decision_abnormal"]
COLUMNS += ["unlike", "flagged"]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 patients with two images each, 12 bits deep, of the same names in two folders; a bright disc is abnormal."""
    folder = tmp_path_factory.mktemp("clinic")
    generator = np.random.default_rng(0)
    rows = []
    for visit in range(2):
        (folder / f"{visit}").mkdir()
        for patient in range(24):
            image = generator.integers(0, 1300, (40, 48)).astype(np.uint16)
            if patient % 2:
                cv2.circle(image, tuple(int(c) for c in generator.integers(12, 30, 2)), 8, 4000, -1)
            cv2.imwrite(str(folder / f"{visit}/{patient}.png"), image)
            row = {"path": f"{visit}/{patient}.png", "patient_id": f"p{patient}", "visit": visit}
            rows.append({**row, "abnormal": patient % 2})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder


def trained(clinic: Path, name: str, *words: str) -> Path:
    data = ["data=table", f"data.table={clinic}/table.csv", "data.image_size=32", "data.num_workers=0"]
    paths = [f"outputs={clinic.parent}/outputs", f"hydra.run.dir={clinic.parent}/runs/{name}", "logger=csv"]
    output(train, *data, *paths, "trainer.max_epochs=1", "trainer.precision=32-true", "data.batch_size=16", *words)
    return clinic.parent / "runs" / name


@pytest.fixture(scope="module")
def single(clinic: Path) -> Path:
    return trained(clinic, "single", "model=cnn")


@pytest.fixture(scope="module")
def visits(clinic: Path) -> Path:
    return trained(clinic, "visits", "model=cnn_lstm", "model.sequence=visits", "model.hidden=16")


def own(run: Path, clinic: Path) -> tuple[pd.DataFrame, list[str]]:
    """A run's predictions of its test part, and the files that it read for them."""
    table = pd.read_parquet(run / "predictions" / "test.parquet")
    names = zip(table["patient_id"].str.removeprefix("table/p"), table["visit"], strict=True)
    return table, [str(clinic / f"{visit}/{patient}.png") for patient, visit in names]


def test_a_notebook_predicts_what_the_run_did(clinic: Path, single: Path) -> None:
    test, files = own(single, clinic)
    val = pd.read_parquet(single / "predictions" / "val.parquet")
    radiographs = lungdet.load(single)
    table = radiographs.predict(files)
    assert list(table) == COLUMNS
    assert table["image"].tolist() == files
    np.testing.assert_allclose(table["logit_abnormal"], test["logit_abnormal"], atol=1e-6)
    np.testing.assert_allclose(table["probability_abnormal"], test["probability_abnormal"], atol=1e-6)
    heat = temperature(val["target_abnormal"], val["logit_abnormal"])
    np.testing.assert_allclose(table["calibrated_abnormal"], expit(test["logit_abnormal"] / heat), atol=1e-6)
    chosen = thresholds.choose(val["target_abnormal"], val["logit_abnormal"], "youden")
    assert table["decision_abnormal"].tolist() == (test["logit_abnormal"] > chosen.logit).astype(int).tolist()
    assert radiographs.settings.bits == 12
    assert radiographs.device
    arrays = [cv2.imread(file, cv2.IMREAD_UNCHANGED) for file in files]
    pd.testing.assert_frame_equal(radiographs.predict(arrays)[COLUMNS[1:]], table[COLUMNS[1:]])


@pytest.mark.parametrize("document", ["README.md", "docs/predict.md"])
def test_a_documents_three_lines_run(
    single: Path, clinic: Path, document: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (CHECKOUT / document).read_text()
    lines = text.split("```python\n")[1].split("```")[0]
    assert len([line for line in lines.splitlines() if line]) == 3
    monkeypatch.chdir(clinic)
    scope: dict = {}
    exec(lines.replace('"RUN"', repr(str(single))).replace("a.png", "0/1.png").replace("b.png", "1/1.png"), scope)
    assert len(scope["table"]) == 2


def test_the_stored_thresholds_decide_or_the_one_that_is_given(clinic: Path, single: Path) -> None:
    files = own(single, clinic)[1]
    thresholds.save({"abnormal": thresholds.Threshold(-50.0, "sensitivity", 0.95, 9)}, single)
    assert lungdet.load(single).predict(files)["decision_abnormal"].eq(1).all()
    middle = lungdet.load(single).predict(files)["probability_abnormal"].median()
    assert lungdet.load(single, threshold=float(middle)).predict(files)["decision_abnormal"].sum() == len(files) // 2
    (single / "thresholds.json").unlink()
    with pytest.raises(InputError, match="threshold=2: a probability between 0 and 1"):
        lungdet.load(single, threshold=2)


def test_several_runs_are_averaged_and_read_the_visits_that_a_table_tells(
    clinic: Path, single: Path, visits: Path
) -> None:
    both = lungdet.load([single, visits])
    table = pd.read_csv(clinic / "table.csv", dtype=str)
    table["path"] = [str(clinic / path) for path in table["path"]]
    members = [own(run, clinic) for run in (single, visits)]
    assert members[0][1] == members[1][1]
    mean = ensemble(np.stack([member[0]["logit_abnormal"] for member in members]))
    predicted = both.predict(table.iloc[::-1]).set_index("image").loc[members[0][1]]
    np.testing.assert_allclose(predicted["logit_abnormal"], mean, atol=1e-6)
    with pytest.raises(InputError, match="reads a patient's visits, so whose each image is has to be known"):
        both.predict(members[0][1])
    with pytest.raises(RunError, match="named twice"):
        lungdet.load([single, single])


def test_a_worklist_is_ranked_lists_what_cannot_be_read_and_goes_on_where_it_was_cut(
    clinic: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clinic / "0" / "cut.png").write_bytes((clinic / "0" / "1.png").read_bytes()[:200])
    (clinic / "0" / "deep.tif").write_bytes(
        cv2.imencode(".tif", np.full((9, 9), 5000, np.uint16) + np.eye(9, dtype="u2"))[1]
    )
    monkeypatch.setattr(model, "PIECE", 16)
    out, words = tmp_path / "list.csv", [f"run={single}", f"images={clinic}", f"out={tmp_path}/list.csv"]
    written, write = [], worklist.Parts.write

    def cut(parts: worklist.Parts, number: int, piece: pd.DataFrame) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        write(parts, number, piece)

    with monkeypatch.context() as patch:
        patch.setattr(worklist.Parts, "write", cut)
        assert call(predict, *words, "batch_size=16").returncode == 130
    assert not out.exists()
    refused = call(predict, *words, "batch_size=8")
    assert "holds parts of predictions that were cut, with other batch_size" in refused.stderr
    with FileLock(tmp_path / ".list.csv.lock"):
        refused = call(predict, *words, "batch_size=16")
    assert f"out={tmp_path}/list.csv: another process is writing it" in refused.stderr
    done = call(predict, *words, "batch_size=16")
    assert done.returncode == predict.SOME_UNREADABLE, done.stderr
    assert "going on: 32 of 50 images done" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"list.csv", "list.csv.excluded.csv"}
    excluded = pd.read_csv(tmp_path / "list.csv.excluded.csv")
    assert excluded["image"].tolist() == [f"{clinic}/0/cut.png", f"{clinic}/0/deep.tif"]
    assert excluded["reason"][1] == "a value of 5001 does not fit bits=12; bits=13 reads all so deep"

    table = pd.read_csv(out)
    assert list(table) == ["rank", *COLUMNS]
    assert table["rank"].tolist() == [*range(1, 49)]
    assert table["logit_abnormal"].is_monotonic_decreasing
    assert {*table["image"]} == {f"{clinic}/{visit}/{patient}.png" for visit in range(2) for patient in range(24)}
    test, files = own(single, clinic)
    np.testing.assert_allclose(table.set_index("image").loc[files, "logit_abnormal"], test["logit_abnormal"], atol=1e-6)

    names = [str(Path(file).relative_to(clinic)) for file in files]
    (clinic / "some.txt").write_text("\n".join(names))
    done = call(predict, f"run={single}", f"images={clinic}/some.txt", f"out={tmp_path}/some.parquet")
    assert done.returncode == 0, done.stderr
    listed = pd.read_parquet(tmp_path / "some.parquet").set_index("image").loc[names]
    np.testing.assert_allclose(listed["logit_abnormal"], test["logit_abnormal"], atol=1e-6)
    for path in ("0/cut.png", "0/deep.tif", "some.txt"):
        (clinic / path).unlink()


def test_a_worklist_is_one_processs_until_its_parts_are_removed_and_the_lock_with_them(tmp_path: Path) -> None:
    out = tmp_path / "list.csv"
    with Parts.locked(out, {}) as parts:
        parts.remove()
        with pytest.raises(InputError, match="another process is writing it"), Parts.locked(out, {}):
            pass
    assert [*tmp_path.iterdir()] == []


def test_parts_that_are_damaged_are_named(tmp_path: Path) -> None:
    (tmp_path / "000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"000000\.parquet is damaged .* delete it, and its images"):
        Parts(tmp_path, {"run": 1}).finished(0)
    for text in ('{"run', "[]"):
        (tmp_path / "request.json").write_text(text)
        with pytest.raises(InputError, match=r"request\.json is damaged .* delete its folder"):
            Parts(tmp_path, {"run": 1})


def test_images_unlike_the_runs_own_are_flagged_and_nothing_is_where_no_reference_is_kept(
    clinic: Path, single: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = own(single, clinic)[1][0]
    like = cv2.imread(file, cv2.IMREAD_UNCHANGED)
    half = like.copy()
    half[:, 24:] = 0
    radiographs = lungdet.load(single)
    table = radiographs.predict([like, 4095 - like, half])
    assert table["flagged"].tolist() == [0, 1, 1]
    assert (table["unlike"] > 1).tolist() == [False, True, True]
    assert "2 of 3 images flagged: unlike those that the run knows" in caplog.text
    cv2.imwrite(str(tmp_path / "inverted.png"), 4095 - like)
    done = call(predict, f"run={single}", f"images={tmp_path}/inverted.png", f"out={tmp_path}/list.csv")
    assert "1 of 1 images flagged: unlike" in done.stdout
    kept = single / "reference.npz"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:300])
    with pytest.raises(RunError, match=r"reference\.npz is damaged"):
        lungdet.load(single)
    kept.unlink()
    table = lungdet.load(single).predict([4095 - like])
    kept.write_bytes(whole)
    assert table[["unlike", "flagged"]].isna().all(axis=None)
    assert "no reference.npz in" in caplog.text


def test_what_cannot_be_asked_is_one_line_and_leaves_nothing(
    clinic: Path, single: Path, visits: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    unfinished = write_run(tmp_path / "unfinished", finished=False)
    before = {*tmp_path.iterdir()}

    def refusal(*words: object) -> str:
        done = call(predict, *words)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        return line

    asked = [f"images={clinic}", f"out={tmp_path}/out/list.csv"]
    line = refusal(f"run={unfinished}", *asked)
    assert "the run is not finished; finish it with: " in line
    assert line.endswith(f" train resume={unfinished}")
    assert "whose each image is has to be known: give a table" in refusal(f"run={visits}", *asked)
    assert "out: give out=FILE.csv" in refusal(f"run={single}", f"images={clinic}")
    radiographs = lungdet.load(single)
    for images, out, message in (
        (tmp_path / "empty", "out/list.csv", "no image in this folder"),
        (tmp_path / "nix", "out/list.csv", "there is no such file or folder"),
        (clinic, "out/list.xls", "a name that ends in .csv or .parquet is needed"),
        (clinic, "/proc/x/list.csv", "out=/proc/x/list.csv: nothing can be written in /proc"),
    ):
        with pytest.raises(InputError, match=message):
            worklist.write(radiographs, images, tmp_path / out)
    assert {*tmp_path.iterdir()} == before


def test_lungdet_is_imported_and_a_forgotten_key_answered_without_torch() -> None:
    program = """import sys, lungdet, lungdet.cli
assert not {"torch", "pandas"} & {*sys.modules}
sys.argv = ["lungdet", "predict", "run=A", "images=B"]
try:
    lungdet.cli.main()
except SystemExit as end:
    assert "torch" not in sys.modules
    sys.exit(end.code)"""
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, check=False, capture_output=True, text=True)
    assert done.stderr.strip() == "lungdet predict: out: give out=FILE.csv"


def test_a_table_is_told_where_it_cannot_be_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.eye(9, dtype=np.uint8))

    def read(*lines: str) -> pd.DataFrame:
        (tmp_path / "t.csv").write_text("\n".join(lines))
        return cases.read(tmp_path / "t.csv", series=True)

    for lines, message in (
        (["file", "a.png"], "no column path; there are file"),
        (["path,patient_id", ",1"], "line 2, column path: a path is needed"),
        (["path,patient_id", "a.png,1", "./a.png,2"], "./a.png stands there more than once"),
        (["path,patient_id", "b.png,1"], "none of its 1 images is there"),
        (["path,patient_id", "a.png,unknown"], "a.png: patient_id 'unknown' names nobody"),
        (["path,patient_id,visit", "a.png,1,first"], "a.png: visit 'first'; a number"),
        (["path,patient_id,visit", "a.png,1,2", "b.png,1,2"], "b.png: visit '2'; a number is needed that no other"),
    ):
        with pytest.raises(InputError, match=message.replace(".", r"\.")):
            read(*lines)
    table = read("path,patient_id,visit,age", "a.png,1,7,40", "b.png,2,1,", "c.png,1,3,39")
    assert table["visit"].tolist() == [1, 0, 0]
    [piece] = cases.pieces(table, 3)
    assert piece["image_id"].tolist() == ["c.png", "a.png", "b.png"]
    assert [len(piece) for piece in cases.pieces(table, 1)] == [2, 1]  # a patient's images stay together


def listed(clinic: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Three of the images, and the words that ask for a worklist of them, `list.csv`."""
    files = [str(clinic / "0" / f"{patient}.png") for patient in (3, 1, 2)]
    (folder / "list.txt").write_text("\n".join(files))
    return files, [f"images={folder}/list.txt", f"out={folder}/list.csv"]


def test_overlays_go_on_where_they_were_cut_and_a_notebook_gets_the_same_maps(
    clinic: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, asked = listed(clinic, tmp_path)
    words = [f"run={single}", *asked, "overlays=hirescam"]
    pictures, stale = tmp_path / "list.csv.overlays", tmp_path / "list.csv.overlays" / "1-of_another_run.png"
    pictures.mkdir()
    stale.touch()
    drawn, draw = [], overlays.png

    def cut(picture: np.ndarray) -> bytes:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(picture)
        return draw(picture)

    with monkeypatch.context() as patch:
        patch.setattr(overlays, "png", cut)
        assert call(predict, *words).returncode == 130
    assert not pictures.exists()
    assert "with other overlays" in call(predict, *words[:3]).stderr
    with monkeypatch.context() as patch:
        patch.setattr(model.Model, "stream", None)
        assert "going on: 2 of 3 overlays drawn" in output(predict, *words)
    ranked = pd.read_csv(tmp_path / "list.csv")
    names = [f"{rank}-{Path(image).stem}.png" for rank, image in zip(ranked["rank"], ranked["image"], strict=True)]
    assert sorted(path.name for path in pictures.iterdir()) == sorted(names)
    loaded = lungdet.load(single)
    explanation = loaded.explain([*files, clinic / "0" / "cut.png"], method="hirescam")
    assert explanation.image.tolist() == files
    assert list(explanation.excluded) == [str(clinic / "0" / "cut.png")]
    assert explanation.maps.shape == explanation.pixels.shape == (3, 32, 32)
    assert set(explanation.maps.max(axis=(1, 2))) <= {0, 1}
    picture = cv2.imread(str(pictures / names[0]))[..., ::-1]
    np.testing.assert_array_equal(picture, explanation.overlay(files.index(ranked["image"][0])))


def test_series_and_several_runs_are_explained_and_a_documents_lines_run(
    clinic: Path, single: Path, visits: Path
) -> None:
    table = pd.read_csv(clinic / "table.csv", dtype=str)[18:30]
    table["path"] = [str(clinic / path) for path in table["path"]]
    series = lungdet.load(visits).explain(table[::-1])
    assert series.image.tolist() == table["path"].tolist()[::-1]
    assert series.weights.shape == (12, 8)
    assert series.overlay(0).shape == (320 + 45, 320, 3)
    unreadable = series.of(np.arange(0))._replace(weights=None)  # a piece of which no image can be read
    assert join([series, unreadable]).weights.shape == join([unreadable, series]).weights.shape == (12, 8)
    assert lungdet.load([single, visits]).explain(table).weights is None
    scope: dict = {}
    lines = (CHECKOUT / "docs" / "explain.md").read_text().split("```python\n")[1].split("```")[0]
    files = str(table["path"].tolist()[:2])[1:-1]
    exec(lines.replace('"RUN"', repr(str(single))).replace('"a.png", "b.png"', files), scope)
    assert scope["picture"].shape == (320, 320, 3)


def test_overlays_are_of_one_worklist_and_no_images_of_another(clinic: Path, single: Path, tmp_path: Path) -> None:
    run, image = f"run={single}", clinic / "0" / "3.png"
    for name in ("scans", "drawn.csv.overlays", "scans/earlier.csv.partial/overlays"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(image, tmp_path / name / "a.png")
    for _ in range(2):
        log = output(predict, run, f"images={tmp_path}/scans", f"out={tmp_path}/scans/w.csv", "overlays=gradcam")
        assert f"{tmp_path}/scans: left out, pictures of worklists: earlier.csv.partial" in log
        assert pd.read_csv(tmp_path / "scans" / "w.csv")["image"].tolist() == [str(tmp_path / "scans" / "a.png")]
    for images in (tmp_path / "drawn.csv.overlays", tmp_path / "drawn.csv.overlays" / "a.png"):
        inside = call(predict, run, f"images={images}", f"out={tmp_path}/drawn.csv")
        assert "drawn.csv.overlays, which goes when" in inside.stderr
        assert (tmp_path / "drawn.csv.overlays" / "a.png").exists()
    (tmp_path / "scans" / "w.csv.overlays" / "notes.txt").touch()
    foreign = call(predict, run, f"images={tmp_path}/scans", f"out={tmp_path}/scans/w.csv")
    assert "notes.txt in there is no picture of a worklist; move it away" in foreign.stderr
    assert (tmp_path / "scans" / "w.csv.overlays" / "notes.txt").exists()
    (tmp_path / "0001").write_bytes(image.read_bytes())
    (tmp_path / "numbers.txt").write_text("0001")
    numbers = [run, f"images={tmp_path}/numbers.txt", f"out={tmp_path}/n.csv"]
    output(predict, *numbers, "overlays=gradcam")
    assert [path.name for path in (tmp_path / "n.csv.overlays").iterdir()] == ["1-0001.png"]
    again = output(predict, *numbers)  # whose ranks the pictures of another command do not tell
    assert "n.csv: a file is there already, and is going to be replaced" in again
    assert not (tmp_path / "n.csv.overlays").exists()


def test_overlays_that_cannot_be_drawn_are_refused_before_anything_is_predicted(
    clinic: Path, single: Path, tmp_path: Path
) -> None:
    words = [f"run={single}", *listed(clinic, tmp_path)[1], "overlays=hirescam"]
    several = call(predict, *words[:3], "overlays=[gradcam,occlusion]")
    assert "overlays=['gradcam', 'occlusion']: one of gradcam, hirescam" in several.stderr
    refused = call(predict, *words, "label=nodule", f"out={tmp_path}/other.csv")
    assert "label=nodule: these runs predict abnormal" in refused.stderr
    idle = call(predict, *words, "overlays=null", "label=abnormal", f"out={tmp_path}/other.csv")
    assert "label=abnormal: says what overlays are about; give one of overlays=gradcam, hirescam" in idle.stderr
    folder = call(predict, *words[:3], f"overlays={tmp_path}/heat", f"out={tmp_path}/other.csv")
    assert (
        f"heat: one of gradcam, hirescam, integrated_gradients, occlusion is needed; the pictures go into {tmp_path}"
        in (folder.stderr)
    )
    (tmp_path / "other.csv.overlays").touch()
    occupied = call(predict, *words, f"out={tmp_path}/other.csv")
    assert "other.csv.overlays, which is no folder; name another out" in occupied.stderr
    assert not (tmp_path / "other.csv").exists()
    (tmp_path / "0001.csv").write_text("path\n0001\n")
    own = call(predict, words[0], f"images={tmp_path}/0001.csv", f"out={tmp_path}/../{tmp_path.name}/0001.csv")
    assert "0001.csv is the table of images; name another file" in own.stderr
