"""A multirun's folder, as Hydra leaves it."""

import subprocess
import sys
from pathlib import Path

import pytest

APP = """
import hydra, json
from hydra.core.hydra_config import HydraConfig
@hydra.main(version_base="1.3", config_path=None)
def main(config):
    if config.get("seed") == 2:
        raise RuntimeError("before it began")
    open("config.yaml", "w").close()
    json.dump({"overrides": list(HydraConfig.get().overrides.task)}, open("environment.json", "w"))
main()
"""


@pytest.fixture
def multirun(tmp_path: Path) -> Path:
    """The folder of a real multirun of which one job failed before it had a run folder."""
    (tmp_path / "app.py").write_text(APP)
    arguments = ["-m", "+model=cnn,cnn_lstm", "+seed=1,2", "+width=8", "hydra.sweep.dir=sweep"]
    arguments += ["hydra.sweep.subdir=${hydra.job.num}_job", "hydra.job.chdir=true", "hydra.output_subdir=null"]
    subprocess.run([sys.executable, "app.py", *arguments], cwd=tmp_path, capture_output=True, check=False)
    return tmp_path / "sweep"
