"""Overlays: a picture of each predicted image, with heat on what speaks for its label, beside the worklist."""

import logging
import re
from pathlib import Path

import pandas as pd

from lungdet.data.store.images import stem
from lungdet.inference import cases
from lungdet.inference.model import Model
from lungdet.machine.progress import progress
from lungdet.machine.writing import make_folder, replacing
from lungdet.page.overlay import png

log = logging.getLogger(__name__)


def write(
    model: Model,
    images: Path,
    worklist: Path,
    folder: Path,
    label: str | None = None,
    method: str = "gradcam",
    batch_size: int = 32,
    workers: int | None = None,
) -> None:
    """A PNG an image of the worklist: `<rank>-<the file's name>.png`, of several labels with the one it is about.

    Args:
        model: of one run or several.
        images: what the worklist was made of.
        worklist: the file, see `lungdet.inference.worklist`.
        folder: where the pictures go.
        label: which label is explained; None: of each image the most probable one.
        method: of `lungdet.models.explaining.METHODS`.
        batch_size: images a step.
        workers: threads that decode; None takes one a core.

    Raises:
        InputError: see `lungdet.inference.explaining.explained`.
    """
    if worklist.suffix.lower() == ".parquet":
        ranks = pd.read_parquet(worklist)
    else:  # `0001` and `NA` are names, too
        ranks = pd.read_csv(worklist, usecols=["image", "rank"], dtype={"image": str}, keep_default_na=False)
    rank = dict(zip(ranks["image"], ranks["rank"], strict=True))
    table = cases.read(images, model.series)
    make_folder(folder)
    digits = len(str(len(rank)))
    with progress("drawing overlays", len(rank)) as advance:
        pieces = cases.pieces(table, model.piece(batch_size))
        for part in model.explanations(pieces, label, method, batch_size, workers):
            for number, name in enumerate(part.image):
                file_name = re.sub(r"[^\w.-]", "_", stem(Path(name).name))[:80]
                about = f"-{part.label[number]}" if len(model.labels) > 1 else ""
                with replacing(folder / f"{rank[name]:0{digits}d}-{file_name}{about}.png") as file:
                    file.write(png(part.overlay(number)))
                advance()
    log.info("%s: %s overlays, named by rank; a map is no evidence of disease", folder, f"{len(rank):,}")
