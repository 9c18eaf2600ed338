"""A trained run explains its own test part, in the report's section and on its mistakes."""

import json
from pathlib import Path

import pytest
from PIL import Image

import evaluate
import train
from tests.calling import call, output

pytestmark = pytest.mark.slow


def test_the_command_measures_maps_and_draws_them_on_mistakes(tmp_path: Path) -> None:
    data = ["data.patients={chestxray14: 60}", "data.size=64", "data.image_size=32", "data.num_workers=0"]
    paths = [f"outputs={tmp_path}/outputs", f"hydra.run.dir={tmp_path}/run", "logger=csv", "seed=0"]
    output(train, "model=cnn_lstm", *data, *paths, "trainer.max_epochs=1")
    evaluated = [f"runs={tmp_path}/run", "draws=100"]
    assert (
        "explain=gradcamera: null, or one or several of gradcam, hirescam"
        in call(evaluate, *evaluated, "explain=gradcamera").stderr
    )
    output(evaluate, *evaluated, "explain=[gradcam,hirescam]")
    facts = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    maps = facts["models"]["cnn_lstm"]["explanations"]
    assert {"gradcam", "hirescam", "gradcam random weights", "hirescam random weights"} == maps.keys()
    assert all(0 <= value <= 1 for value in maps["gradcam"]["test"].values())
    assert facts["explanations"]["regions"] > 0
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "than the image's centre does: its hottest place lies in a known region" in text
    with Image.open(tmp_path / "run" / "report" / "figures" / "mistake-01.png") as picture:
        assert picture.mode == "RGB"
    other = ["data=phantom", "data.patients={shenzhen: 40}", "data.size=64", f"outputs={tmp_path}/outputs"]
    output(evaluate, *evaluated, *other, "explain=gradcam")
    facts = json.loads((tmp_path / "run" / "report-phantom" / "metrics.json").read_text())
    assert facts["data"]["external"] == "phantom"
    assert facts["explanations"]["regions"] > 0
    with Image.open(tmp_path / "run" / "report-phantom" / "figures" / "mistake-01.png") as picture:
        assert picture.mode == "RGB"
