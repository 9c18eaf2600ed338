"""Checkpoints are on disk whole or not at all, and nothing in them is run."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lungdet.errors import InputError
from lungdet.machine.commands import command, override
from lungdet.machine.writing import PARTIAL, link, make_folder, replacing
from lungdet.runs.reading import read_checkpoint


class Checkpoints(TorchCheckpointIO):
    """Writes and reads a run's checkpoints.

    Lightning would write to TMPDIR and, where that is another disk, copy the file over the one before: a program that
    is killed meanwhile leaves neither.
    """

    def __init__(self) -> None:
        self._latest: tuple[Path, Any] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Put a checkpoint in the place of the one before; a best one that is the last, too, is one file of two names.

        Raises:
            InputError: it cannot be written; the one before stays.
        """
        path, content = Path(path), io.BytesIO()
        make_folder(path.parent)
        for leftover in path.parent.glob(f".*{PARTIAL}"):  # of a process that was killed; the run is locked
            leftover.unlink()
        moment = {key: checkpoint.get(key) for key in ("epoch", "global_step", "loops")}
        latest, self._latest = self._latest, None
        try:
            if latest is not None and latest[0] != path and latest[1] == moment and link(latest[0], path):
                return
            torch.save(checkpoint, content)
            with replacing(path) as file:
                file.write(content.getbuffer())
            self._latest = path, moment
        except OSError as error:
            goes_on = command("train.py", override("resume", path.parents[1]))
            raise InputError(
                f"{path} could not be written ({error.strerror}); what was trained before is kept. Once there is room, "
                f"it goes on with: {goes_on}"
            ) from error

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """What a checkpoint holds, wherever Lightning would have it, see `read_checkpoint`."""
        return read_checkpoint(Path(path))
