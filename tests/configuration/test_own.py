"""A model, a backbone and an experiment that live outside of lungdet are trained, evaluated and offered as its own."""

from pathlib import Path

import pytest

from lungdet.programs import evaluate, train
from lungdet.runs.folder import load_run
from tests.calling import call, output

SOURCE = """
from torch import nn

from lungdet.models.classifier import Classifier


class Maximum(Classifier):
    def __init__(self, backbone, **shared):
        super().__init__(backbone, **shared)
        self.visits = 1
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), *self.fully_connected(backbone.channels))

    def forward(self, image, length, when=None, case=None):
        return self.classify(self.backbone(image))
"""
BACKBONE = """
from torch import nn

from lungdet.models.backbone import Backbone


class Net(Backbone):
    def __init__(self, width: int, **learning):
        super().__init__()
        self.channels = width
        self.layer = nn.Conv2d(1, width, 3, stride=2)
        self.start(**learning)

    def forward(self, image):
        return self.layer(image)
"""
FILES = {
    "clinic/maximum.py": SOURCE,
    "clinic/net.py": BACKBONE,
    "mine/model/maximum.yaml": "defaults: [/every_model@_here_, _self_]\n\n_target_: clinic.maximum.Maximum\n",
    "mine/model/backbone/net.yaml": "defaults: [/every_backbone@_here_, _self_]\n\n"
    "_target_: clinic.net.Net\nwidth: 4\n",
    "mine/experiment/pilot.yaml": "# @package _global_\ndefaults:\n  - override /model: maximum\n"
    "  - override /model/backbone: net\n"
    "trainer: {max_epochs: 1, precision: 32-true}\ndata: {image_size: 32, num_workers: 0}\n",
}


@pytest.mark.slow
def test_a_class_and_an_experiment_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    trust, folder = "trust=[clinic]", tmp_path / "runs/own"
    words = ("--config-dir", tmp_path / "mine", "experiment=pilot", "logger=csv", f"hydra.run.dir={folder}")
    refused = call(train, *words)
    assert refused.returncode == 1
    assert "add 'trust=[clinic]' to the command" in refused.stderr
    output(train, *words, trust, f"outputs={tmp_path}")
    model = load_run(folder).config.model
    assert (model._target_, model.backbone._target_) == ("clinic.maximum.Maximum", "clinic.net.Net")
    printed = output(evaluate, f"runs={folder}", trust, "draws=100")
    more = next(line for line in printed.splitlines() if "seed=0,1,2" in line)
    assert f" -m --config-dir {tmp_path / 'mine'} experiment=pilot " in more
