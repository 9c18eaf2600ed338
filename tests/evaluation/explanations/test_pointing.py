"""Networks whose gaze is known are seen through: one that looks at lesions, one at a corner, one of random weights."""

import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lungdet.data.regions import Regions
from lungdet.data.sources.phantom import PhantomDataModule
from lungdet.evaluation.explanations import explainer, pointing
from lungdet.evaluation.explanations.explainer import Explainer, Opened
from lungdet.evaluation.sections import explanations, mistakes
from lungdet.models.backbone import ConvBackbone
from lungdet.models.cnn import CNN
from lungdet.runs.folder import Run
from lungdet.runs.network import randomised

OPTIONS = {"hidden": 4, "dropout": 0.0, "learning_rate": 1e-3}


class Bright(nn.Module):
    """A map of what is white, or of the upper left corner alone."""

    channels = 1

    def __init__(self, corner: bool) -> None:
        super().__init__()
        self.corner = corner

    def forward(self, image: Tensor) -> Tensor:
        if not self.corner:
            return nn.functional.avg_pool2d((image - 0.9).relu(), 2)
        marker = torch.zeros_like(image)
        marker[..., :4, :4] = 1
        return nn.functional.avg_pool2d(image * marker, 2)


def looking(corner: bool) -> CNN:
    model = CNN(Bright(corner), **OPTIONS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        first, last = (layer for layer in model.head if isinstance(layer, nn.Linear))
        first.weight[0, 0], first.bias[0], last.weight[1, 0] = 1, 1, 1
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PhantomDataModule:
    """Phantoms whose lesions are painted white on grey, a corner of each image too."""
    folder, patients = tmp_path_factory.mktemp("phantoms"), {"chestxray14": 16}
    split = {"split_seed": 0, "batch_size": 8, "num_workers": 0}
    data = PhantomDataModule(folder, patients=patients, size=64, image_size=32, store=folder / "store", **split)
    data.prepare_data()
    manifest = data.store.manifest
    images, known = np.full(data.store.images.shape, 100, np.uint8), data.regions(manifest)
    for image, name in zip(images, manifest["image_id"], strict=True):
        image[:4, :4] = 200
        for place in known[name].findings.values() if name in known else ():
            image[place] = 255
    np.save(folder / "images.npy", images)
    data.store, data.manifest = replace(data.store, images=images, folder=folder), manifest
    return data


def means(data: PhantomDataModule, corner: bool) -> pd.DataFrame:
    """Of each map the mean of each measure."""
    torch.manual_seed(0)
    opened = Opened(looking(corner), CNN(ConvBackbone((4, 8)), **OPTIONS), data, torch.device("cpu"))
    asked = pointing.regions(opened, data.manifest, ("abnormal",))
    assert len(asked) == len(data.regions(data.manifest)) > 8
    table = pointing.measured(opened, ["gradcam"], asked, data.manifest)
    assert set(table["map"].value_counts()) == {len(asked)}
    return table.groupby("map")[["pointing", "energy", "overlap", "lungs"]].mean()


def test_a_network_that_reacts_to_lesions_points_at_them(data: PhantomDataModule) -> None:
    means_by_map = means(data, False)
    assert means_by_map["pointing"]["gradcam"] > 0.9
    assert means_by_map["energy"]["gradcam"] > 0.6
    assert means_by_map["overlap"]["gradcam"] > 0.6
    for blind in ("random", "centre", "gradcam random weights"):
        assert means_by_map["pointing"][blind] < 0.5
        assert means_by_map["energy"][blind] < 0.4


def test_a_network_that_looks_at_a_corner_points_outside_the_lungs(data: PhantomDataModule) -> None:
    means_by_map = means(data, True)
    assert means_by_map["pointing"]["gradcam"] == 0
    assert means_by_map["lungs"]["gradcam"] < 0.01 < 0.3 < means_by_map["lungs"]["centre"]


def test_findings_are_asked_one_by_one_and_the_usual_place_is_of_other_patients() -> None:
    places = np.zeros((3, 8, 8), bool)
    places[0, 0, 0] = places[1, 1, 1] = places[2, 2, 2] = True
    known = {"a": Regions({"mass": places[0], "effusion": places[1]}), "b": Regions({"nodule": places[2]})}
    opened = SimpleNamespace(regions=lambda images: known)
    test = pd.DataFrame({"image_id": ["a", "b"]})
    asked = pointing.regions(opened, test, ("mass", "effusion", "hernia"))
    assert [(name, label) for name, label, _ in asked] == [("a", "mass"), ("a", "effusion")]
    assert (asked[1][2].findings["effusion"] == places[1]).all()
    [whole, _] = pointing.regions(opened, test, ("abnormal",))
    assert (whole[2].findings["abnormal"] == places[0] | places[1]).all()
    _, hill, usual = pointing._without_network(["a", "b", "c"], np.array(["p", "p", "q"]), places)
    assert np.argwhere(usual[0]).tolist() == [[2, 2]]
    assert np.argwhere(usual[2]).tolist() == [[0, 0], [1, 1]]
    assert hill[0][3:5, 3:5].min() == hill[0].max()


def test_no_two_runs_networks_are_in_memory_at_a_time_and_none_is_afterwards(
    data: PhantomDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = []

    def network(*_: object) -> CNN:
        assert all(known() is None for known in networks)
        model = CNN(ConvBackbone((4, 8)), **OPTIONS)
        networks.append(weakref.ref(model))
        return model

    monkeypatch.setattr(explainer, "instantiate", lambda *_, **__: data)
    monkeypatch.setattr("lungdet.runs.network.network", network)
    monkeypatch.setattr("lungdet.runs.network.randomised", lambda *_: CNN(ConvBackbone((4, 8)), **OPTIONS))
    trainer = {"accelerator": "cpu", "precision": "32-true", "memory_format": "contiguous_format"}
    runs = [Run(tmp_path / name, changed=OmegaConf.create({"trainer": trainer})) for name in "ab"]
    maps, asked = Explainer(["gradcam"], other=lambda run: None), data.manifest[:8].assign(label="abnormal")
    for run in runs:
        table = explanations._of_run(maps, SimpleNamespace(run=run, test=data.manifest), ("abnormal",))
        assert {*table["map"]} > {"gradcam", "gradcam random weights"}
        assert mistakes._maps(maps, run, asked).shape == (8, 32, 32)
    assert [known() for known in networks] == [None] * 4


def test_random_weights_are_drawn_and_not_learnt(tmp_path: Path) -> None:
    backbone = {"_target_": "lungdet.models.backbone.ConvBackbone", "widths": [4, 8]}
    model = {"_target_": "lungdet.models.cnn.CNN", **OPTIONS, "backbone": backbone}
    run = Run(tmp_path, changed=OmegaConf.create({"model": model}))
    first = randomised(run)
    torch.manual_seed(1)
    again = randomised(run)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name])
    assert first.backbone[0][0].weight.std() > 0.1
    assert torch.initial_seed() == 1  # nobody else's draws are others
