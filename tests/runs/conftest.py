"""A multirun's folder, as Hydra leaves it."""

import shutil
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


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real multirun, made once, of which one job a model failed before it had a run folder."""
    folder = tmp_path_factory.mktemp("multirun")
    (folder / "app.py").write_text(APP)
    arguments = ["-m", "+model=cnn,cnn_lstm", "+seed=1,2", "+width=8", "hydra.sweep.dir=sweep"]
    arguments += ["hydra.sweep.subdir=${hydra.job.num}_job", "hydra.job.chdir=true", "hydra.output_subdir=null"]
    subprocess.run([sys.executable, "app.py", *arguments], cwd=folder, capture_output=True, check=False)
    return folder / "sweep"


@pytest.fixture
def multirun(swept: Path, tmp_path: Path) -> Path:
    """A copy of its folder, to be changed."""
    return Path(shutil.copytree(swept, tmp_path / "sweep"))
