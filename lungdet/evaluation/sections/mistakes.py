"""Mistakes: each model's most confident ones, with their images where the prepared store is at hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import expit

from lungdet.errors import InputError
from lungdet.evaluation.explanations.explainer import Explainer
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.gathering.results import Result
from lungdet.evaluation.sections.contract import Section, Study
from lungdet.findings import FINDINGS
from lungdet.page.document import Block, Columns, Details, Picture, Pictures, Table, Text
from lungdet.page.overlay import overlay, png
from lungdet.page.wording import METHODS, finding_name, join, label, number
from lungdet.runs.folder import Run

SHOWN = 4
"""Of each model and kind of mistake."""
WIDTH = 8.5
"""Of a picture, rem."""
MODELS = 2
"""So many models' mistakes are not folded."""
SIDES = (224, 160, 112, 80)
"""Pixels; the first at which all pictures together stay within `BUDGET` is taken."""
BUDGET = 1_000_000
"""Bytes of all pictures; in the page they take a third more."""


class Kind(NamedTuple):
    """One way of being wrong: labels that are `target` are called otherwise."""

    target: int
    images: tuple[str, str]
    findings: tuple[str, str]


KINDS = (
    Kind(0, ("normal image", "called abnormal"), ("absent finding", "called present")),
    Kind(1, ("abnormal image", "called normal"), ("present finding", "called absent")),
)


class Pick(NamedTuple):
    """The most confident mistakes of a model and kind, below a sentence on how many there are in all."""

    sentence: str
    rows: pd.DataFrame


def show(summary: dict, study: Study) -> list[Block]:
    """For each model under its first seed, at threshold 0.5: pictures of its most confident mistakes, or their list.

    With task=findings an image is listed once for each finding that it is wrong about. No patient stands twice in a
    list unless too few patients were mistaken.
    """
    findings = summary["task"] != "abnormal"
    with_runs = next(iter(study.models.values()))[0]
    picks = [
        pick for name, replicates in study.models.items() for pick in _picks(name, replicates[0], with_runs, findings)
    ]
    pixels, reasons = _pixels(picks)
    heat = _heat(picks, study, reasons)
    pictures = _encoded(picks, pixels, heat)
    if pixels and not pictures:
        reasons.append("all of them together would make this page too large")
    blocks: list[Block] = [
        Text(
            "At threshold 0.5, the most confident first. Such a mistake may be a wrong label as well as a wrong answer."
            + (f" Yellow is what speaks for the finding, by {METHODS[study.explainer.methods[0]]}." if heat else "")
        )
    ]
    if reasons:
        blocks.append(Text(f"Images are not shown where {'; or '.join(reasons)}."))
    count, columns = 0, []
    for pick in picks:
        grid, without_picture = [], []
        for _, row in pick.rows.iterrows():
            data = pictures.get(_key(row))
            if data is None:
                without_picture.append(row)
            else:
                count += 1
                grid.append(Picture(f"mistake-{count:02}", data, _in_words(row, findings), _caption(row, findings)))
        column: list[Block] = [Text(pick.sentence)]
        column += [Pictures(grid, WIDTH)] if grid else []
        column += [Details("The list", [_table(without_picture, findings)])] if without_picture else []
        columns.append(column)
    rows = [Columns(list(pair)) for pair in zip(columns[::2], columns[1::2], strict=True)]
    further = rows[MODELS:]
    return blocks + rows[:MODELS] + ([Details("The other models' mistakes", further)] if further else [])


SECTION = Section("The most confident mistakes", "mistakes", show=show, claim=(39,))


def _picks(name: str, replicate: Tested, with_runs: Replicate, findings: bool) -> list[Pick]:
    """A model's mistakes; a system without runs has its pictures from another model's stores."""
    results = replicate.results or with_runs.results
    stores = pd.concat([pd.Series(_store(result), result.test["image_id"]) for result in results])
    runs = [pd.Series(str(result.run.folder), result.test["image_id"]) for result in replicate.results]
    images = replicate.test["image_id"]
    run = images.map(pd.concat(runs)) if runs else ""  # a system without runs has no network to ask
    test = replicate.test.assign(store=images.map(stores), run=run, carries=_carried(replicate.test))
    described = test[["image_id", "patient_id", "dataset", "store", "run", "carries"]]
    answers = pd.concat(
        [
            described.assign(
                label=finding, target=test[f"target_{finding}"], logit=test[f"logit_{finding}"], model=label(name)
            )
            for finding in replicate.labels
        ],
        ignore_index=True,
    )
    picks = []
    for kind in KINDS:
        called = answers["logit"] > 0
        wrong = answers[(answers["target"] == kind.target) & (called != bool(kind.target))]
        rows = _most_confident(wrong, highest_first=kind.target == 0)
        noun, outcome = kind.findings if findings else kind.images
        count = number(len(wrong), noun) if len(wrong) else f"no {noun}"
        subject = label(name) if replicate.seed is None else f"{label(name)}, seed {replicate.seed}"
        limit = f", of which {len(rows)} are shown" if len(rows) < len(wrong) else ""
        picks.append(Pick(f"{subject}: {count} {outcome}{limit}.", rows))
    return picks


def _most_confident(wrong: pd.DataFrame, highest_first: bool) -> pd.DataFrame:
    by, rising = ["logit", "image_id", "label"], [not highest_first, True, True]
    ordered = wrong.sort_values(by, ascending=rising)
    repeated = ordered["patient_id"].duplicated()
    return pd.concat([ordered[~repeated], ordered[repeated]]).head(SHOWN).sort_values(by, ascending=rising)


def _carried(test: pd.DataFrame) -> pd.Series:
    """What each image's label says that it shows."""
    carries = {finding: (test[f"target_{finding}"] == 1).tolist() for finding in FINDINGS}
    normal = (test["target_abnormal"] == 0).tolist()
    words = []
    for i in range(len(test)):
        names = [finding_name(finding) for finding in FINDINGS if carries[finding][i]]
        words.append(join(names) if names else "no finding" if normal[i] else "no finding by name")
    return pd.Series(words, index=test.index, dtype=object)


def _store(result: Result) -> str:
    """Where the images that a run was tested on are prepared: other data's, where it was scored on other data."""
    return result.test.attrs.get("scored", result.run.environment["data"])["store"]


def _pixels(picks: Sequence[Pick]) -> tuple[dict[tuple[str, str], np.ndarray], list[str]]:
    """The images that are at hand by store and image id, and why others are not."""
    rows = pd.concat([pick.rows for pick in picks])
    pixels, reasons = {}, []
    for store, of_store in rows.groupby("store"):
        ids_of_store, name = sorted(set(of_store["image_id"])), Path(store).name
        try:
            images = np.load(Path(store) / "images.npy", mmap_mode="r")
            ids = pd.Index(pd.read_parquet(Path(store) / "manifest.parquet", columns=["image_id"])["image_id"])
            if images.ndim != 3 or images.dtype != np.uint8 or len(images) != len(ids):
                raise ValueError(f"images.npy holds {images.dtype} {images.shape} for {len(ids)} rows of the manifest")
            places = ids.get_indexer(ids_of_store)
            pixels |= {
                (store, image): np.array(images[i]) for image, i in zip(ids_of_store, places, strict=True) if i >= 0
            }
        except FileNotFoundError:
            reasons.append(f"the prepared store `{name}` is no longer on this machine")
        except (OSError, ValueError, EOFError) as error:
            reasons.append(f"the prepared store `{name}` cannot be read ({error})")
        else:
            if missing := int((places < 0).sum()):
                reasons.append(f"the prepared store `{name}` does not hold them ({number(missing, 'image')})")
    return pixels, reasons


def _key(row: pd.Series) -> tuple[str, ...]:
    """What tells a picture from others."""
    return tuple(row[["store", "image_id", "model", "label"]])


def _heat(picks: Sequence[Pick], study: Study, reasons: list[str]) -> dict[tuple[str, ...], np.ndarray]:
    """Heat maps by `_key`, where they are asked for; why there is none of a run is added to the reasons."""
    if study.explainer is None:
        return {}
    runs, heat = {str(result.run.folder): result.run for result in study.results}, {}
    for folder, rows in pd.concat([pick.rows for pick in picks]).groupby("run"):
        if not folder:
            continue
        try:
            maps = _maps(study.explainer, runs[folder], rows)
        except InputError as error:
            reasons.append(f"a run gives no heat map ({error})")
        else:
            heat |= {_key(row): heat_map for (_, row), heat_map in zip(rows.iterrows(), maps, strict=True)}
    return heat


def _maps(explainer: Explainer, run: Run, rows: pd.DataFrame) -> np.ndarray:
    """(N, H, W) by the first method; the run's network is gone by then."""
    with explainer.opened(run) as opened:
        return opened.maps(rows["image_id"].tolist(), rows["label"].tolist(), explainer.methods[0])


def _encoded(
    picks: Sequence[Pick],
    pixels: Mapping[tuple[str, str], np.ndarray],
    heat: Mapping[tuple[str, ...], np.ndarray],
) -> dict[tuple[str, ...], bytes]:
    """PNGs by `_key` as large as the budget allows; none where even the smallest do not fit."""
    places = {_key(row): (row["store"], row["image_id"]) for pick in picks for _, row in pick.rows.iterrows()}
    places = {key: place for key, place in places.items() if place in pixels}
    for side in SIDES:
        pictures = {key: _png(pixels[place], side, heat.get(key)) for key, place in places.items()}
        if sum(map(len, pictures.values())) <= BUDGET:
            return pictures
    return {}


def _png(pixels: np.ndarray, side: int, heat: np.ndarray | None) -> bytes:
    image = Image.fromarray(pixels if heat is None else overlay(pixels, heat))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return png(np.asarray(image))


def _caption(row: pd.Series, findings: bool) -> str:
    source = "" if row["image_id"].startswith(f"{row['dataset']}/") else f" ({row['dataset']})"
    return f"`{row['image_id']}`{source}: {_about(row, findings)}; labelled {row['carries']}"


def _in_words(row: pd.Series, findings: bool) -> str:
    return f"Radiograph {row['image_id']}, labelled {row['carries']}; {row['model']}: {_about(row, findings)}"


def _about(row: pd.Series, findings: bool) -> str:
    return f"{finding_name(row['label']) if findings else 'abnormal'} {expit(row['logit']):.3f}"


def _table(rows: Sequence[pd.Series], findings: bool) -> Table:
    columns = ["Image", "Dataset", *(["Finding"] if findings else []), "Labelled", "Probability"]
    cells = [
        [
            f"`{row['image_id']}`",
            row["dataset"],
            *([finding_name(row["label"])] if findings else []),
            row["carries"],
            f"{expit(row['logit']):.3f}",
        ]
        for row in rows
    ]
    return Table(columns, cells, len(columns) - 1)
