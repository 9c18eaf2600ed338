"""A worklist: the predictions of many image files in one table, the most suspicious first."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.data.files import OVERLAYS
from lungdet.data.manifest import short_hash
from lungdet.errors import InputError, first_few, require_whole
from lungdet.inference import cases
from lungdet.inference.model import Model
from lungdet.inference.overlays import Overlays, draw, is_overlay
from lungdet.inference.parts import Parts, file_digest
from lungdet.machine.progress import progress
from lungdet.machine.writing import replacing, require_writable

log = logging.getLogger(__name__)

FORMATS = (".csv", ".parquet")


def write(
    model: Model,
    images: Path,
    out: Path,
    batch_size: int = 32,
    workers: int | None = None,
    overlays: Overlays | None = None,
) -> int:
    """Predict images piece by piece and write the worklist; go on where an earlier call was cut.

    The columns are `rank`, 1 for the image with the highest log-odds of any label, and those of `Model.predict`. How
    many images are flagged is logged.
    Images that cannot be read stand in `<out>.excluded.csv` with the reason. `<out>.overlays` is of this worklist
    alone: pictures of an earlier one go.

    Args:
        model: of one run or several.
        images: a file, folder, list or table, see `lungdet.inference.cases.read`.
        out: a .csv or .parquet file.
        batch_size: images a step.
        workers: threads that decode; None takes one a core.
        overlays: of each image a picture in `<out>.overlays`; None draws nothing.

    Returns:
        How many images could not be read.

    Raises:
        InputError: nothing to predict, another ending of `out`, `out` is the table of images, parts of another request
            beside it, another process that writes it, something else in the place of `<out>.overlays`, or
            images or other files in it.
    """
    _require_choices(images, out, batch_size, workers)
    pictures = out.with_name(out.name + OVERLAYS)
    table = cases.read(images, model.series)
    _require_replaceable(pictures, table, images, out)
    pieces = model.pieces(table, batch_size)
    require_writable("out", out)
    if out.exists() and not Parts.begun(out):
        log.info("%s: a file is there already, and is going to be replaced", out)
    with Parts.locked(out, _request(model, pieces, batch_size, overlays)) as parts:
        scored = _scored(model, pieces, parts, batch_size, workers)
        ranked, excluded = _written(model, scored, out)
        if pictures.exists():
            shutil.rmtree(pictures)
        if overlays is not None:
            aside = parts.folder / "overlays"
            draw(model, table, ranked, aside, overlays, batch_size, workers)
            os.replace(aside, pictures)
            count = f"{len(ranked):,}"
            log.info("%s: %s overlays, named by rank; a map is no evidence of disease", pictures, count)
        parts.remove()
    return excluded


def _require_choices(images: Path, out: Path, batch_size: int, workers: int | None) -> None:
    require_whole("batch_size", batch_size, 1)
    if workers is not None:
        require_whole("num_workers", workers, 1)
    if out.suffix.lower() not in FORMATS:
        raise InputError(f"out={out}: a name that ends in {' or '.join(FORMATS)} is needed")
    if out.is_dir():
        raise InputError(f"out={out}: a folder has this name")
    for file in (out, _listing(out)):
        if file.exists() and images.exists() and file.samefile(images):
            raise InputError(f"out={out}: {file} is the table of images; name another file")


def _require_replaceable(pictures: Path, table: pd.DataFrame, images: Path, out: Path) -> None:
    """Passes only where the folder of an earlier worklist's pictures holds nothing else, and none of the images."""
    if pictures.is_symlink() or pictures.is_file():
        raise InputError(f"out={out}: its overlays are to be in {pictures}, which is no folder; name another out")
    for folder in {file.parent for file in table["file"]}:
        if folder.resolve().is_relative_to(pictures.resolve()):
            raise InputError(
                f"images={images}: some lie in {folder}, which goes when {out} is written anew; name another out"
            )
    foreign = [file.name for file in pictures.glob("[!.]*") if not is_overlay(file)]
    if foreign:
        raise InputError(
            f"out={out}: {pictures} goes when it is written anew, and {first_few(foreign, 3)} in there is no picture "
            "of a worklist; move it away, or name another out"
        )


def _listing(out: Path) -> Path:
    """The table of what cannot be read."""
    return out.with_name(out.name + ".excluded.csv")


def _written(model: Model, scored: pd.DataFrame, out: Path) -> tuple[list[str], int]:
    """Write what can be read and what cannot: the images by rank, and how many there are that cannot."""
    unreadable = scored["reason"].notna()
    excluded = scored.loc[unreadable, ["image", "reason"]].sort_values("image")
    ranked = _ranked(model, scored[~unreadable])
    listing = _listing(out)
    if len(excluded):
        _save(excluded, listing)
        named = first_few((f"{row.image}: {row.reason}" for row in excluded.itertuples()), 3)
        log.warning("%d of %d images cannot be read; %s lists them: %s", len(excluded), len(scored), listing, named)
    else:
        listing.unlink(missing_ok=True)  # of an earlier command
    _save(ranked, out)
    log.info("%s: %s of %s images, the most suspicious first", out, f"{len(ranked):,}", f"{len(scored):,}")
    if flagged := int(ranked["flagged"].sum()):
        count = f"{flagged:,} of {len(ranked):,}"
        log.warning("%s images flagged: unlike those that the run knows", count)
    return ranked["image"].tolist(), len(excluded)


def _scored(
    model: Model, pieces: Sequence[pd.DataFrame], parts: Parts, batch_size: int, workers: int | None
) -> pd.DataFrame:
    """All pieces, those that are finished read back."""
    finished = {number: part for number in range(len(pieces)) if (part := parts.finished(number)) is not None}
    missing = [number for number in range(len(pieces)) if number not in finished]
    count, done = sum(map(len, pieces)), sum(map(len, finished.values()))
    if done:
        log.info("going on: %s of %s images done", f"{done:,}", f"{count:,}")
    with progress("predicting images", count, done) as advance:
        stream = model.stream([pieces[number] for number in missing], batch_size, workers) if missing else ()
        for number, part in zip(missing, stream, strict=True):
            parts.write(number, part)
            finished[number] = part
            for _ in range(len(part)):
                advance()
    return pd.concat([finished[number] for number in sorted(finished)], ignore_index=True)


def _ranked(model: Model, scored: pd.DataFrame) -> pd.DataFrame:
    scored = scored.assign(highest=scored[[f"logit_{label}" for label in model.labels]].max(axis=1))
    table = model.judged(scored.sort_values(["highest", "image"], ascending=[False, True]))
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def _save(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as file:
        if path.suffix.lower() == ".parquet":
            table.to_parquet(file, index=False)
        else:
            table.to_csv(file, index=False)


def _request(
    model: Model, pieces: Sequence[pd.DataFrame], batch_size: int, overlays: Overlays | None
) -> dict[str, object]:
    """What decides the log-odds and the overlays; thresholds and temperature are applied to them at the end."""
    lines = []
    for row in pd.concat(pieces).itertuples():
        status = os.stat(row.file) if os.path.isfile(row.file) else None
        state = (status.st_size, status.st_mtime_ns) if status else None
        lines.append(f"{row.image_id}\t{row.file}\t{row.patient_id}\t{row.visit}\t{row.age}\t{state}")
    return {
        "run": [str(run.folder) for run in model.runs],
        "weights": [file_digest(run.checkpoint("best")) for run in model.runs],
        "images": short_hash("\n".join(lines)),
        "bits": model.settings.bits,
        "batch_size": batch_size,
        "overlays": overlays and overlays.method,
        "label": overlays and overlays.label,
    }
