"""Phantoms: what they promise about their pixels, their labels and their files."""

import dataclasses
import itertools
import json
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lungdet.data.phantoms import files as phantom_files
from lungdet.data.phantoms.cohort import Knobs, cohort
from lungdet.data.phantoms.files import FOLDERS, draw, generate, name_of
from lungdet.data.phantoms.lesions import FINDINGS
from lungdet.data.sources.combined import SOURCES
from lungdet.data.sources.phantom import PhantomDataModule
from lungdet.data.store import images
from lungdet.errors import InputError
from tests.calling import CHECKOUT

CONF = CHECKOUT / "conf"
FEW = {"chestxray14": 12, "montgomery": 8, "shenzhen": 8}


def knobs(**changes) -> Knobs:
    return Knobs(**({"patients": FEW, "size": 64} | changes))


def module(root: Path, loading: dict | None = None, **changes) -> PhantomDataModule:
    settings = dataclasses.asdict(knobs(**changes))
    settings["phantom_seed"] = settings.pop("seed")
    return PhantomDataModule(root, **settings, **(loading or {}))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms of `knobs()`, to be read; beside them more may be made."""
    return generate(tmp_path_factory.mktemp("few"), knobs())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def truth_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "truth.csv")


def thumbnails(folder: Path, truth: pd.DataFrame, side: int) -> np.ndarray:
    files = {p.stem: p for p in folder.glob("*/*/*.png") if p.parent.parent.name != "masks"}
    settings = images.Settings(size=side)
    squares = []
    for name in truth["image"]:
        pixels, _ = images.read_square(files[name], settings)
        squares.append(pixels / (4095 if pixels.dtype == np.uint16 else 255))
    return np.array(squares, np.float32)


def test_same_knobs_give_same_bytes_whatever_the_workers(tmp_path, few, monkeypatch):
    monkeypatch.setattr(phantom_files.hardware, "cores", lambda: 1)
    assert contents(generate(tmp_path, knobs())) == contents(few)
    other = generate(tmp_path, knobs(seed=1))
    same = contents(few).items() & contents(other).items()
    assert not [name for name, _ in same if name.endswith(".png")]


@pytest.mark.parametrize("source", SOURCES)
def test_the_real_readers_read_them(few, source):
    truth = truth_of(few).query("source == @source").set_index("image")
    manifest = SOURCES[source](few / FOLDERS[source]).read()
    manifest.index = manifest["image_id"].str.split("/").str[1]
    assert set(manifest.index) == set(truth.index)
    truth = truth.loc[manifest.index]
    assert (manifest["abnormal"] == truth["label"]).all()
    assert (manifest["visit"] == truth["visit"]).all()
    assert manifest["age"].between(10, 100).all()
    assert manifest["sex"].isin(["F", "M"]).all()
    for finding in FINDINGS:
        if source == "chestxray14" and finding != "tuberculosis":
            assert (manifest[finding] == (truth[finding] > 0)).all(), finding
    sizes = set()
    for path in manifest["path"]:
        pixels = images.read_grey(few / FOLDERS[source] / path)
        assert pixels.dtype == (np.uint16 if source == "montgomery" else np.uint8)
        assert pixels.max() <= (4095 if source == "montgomery" else 255)
        sizes.add(pixels.shape)
    assert (len(sizes) == 1) == (source == "chestxray14")


def test_official_lists_part_patients(few):
    lists = SOURCES["chestxray14"](few / FOLDERS["chestxray14"]).official()
    patients = lists.groupby(lists.index.str.split("/").str[1].str[:8]).nunique()
    assert set(lists) == {"train_val", "test"}
    assert (patients == 1).all()


def test_names_say_that_they_are_phantoms(few):
    data = module(few.parent)
    manifest = data.read()
    for column in ("image_id", "dataset", "patient_id"):
        assert manifest[column].str.startswith("phantom-").all()
    assert set(manifest["dataset"]) == set(data.roots())
    for row in manifest.itertuples():
        assert (data.roots()[row.dataset] / row.path).is_file()


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_mask_holds_what_its_finding_changes(finding):
    settings = knobs(size=256, patients={"chestxray14": 3})
    ratios, areas = [], []
    for case, severity in itertools.product(cohort(settings), (0.3, 0.9)):
        visit = case.visits[0]._replace(severity={finding: severity})
        ill, masks = draw(case, visit, settings)
        healthy, none = draw(case, visit._replace(severity={}), settings)
        difference = np.abs(ill.astype(float) - healthy)
        assert none == {}
        assert list(masks) == [finding]
        mask = masks[finding]
        assert 0 < mask.mean() < 0.3
        ratios.append(difference[mask].mean() / difference[~mask].mean())
        areas.append(mask.sum())
    assert np.median(ratios) > 10, ratios
    assert min(ratios) > 4, ratios
    assert np.mean(areas[1::2]) > np.mean(areas[::2])


def test_masks_are_written_for_what_is_drawn(tmp_path, few):
    truth = truth_of(few)
    drawn = {f"{row['image']}_{f}" for _, row in truth.iterrows() for f in FINDINGS if row[f] > 0}
    assert drawn == {path.stem for path in few.glob("masks/*/*.png")}
    mask = cv2.imread(str(next(few.glob("masks/*/*.png"))), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) == {0, 255}
    assert not list(generate(tmp_path, knobs(masks=False, patients={"chestxray14": 4})).glob("masks/*/*.png"))


def test_prevalence_is_the_same_in_every_source_and_visit():
    cases = list(cohort(knobs(patients={"chestxray14": 2000, "montgomery": 100, "shenzhen": 300}, prevalence=0.3)))
    for source in SOURCES:
        labels = [v.label for c in cases if c.source == source for v in c.visits]
        assert np.mean(labels) == pytest.approx(0.3, abs=0.02), source
    for k in range(4):
        labels = [c.visits[k].label for c in cases if len(c.visits) > k]
        assert np.mean(labels) == pytest.approx(0.3, abs=0.05 if k else 0.01), k


def trivial(pixels: np.ndarray, truth: pd.DataFrame, splits: int = 8) -> tuple[float, float]:
    """AUROC on held-out patients, mean over splits: of brightness, and of the pixel that was best in training.

    One split alone holds so few patients that its AUROC may pass .6 by chance.
    """
    flat = pixels.reshape(len(pixels), -1)
    whole = np.rint(flat * 65535).astype(np.uint16)  # whole numbers are sorted several times as fast
    levels = np.percentile(flat, [1, 5, 10, 25, 50, 75, 90, 95, 99], axis=1).T
    brightness = np.column_stack([flat.mean(1), flat.std(1), levels])
    patient, label = truth["source"] + truth["patient"].astype(str), truth["label"].to_numpy()
    bright, pixel = [], []
    for seed in range(splits):
        chosen = np.random.default_rng(seed).permutation(patient.unique())
        test = patient.isin(chosen[: len(chosen) // 3]).to_numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(brightness[~test], label[~test])
        bright.append(roc_auc_score(label[test], model.predict_proba(brightness[test])[:, 1]))
        ill = label[~test] == 1
        order = ill[np.argsort(whole[~test], axis=0, kind="stable")]  # whether ill, from the darkest pixel on
        ranks = np.arange(len(ill), dtype=np.float32) @ order
        score = (ranks / ill.sum() - (ill.sum() - 1) / 2) / (~ill).sum() - 0.5
        best = np.abs(score).argmax()
        pixel.append(roc_auc_score(label[test], np.sign(score[best]) * flat[test, best]))
    return float(np.mean(bright)), float(np.mean(pixel))


DIFFICULTIES = DEMO, USUAL = (0.0, 0.2)
"""The demo's (conf/experiment/demo.yaml) and the usual one."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "size", "difficulty"),
    [
        (0, 64, DEMO),  # where lesions show most, brightness would tell most
        (0, 64, USUAL),
        pytest.param(1, 256, DEMO, id="other people at full size"),
        pytest.param(1, 256, USUAL, id="other people at full size, usual"),
    ],
)
def test_neither_brightness_nor_a_pixel_tells_the_label(tmp_path, seed, size, difficulty):
    patients = {"chestxray14": 200, "montgomery": 80, "shenzhen": 120}
    folder = generate(tmp_path, Knobs(patients, size=size, masks=False, difficulty=difficulty, seed=seed))
    truth = truth_of(folder)
    bright, pixel = trivial(thumbnails(folder, truth, 64), truth)
    assert bright < 0.6
    assert pixel < 0.6


def test_order_twins_show_the_same_pictures_in_opposite_orders(tmp_path):
    settings = knobs(signal="order", series=6, patients={"chestxray14": 20, "montgomery": 6})
    folder = generate(tmp_path, settings)
    truth = truth_of(folder)
    bytes_of = {p.stem: p.read_bytes() for p in folder.glob("*/images/*.png")}
    pictures, last = {0: Counter(), 1: Counter()}, {0: Counter(), 1: Counter()}
    for _, twins in truth.groupby(["source", "chest"]):
        labels = set()
        for _, series in twins.groupby("patient"):
            assert 4 <= len(series) <= 6
            assert series["label"].iloc[:-1].isna().all()
            label = int(series["label"].iloc[-1])
            labels.add(label)
            pictures[label].update(bytes_of[name] for name in series["image"])
            last[label][bytes_of[series["image"].iloc[-1]]] += 1
            steps = np.diff(series["effusion"].iloc[:-1])
            assert (steps > 0).all() if label else (steps < 0).all()
        assert labels == {0, 1}
    assert pictures[0] == pictures[1]
    assert last[0] == last[1]


def test_order_splits_never_part_twins(tmp_path):
    loading = {"image_size": 32, "store": tmp_path / "store", "num_workers": 0}
    data = module(tmp_path, loading, signal="order", patients={"chestxray14": 20, "shenzhen": 10})
    data.setup()
    labelled = data.manifest[data.manifest["abnormal"].notna()]
    assert len(labelled) == labelled["patient_id"].nunique() == 30
    part = data.split.table.set_index("image_id")["split"]
    number = labelled["patient_id"].str.extract(r"(\d+)$")[0].astype(int)
    pair = labelled["dataset"] + ((number + 1) // 2).astype(str)
    twins = labelled.assign(part=labelled["image_id"].map(part)).groupby(pair)
    assert (twins["part"].nunique() == 1).all()
    assert (twins["abnormal"].sum() == 1).all()
    assert set(part) == {"train", "val", "test"}


def test_a_limit_that_would_part_twins_is_refused(tmp_path):
    loading = {"image_size": 32, "store": tmp_path / "store", "limit": 10}
    with pytest.raises(InputError, match=r"data\.limit=10: .* twins"):
        module(tmp_path, loading, signal="order")
    module(tmp_path, loading)
    module(tmp_path, loading | {"limit": None}, signal="order")


def test_a_seed_below_zero_and_a_size_beyond_any_memory_are_refused_by_their_keys():
    with pytest.raises(InputError, match=r"data\.phantom_seed=-1: a whole number, at least 0"):
        Knobs(seed=-1)
    with pytest.raises(InputError, match=r"data\.size=1000000: 64 pixels"):
        Knobs(size=1_000_000)


def test_with_order_as_the_signal_there_are_as_many_patients_as_asked():
    cases = Counter(case.source for case in cohort(knobs(signal="order")))
    assert cases == FEW


@pytest.mark.parametrize(("strength", "low", "high"), [(0.0, 0.45, 0.55), (0.5, 0.65, 0.85), (1.0, 1.0, 1.0)])
def test_shortcut_predicts_the_label_as_surely_as_asked(strength, low, high):
    visits = [v for c in cohort(knobs(shortcut=strength, patients={"chestxray14": 1000})) for v in c.visits]
    auroc = roc_auc_score([v.label for v in visits], [v.artefact for v in visits])
    assert low <= auroc <= high


def test_the_artefact_shows():
    settings = knobs()
    case = next(cohort(settings))
    with_it, without = (draw(case, case.visits[0]._replace(artefact=a), settings)[0] for a in (True, False))
    assert (with_it[:, :2] == 0).all()
    assert not (without[:, :2] == 0).all()
    assert (with_it != without).mean() < 0.1


def test_without_a_signal_labels_are_given_and_nothing_is_drawn():
    none, findings = (list(cohort(knobs(signal=signal))) for signal in ("none", "findings"))
    assert not any(visit.severity for case in none for visit in case.visits)
    assert [v.label for c in none for v in c.visits] == [v.label for c in findings for v in c.visits]
    healthy = next(c for c in findings if not c.visits[0].severity)
    twin = next(c for c in none if (c.source, c.number) == (healthy.source, healthy.number))
    settings = knobs(signal="none")
    assert np.array_equal(draw(healthy, healthy.visits[0], knobs())[0], draw(twin, twin.visits[0], settings)[0])


def test_label_noise_turns_that_share_of_labels():
    visits = [v for c in cohort(knobs(label_noise=0.2, patients={"chestxray14": 1500})) for v in c.visits]
    assert np.mean([v.label != bool(v.severity) for v in visits]) == pytest.approx(0.2, abs=0.03)
    assert all(bool(v.tags) == v.label for v in visits)


def test_difficulty_weakens_what_is_drawn():
    def change(difficulty: float) -> float:
        settings = knobs(size=128, difficulty=difficulty)
        case = next(cohort(settings))
        visit = case.visits[0]._replace(severity={"mass": 0.5})
        ill, healthy = draw(case, visit, settings)[0], draw(case, visit._replace(severity={}), settings)[0]
        return float(np.abs(ill.astype(float) - healthy).mean())

    assert change(0.0) > 1.5 * change(0.6) > 0
    assert change(1.0) == 0


def test_an_interrupted_generation_leaves_nothing_that_passes_for_whole(tmp_path, monkeypatch, few):
    drawn = itertools.count()
    whole = phantom_files._draw_case

    def interrupted(*args):
        if next(drawn) == 5:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(phantom_files.hardware, "cores", lambda: 1)
    monkeypatch.setattr(phantom_files, "_draw_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, knobs())
    assert not (tmp_path / name_of(knobs())).exists()
    monkeypatch.undo()
    assert contents(generate(tmp_path, knobs())) == contents(few)


def test_same_settings_are_reused_and_others_made_anew(monkeypatch, few):
    assert json.loads((few / "settings.json").read_text())["size"] == 64
    assert generate(few.parent, knobs(difficulty=0.9)) != few
    monkeypatch.setattr(phantom_files, "_draw_all", lambda *_: pytest.fail("drawn again"))
    assert generate(few.parent, knobs()) == few


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"patients": {"kaohsiung": 3}}, "patients"),
        ({"patients": {"shenzhen": 0}}, "patients"),
        ({"prevalence": 1.2}, "prevalence"),
        ({"difficulty": -1}, "difficulty"),
        ({"label_noise": 0.7}, "label_noise"),
        ({"signal": "sound"}, "signal"),
        ({"size": 8}, "size"),
        ({"series": 0}, "series"),
        ({"signal": "order", "series": 3}, "series"),
        ({"signal": "order", "patients": {"shenzhen": 4, "montgomery": 5}}, "patients.montgomery"),
    ],
)
def test_a_knob_out_of_range_is_named(change, named):
    with pytest.raises(ValueError, match=rf"data\.{re.escape(named)}="):
        knobs(**change)


def test_a_run_records_that_its_images_are_drawn(tmp_path: Path):
    data = module(tmp_path, {"image_size": 32, "store": tmp_path / "prepared"})
    data.setup()
    sources = data.describe()["sources"]
    assert {name: (facts["synthetic"], facts["patients"]) for name, facts in sources.items()} == {
        f"phantom-{name}": (True, count) for name, count in FEW.items()
    }


def test_a_source_may_be_named_as_its_real_dataset_is(tmp_path: Path):
    loading = {"image_size": 32, "store": tmp_path / "prepared"}
    without = {"split": "leave_one_source_out", "held_out": "chestxray14"}
    real = module(tmp_path, loading | without | {"train_on": ["shenzhen", "montgomery"]})
    own = module(tmp_path, loading | {"train_on": ["phantom-shenzhen", "elsewhere"]})
    assert real.plan.train_on == ["phantom-shenzhen", "phantom-montgomery"]
    assert real.plan.held_out == "phantom-chestxray14"
    assert (own.plan.train_on, own.plan.held_out) == (["phantom-shenzhen", "elsewhere"], None)


def test_the_configuration_holds_the_default_knobs():
    conf = OmegaConf.load(CONF / "data/phantom.yaml")
    conf.seed = conf.phantom_seed
    assert conf.difficulty in DIFFICULTIES
    for knob, value in dataclasses.asdict(Knobs()).items():
        assert conf[knob] == value, knob


def test_regions_are_the_masks_beside_the_files_and_lie_on_lungs_and_heart(few):
    data = module(few.parent, {"image_size": 64})
    manifest = data.read()
    known, shapes = data.regions(manifest), data.settings
    truth = truth_of(few)
    assert len(known) == (truth["abnormal"] == 1).sum() > 0
    for name, regions in known.items():
        stem = name.rpartition("/")[2]
        for finding, place in regions.findings.items():
            (file,) = few.glob(f"masks/*/{stem}_{finding}.png")
            mask = images.resize(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), shapes.size, shapes.resize)
            assert (place == (mask >= max(1, min(128, mask.max())))).all()
            assert finding == "cardiomegaly" or regions.lungs[place].mean() > 0.5
        assert 0.1 < regions.lungs.mean() < 0.45
    alone = {"patients": {"chestxray14": 6}, "seed": 3, "masks": False}  # drawn again, from the seed
    other = module(few.parent, {"image_size": 64}, **alone)
    assert other.regions(other.read())
