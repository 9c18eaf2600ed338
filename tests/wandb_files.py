"""What Weights & Biases would be sent: the records of a run's own file, read back without a server."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEADER, BLOCK, PIECE = 7, 32_768, 7  # bytes: of the file, of a block of LevelDB's log, of a piece's checksum and length
WHOLE, FIRST, LAST = 1, 2, 4


class Recorded(NamedTuple):
    """A run as its file has it: `run` (name, group, ..), and by key what was configured, logged and summed up.

    `history` has a dictionary a row that was logged; `metrics` are the definitions of axes and summaries by name;
    `artifacts` and `used` are records; `files` are names of files that go along.
    """

    run: object
    config: dict
    history: list[dict]
    summary: dict
    metrics: dict
    artifacts: list
    used: list
    files: list[str]


def recorded(folder: Path) -> Recorded:
    """The one run below a folder, once its end is written: what finishes it does not wait for the disk."""
    [path] = folder.glob("wandb/*run-*/*.wandb")
    until = time.monotonic() + 600  # on a busy machine it comes late
    while "exit" not in {record.WhichOneof("record_type") for record in records(path)} and time.monotonic() < until:
        time.sleep(0.05)
    run, config, history, summary, metrics, artifacts, used, files = None, {}, [], {}, {}, [], [], []
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config |= values(record.run.config.update)
        elif kind == "config":
            config |= values(record.config.update)
        elif kind == "history":
            history.append(values(record.history.item))
        elif kind == "summary":
            summary |= values(record.summary.update)
        elif kind == "metric":
            metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            artifacts.append(record.artifact)
        elif kind == "use_artifact":
            used.append(record.use_artifact)
        elif kind == "files":
            files += [file.path for file in record.files.files]
    return Recorded(run, config, history, summary, metrics, artifacts, used, files)


def values(items) -> dict:
    """Keys, joined by dots where they are nested, and what stands there in JSON."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def records(path: Path) -> Iterator:
    """Every record of a run's file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), HEADER, b""
    while place < len(content):
        if (left := BLOCK - place % BLOCK) < PIECE:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        piece = content[place + PIECE : place + PIECE + length]
        if kind == 0 or len(piece) < length:  # not written yet
            return
        whole = piece if kind in (WHOLE, FIRST) else whole + piece
        place += PIECE + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(whole)
