"""Fixtures that several rooms' tests share."""

import gc
import os
import sys
import tempfile
from pathlib import Path

# Before torch is imported: the suite runs on as many processes as there are cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_X_SERVICE_WAIT", "600")  # seconds; on a busy machine its program starts slowly
os.environ.setdefault("WANDB_DATA_DIR", tempfile.mkdtemp(prefix="lungdet-wandb-"))  # else in the home folder
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

sys.modules.setdefault("gdcm", None)  # else pydicom loads it; `lungdet.data.dicom.apart` says why not


def pytest_collection_finish() -> None:
    """Have what is imported by now looked at no more for what may go: that is a tenth of the suite's time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs; a test that needs it is skipped where LUNGDET_DATA does not name one."""
    folder = os.environ.get("LUNGDET_DATA")
    if not folder:
        pytest.skip("needs real radiographs: set LUNGDET_DATA to the folder that holds ChestX-ray14")
    return Path(folder).resolve()
