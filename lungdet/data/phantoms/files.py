"""Writes synthetic radiographs with known truth in the real datasets' layouts."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from filelock import FileLock

from lungdet.data.phantoms.anatomy import Body, lung_field, radiograph
from lungdet.data.phantoms.canvas import Canvas
from lungdet.data.phantoms.cohort import SOURCE_NAMES, Case, Knobs, Visit, cohort
from lungdet.data.phantoms.exposure import expose, shape
from lungdet.data.phantoms.lesions import FINDINGS, Lesion, draw_lesion
from lungdet.data.store.images import opencv_on_one_thread
from lungdet.machine import hardware
from lungdet.machine.progress import progress

log = logging.getLogger(__name__)

FOLDERS: dict[str, str] = {"chestxray14": "ChestX-ray14", "montgomery": "Montgomery", "shenzhen": "Shenzhen"}
SERIES = "series.csv"
_VERSION = 1  # raised whenever the same knobs would give other pixels or another layout
# Noise hardly compresses: three times as fast as the default filters, and smaller.
_PNG = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
_PNG += [cv2.IMWRITE_PNG_COMPRESSION, 1]
_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
_READINGS = {"tuberculosis": "upper lobe infiltrate, suspicious for TB", "effusion": "pleural effusion"}


def generate(root: Path, knobs: Knobs) -> Path:
    """The folder of the phantoms with these knobs, written unless it is there.

    It is `root/<a name made of the knobs>`, so other knobs get another folder. In it stand `ChestX-ray14/`,
    `Montgomery/` and `Shenzhen/` in their own layouts, `truth.csv`, `masks/` and `settings.json`. With `signal=order`
    each of the three holds `images/` and `series.csv` instead: the real layouts cannot leave an image without a label.
    Everything is written aside and renamed when whole, so a folder of that name is a finished one.

    Args:
        root: where phantoms are kept.
        knobs: what they are made by; the pixels depend on nothing else.
    """
    folder = root / name_of(knobs)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            log.info("phantoms: %s is there", folder)
            return folder
        aside = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        cases, began = list(cohort(knobs)), time.perf_counter()
        truth = pd.DataFrame(_draw_all(aside, cases, knobs))
        truth.to_csv(aside / "truth.csv", index=False)
        (_write_series if knobs.signal == "order" else _write_layouts)(aside, cases)
        (aside / "settings.json").write_text(json.dumps(_settings(knobs), indent=1) + "\n")
        aside.rename(folder)
        seconds = time.perf_counter() - began
        log.info("phantoms: %d radiographs of %d patients in %.0f s, %s", len(truth), len(cases), seconds, folder)
    return folder


def name_of(knobs: Knobs) -> str:
    """The name of the folder that holds the phantoms of these knobs."""
    return f"{knobs.signal}-{hashlib.sha256(json.dumps(_settings(knobs), sort_keys=True).encode()).hexdigest()[:10]}"


def draw(case: Case, visit: Visit, knobs: Knobs) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One radiograph as its file holds it (uint8, or 12 bit in uint16), and a bool mask (H, W) for each finding in it.

    Chest, findings, pose and exposure draw from random streams of their own, so that the same picture with and without
    a finding differs by the finding alone.
    """
    body, canvas, lesions, breath = _pose(case, visit, knobs)
    attenuation, masks = radiograph(body, canvas, lesions, breath, float(visit.portable))
    rng = np.random.default_rng([*_key(case, knobs), 4, visit.picture])
    return expose(attenuation, case.source, rng, portable=visit.portable, artefact=visit.artefact), masks


def truth(knobs: Knobs, images: Collection[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], dict, np.ndarray]]:
    """Of images, by source and path within it: a bool mask (H, W) for each finding, and one of the lungs.

    They are drawn again, so that they are there without `masks/`, too.
    """
    for case in cohort(knobs):
        for k, visit in enumerate(case.visits):
            if (name := (case.source, path_of(case, k))) in images:
                body, canvas, lesions, breath = _pose(case, visit, knobs)
                _, masks = radiograph(body, canvas, lesions, breath, float(visit.portable))
                yield name, masks, lung_field(body, canvas, breath)


def path_of(case: Case, k: int) -> str:
    """Where the case's k-th visit is written, relative to its source's folder."""
    if case.source == "chestxray14" or len(case.visits) > 1:
        return f"images/{case.number:08d}_{k:03d}.png"
    prefix = {"montgomery": "MCUCXR", "shenzhen": "CHNCXR"}[case.source]
    return f"CXR_png/{prefix}_{case.number:04d}_{case.visits[k].label:.0f}.png"


def _key(case: Case, knobs: Knobs) -> list[int]:
    return [knobs.seed, SOURCE_NAMES.index(case.source), case.anatomy]


def _pose(case: Case, visit: Visit, knobs: Knobs) -> tuple[Body, Canvas, dict[str, Lesion], float]:
    """The patient, where on the image, with which lesions, and how deep the breath is."""
    key = _key(case, knobs)
    body = Body.born(np.random.default_rng([*key, 1]), female=case.female, age=case.visits[0].age)
    lesions = {}
    for finding, severity in visit.severity.items():
        rng = np.random.default_rng([*key, 2, FINDINGS.index(finding)])
        lesions[finding] = draw_lesion(finding, rng, severity, 1 - knobs.difficulty)
    rng = np.random.default_rng([*key, 3, visit.picture])
    size, centre = shape(case.source, knobs.size, rng), rng.normal((0, 0.01), (0.034, 0.034))
    canvas = Canvas(size, 1.07 + 0.07 * rng.normal(), 0.035 * rng.normal(), centre)
    return body, canvas, lesions, 0.02 * rng.normal()


def _settings(knobs: Knobs) -> dict:
    return {"version": _VERSION, **asdict(knobs)}


def _draw_all(folder: Path, cases: list[Case], knobs: Knobs) -> list[dict]:
    for source in {case.source for case in cases}:
        home = FOLDERS[source]
        for path in (f"{home}/images", f"{home}/CXR_png", f"{home}/ClinicalReadings", f"masks/{home}"):
            (folder / path).mkdir(parents=True)
    pool, rows = ThreadPoolExecutor(hardware.cores()), []  # drawing mostly runs outside the interpreter lock
    with opencv_on_one_thread(), progress("drawing phantom patients", len(cases)) as advance:
        try:
            for drawn in pool.map(lambda case: _draw_case(folder, case, knobs), cases):
                rows += drawn
                advance()
        finally:
            pool.shutdown(cancel_futures=True)
    return rows


def _draw_case(folder: Path, case: Case, knobs: Knobs) -> list[dict]:
    """Write a patient's images and masks; the rows of truth.csv."""
    rows = []
    for k, visit in enumerate(case.visits):
        pixels, masks = draw(case, visit, knobs)
        path = folder / FOLDERS[case.source] / path_of(case, k)
        _write_png(path, pixels)
        for finding, mask in masks.items() if knobs.masks else ():
            _write_png(folder / "masks" / FOLDERS[case.source] / f"{path.stem}_{finding}.png", mask * np.uint8(255))
        rows.append(
            {"source": case.source, "image": path.stem, "patient": case.number, "visit": k, "chest": case.anatomy}
            | {"label": visit.label, "artefact": int(visit.artefact), "abnormal": int(bool(visit.severity))}
            | {finding: round(visit.severity.get(finding, 0.0), 4) for finding in FINDINGS}
        )
    return rows


def _write_png(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels, _PNG):
        raise OSError(f"{path} could not be written; is the disk full?")


def _write_layouts(folder: Path, cases: list[Case]) -> None:
    """The three datasets' own tables and texts."""
    lines, lists = [], {"train_val_list.txt": [], "test_list.txt": []}
    for case in cases:
        sex = "FM"[not case.female]
        for k, visit in enumerate(case.visits):
            path = Path(path_of(case, k))
            if case.source == "chestxray14":
                tags = "|".join(tag.title() for tag in visit.tags) or "No Finding"
                view = "AP" if visit.portable else "PA"
                lines.append(f"{path.name},{tags},{k},{case.number},{visit.age},{sex},{view},2500,2500,0.168,0.168")
                lists["test_list.txt" if case.number % 5 == 0 else "train_val_list.txt"].append(path.name)
                continue
            reading = " and ".join(_READINGS[tag] for tag in visit.tags) or "normal"
            head = f"Patient's Sex: {sex} \nPatient's Age: {visit.age:03d}Y\n"
            if case.source == "shenzhen":
                head = f"{'female' if case.female else 'male'} {visit.age}yrs\r\n"
            file = folder / FOLDERS[case.source] / "ClinicalReadings" / f"{path.stem}.txt"
            file.write_text(f"{head}{reading}\n", newline="")
    if lines:
        root = folder / FOLDERS["chestxray14"]
        (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([_HEADER, *lines]) + "\n")
        for name, names in lists.items():
            (root / name).write_text("\n".join(names))


def _write_series(folder: Path, cases: list[Case]) -> None:
    """A table a source, with no value where nobody says: only the last visit of a series is labelled."""
    rows = [
        {"dataset": case.source, "path": path_of(case, k), "patient_id": f"{case.number:08d}", "visit": k}
        | {"age": visit.age, "sex": "FM"[not case.female], "view": "AP" if visit.portable else "PA"}
        | {"abnormal": visit.label}
        for case in cases
        for k, visit in enumerate(case.visits)
    ]
    for source, table in pd.DataFrame(rows).groupby("dataset"):
        table.to_csv(folder / FOLDERS[source] / SERIES, index=False)
