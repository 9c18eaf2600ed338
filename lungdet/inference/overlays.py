"""Overlays: a picture of each image of a worklist, with heat on what speaks for its label, in a folder beside it."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lungdet.data.store.images import stem
from lungdet.inference.model import Model
from lungdet.machine.progress import progress
from lungdet.machine.writing import make_folder, replacing
from lungdet.page.overlay import png

log = logging.getLogger(__name__)


class Overlays(NamedTuple):
    """What pictures are asked for.

    Attributes:
        method: of `lungdet.models.explaining.METHODS`.
        label: which label is explained; None: of each image the most probable one.
    """

    method: str
    label: str | None = None


def draw(
    model: Model,
    table: pd.DataFrame,
    ranked: Sequence[str],
    folder: Path,
    overlays: Overlays,
    batch_size: int,
    workers: int | None,
) -> None:
    """A PNG an image of the worklist: `<rank>-<the file's name>.png`, of several labels with the one it is about.

    Those that an earlier call has drawn into the folder stay as they are.

    Args:
        model: of one run or several.
        table: the cases, see `lungdet.inference.cases`.
        ranked: the worklist's images, by rank.
        folder: where the pictures go, and no others are.
        overlays: what is asked for.
        batch_size: images a step.
        workers: threads that decode; None takes one a core.

    Raises:
        InputError: see `lungdet.inference.explaining.explained`.
    """
    make_folder(folder)
    for torn in folder.glob(".*"):  # of a process that was killed
        torn.unlink()
    drawn = {int(file.name.partition("-")[0]) for file in folder.iterdir() if is_overlay(file)}
    rank = dict(zip(ranked, range(1, len(ranked) + 1), strict=True))
    if drawn:
        log.info("going on: %s of %s overlays drawn", f"{len(drawn):,}", f"{len(rank):,}")
    missing = table["image_id"].map(lambda name: name in rank and rank[name] not in drawn)
    table = table[table["patient_id"].isin(table.loc[missing, "patient_id"])]  # with the visits that they are read with
    if table.empty:
        return
    digits = len(str(len(rank)))
    with progress("drawing overlays", len(rank), len(drawn)) as advance:
        pieces = model.pieces(table, batch_size)
        for part in model.explanations(pieces, overlays.label, overlays.method, batch_size, workers):
            for number, name in enumerate(part.image):
                if rank[name] in drawn:
                    continue
                file_name = re.sub(r"[^\w.-]", "_", stem(Path(name).name))[:80]
                about = f"-{part.label[number]}" if len(model.labels) > 1 else ""
                with replacing(folder / f"{rank[name]:0{digits}d}-{file_name}{about}.png") as file:
                    file.write(png(part.overlay(number)))
                advance()


def is_overlay(file: Path) -> bool:
    """Whether a file is named as `draw` names its pictures."""
    return re.fullmatch(r"\d+-.+\.png", file.name) is not None
