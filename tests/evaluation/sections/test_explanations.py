"""The report says in a sentence whether maps point at disease better than the centre, and what it lacks."""

from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from lungdet.data.regions import Regions
from lungdet.errors import RunError
from lungdet.evaluation import summary
from lungdet.evaluation.gathering.models import group
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import explanations
from lungdet.page.document import Document
from lungdet.page.markdown import markdown
from tests.fake_runs import two_runs


class Planted:
    """Maps that lie on the region (four of five of the CNN's), or in a corner (all others)."""

    methods = ("gradcam",)
    gone = None

    @contextmanager
    def opened(self, run):
        if run.config.model._target_.split(".")[-2] == self.gone:
            raise RunError("the images are gone")
        yield Looking(run.config.model._target_.endswith(".CNN"))


class Looking(NamedTuple):
    """One run's."""

    at_lesions: bool

    def regions(self, images):
        lesion, lungs = np.zeros((2, 16, 16), bool)
        lesion[3:6, 10:13] = lungs[2:12, 2:7] = lungs[2:12, 9:14] = True
        return {name: Regions({"effusion": lesion}, lungs) for name in images[::2]}

    def maps(self, images, labels, method, random=False):
        heat = np.zeros((len(images), 16, 16), np.float32)
        heat[:, :2, :2] = 1
        if self.at_lesions and not random:
            hits = np.arange(len(images)) % 5 > 0
            heat[hits], heat[hits, 3:6, 10:13] = 0, 1
        return heat


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    models, skipped = group(collect([two_runs(folder / "sweep", {"chestxray14": 40})])[0])
    return summary.study_of(models, skipped, None, None, folder / "out", 200, explainer=Planted())


def told(study):
    """What the section measures, and its text."""
    numbers = {"data": {"external": None}, **explanations.measure(study)}
    section = explanations.SECTION.written(numbers, study)
    return numbers, section and markdown(Document("title", "answer", [section]))


def test_the_sentence_says_which_network_points_at_disease(study):
    numbers, text = told(study)
    cnn, lstm = (numbers["models"][model]["explanations"]["gradcam"] for model in ("cnn", "cnn_lstm"))
    assert numbers["explanations"] | {"maps": {}} == {
        "methods": ["gradcam"], "images": 20, "patients": 20, "regions": 20, "maps": {}, "reasons": {},
    }  # fmt: skip
    assert (cnn["test"]["pointing"], lstm["test"]["pointing"]) == (0.8, 0)
    assert (cnn["test"]["energy"], lstm["test"]["lungs"]) == (0.8, 0)
    low, high = cnn["over_centre_interval"]["pointing"]
    assert 0.5 < low < 0.8 < high
    assert (
        "CNN's Grad-CAM points at disease better than the image's centre does: its hottest place lies in a known "
        "region in 80.0 % of cases, the centre in 0.0 %, a difference of 80.0 points, 95 % interval"
    ) in text
    assert "CNN-LSTM's Grad-CAM is not shown to point at disease better than the image's centre does" in text
    assert "The same network with random weights: 0.0 %" in text
    assert "20 regions in 20 images of 20 patients" in text
    assert "the usual place, of other patients" in text
    assert explanations.SECTION.unmeasured(numbers) == []


def test_a_run_whose_images_are_gone_is_named_and_what_was_not_asked_for_is_listed(study, monkeypatch):
    monkeypatch.setattr(Planted, "gone", "cnn")
    numbers, text = told(study)
    assert numbers["models"]["cnn"]["explanations"] is None
    assert "CNN is not measured: the images are gone" in text
    assert "CNN-LSTM's Grad-CAM" in text
    numbers, text = told(replace(study, explainer=None))
    assert text is None
    (lacking,) = explanations.SECTION.unmeasured(numbers | {"explanations": None})
    assert "python evaluate.py runs=FOLDER explain=gradcam" in lacking.remedy
