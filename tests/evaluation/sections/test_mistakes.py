"""The most confident mistakes are the right images with their pixels, or a list that says why there are none."""

import base64
import io
import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lungdet.data.splitting.splits import hash_of
from lungdet.evaluation.gathering.models import group
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import mistakes
from lungdet.findings import FINDINGS
from lungdet.page.document import Document, Pictures, Section, Table, Text, flat
from lungdet.page.html import html
from tests.fake_runs import consistent, fold_of, predictions, write_run


def run(folder, probability, target, patients=None, store=None, **more):
    """A run whose test images have these probabilities and targets, each of its own patient if none are given."""
    test = predictions({"chestxray14": len(target)}, seed=3)
    test["target_abnormal"] = np.float32(target)
    test = consistent(test.assign(probability_abnormal=np.float32(probability)))
    for finding in FINDINGS:
        test[f"target_{finding}"] = np.float32(0)
    test["target_effusion"] = test["target_abnormal"].fillna(0)
    test["patient_id"] = [f"chestxray14/p{i}" for i in (range(len(target)) if patients is None else patients)]
    test["image_id"] = [f"chestxray14/i{i:02}" for i in range(len(target))]
    write_run(folder, test=test, **more)
    return remember(folder, store), test


def remember(folder, store):
    path = folder / "environment.json"
    facts = json.loads(path.read_text())
    facts["data"]["store"] = store and str(store)
    path.write_text(json.dumps(facts))
    return folder


def keep(folder, ids, size=32, images=None):
    """A prepared store of these images; the shade tells which one it is."""
    folder.mkdir(parents=True)
    if images is None:
        images = np.stack([np.full((size, size), 10 + 5 * i, np.uint8) for i in range(len(ids))])
    order = np.random.default_rng(0).permutation(len(ids))
    np.save(folder / "images.npy", images[order])
    pd.DataFrame({"image_id": np.array(ids)[order]}).to_parquet(folder / "manifest.parquet")
    return folder


def section(folder, task="abnormal", explainer=None):
    results = collect([folder])[0]
    models, _ = group(results)
    study = SimpleNamespace(models=models, results=results, explainer=explainer, external=None)
    return [*flat(mistakes.show({"task": task}, study))]


def listed(blocks):
    """The image ids of every list, pictures and tables alike."""
    found = []
    for block in blocks:
        if isinstance(block, Text) and ", seed " in block.text:
            found.append([])
        if isinstance(block, Pictures):
            found[-1] += [one.caption.split("`")[1] for one in block.pictures]
        if isinstance(block, Table):
            found[-1] += [row[0].strip("`") for row in block.rows]
    return found


def said(blocks):
    return [block.text for block in blocks if isinstance(block, Text)]


def ids(*numbers):
    return [f"chestxray14/i{i:02}" for i in numbers]


def test_the_most_confident_come_first_and_no_more_than_four(tmp_path):
    probability = [0.6, 0.9, 0.7, 0.95, 0.51, 0.5, 0.4, 0.1, 0.5, 0.99]
    target = [0, 0, 0, 0, 0, 0, 1, 1, 1, np.nan]
    run(tmp_path / "a", probability, target)
    blocks = section(tmp_path)
    assert listed(blocks) == [ids(3, 1, 2, 0), ids(7, 6, 8)]
    assert "CNN, seed 0: 5 normal images called abnormal, of which 4 are shown." in said(blocks)
    assert "CNN, seed 0: 3 abnormal images called normal." in said(blocks)


def test_a_patient_stands_there_once_unless_there_are_too_few(tmp_path):
    target, probability = [0] * 6, [0.9, 0.8, 0.7, 0.65, 0.6, 0.55]
    run(tmp_path / "many", probability, target, patients=[0, 0, 0, 1, 2, 3])
    assert listed(section(tmp_path / "many"))[0] == ids(0, 3, 4, 5)
    run(tmp_path / "few", probability, target, patients=[0, 0, 0, 1, 1, 1])
    assert listed(section(tmp_path / "few"))[0] == ids(0, 1, 2, 3)


def test_ties_are_broken_by_the_image_and_every_call_says_the_same(tmp_path):
    run(tmp_path / "a", [0.8] * 6, [0] * 6)
    assert listed(section(tmp_path))[0] == ids(0, 1, 2, 3)
    assert section(tmp_path) == section(tmp_path)


def test_no_mistake_is_said_to_be_none(tmp_path):
    run(tmp_path / "a", [0.1, 0.9], [0, 1])
    blocks = section(tmp_path)
    assert "CNN, seed 0: no normal image called abnormal." in said(blocks)
    assert "CNN, seed 0: no abnormal image called normal." in said(blocks)
    assert listed(blocks) == [[], []]


def test_pictures_show_the_very_pixels_of_the_store(tmp_path):
    store = keep(tmp_path / "store", ids(*range(6)))
    run(tmp_path / "runs" / "a", [0.9, 0.2, 0.7, 0.3, 0.1, 0.9], [0, 1, 0, 1, 0, 1], store=store)
    blocks = section(tmp_path / "runs")
    grids = [block for block in blocks if isinstance(block, Pictures)]
    shades = [[np.unique(np.asarray(Image.open(io.BytesIO(p.data)))).tolist() for p in g.pictures] for g in grids]
    assert shades == [[[10], [20]], [[15], [25]]]
    assert not [block for block in blocks if isinstance(block, Table)]
    assert not [text for text in said(blocks) if "not shown" in text]
    first = grids[0].pictures[0]
    assert first.caption == "`chestxray14/i00`: abnormal 0.900; labelled no finding"
    assert "chestxray14/i00" in first.alt
    assert "CNN" in first.alt
    assert grids[1].pictures[0].caption.endswith(": abnormal 0.200; labelled effusion")
    names = [p.name for g in grids for p in g.pictures]
    assert len(names) == len(set(names))


def broken(folder):
    (folder / "images.npy").write_bytes(b"no array")


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        (lambda folder: folder / "gone", "the prepared store `gone` is no longer on this machine"),
        (lambda folder: keep(folder / "other", ["x/1"]), "the prepared store `other` does not hold them (2 images)"),
        (lambda folder: keep(folder / "flat", ids(0, 1), images=np.zeros((2, 9), np.uint8)), "cannot be read (images"),
        (lambda folder: broken(keep(folder / "bad", ids(0, 1))) or folder / "bad", "`bad` cannot be read ("),
    ],
)
def test_without_the_store_there_is_a_list_and_the_reason(tmp_path, store, reason):
    run(tmp_path / "runs" / "a", [0.9, 0.2], [0, 1], store=store(tmp_path))
    blocks = section(tmp_path / "runs")
    [text] = [text for text in said(blocks) if "not shown" in text]
    assert reason in text
    tables = [block for block in blocks if isinstance(block, Table)]
    assert tables[0].columns == ["Image", "Dataset", "Labelled", "Probability"]
    assert tables[0].rows == [["`chestxray14/i00`", "chestxray14", "no finding", "0.900"]]
    assert tables[1].rows == [["`chestxray14/i01`", "chestxray14", "effusion", "0.200"]]


def test_images_that_the_store_lacks_are_listed_beside_the_pictures(tmp_path):
    store = keep(tmp_path / "store", ids(0))
    run(tmp_path / "runs" / "a", [0.9, 0.8], [0, 0], store=store)
    blocks = section(tmp_path / "runs")
    [grid], [table] = ([b for b in blocks if isinstance(b, kind)] for kind in (Pictures, Table))
    assert ids(0)[0] in grid.pictures[0].caption
    assert table.rows[0][0] == "`chestxray14/i01`"


def test_each_fold_has_a_store_of_its_own(tmp_path):
    for fold in range(2):
        store = keep(tmp_path / f"store{fold}", ["x/0", *ids(0, 1)], images=np.full((3, 8, 8), 50 + fold, np.uint8))
        part = fold_of(fold, 2)
        folder, test = run(tmp_path / "runs" / str(fold), [0.9 - fold / 10, 0.2], [0, 1], store=store, split=part)
        test["image_id"] = [f"{i}-{fold}" for i in test["image_id"]]
        test.to_parquet(folder / "predictions" / "test.parquet")
        environment = json.loads((folder / "environment.json").read_text())
        environment["split"]["parts"]["test"]["hash"] = hash_of(test["image_id"].sort_values())
        (folder / "environment.json").write_text(json.dumps(environment))
        table = pd.read_parquet(store / "manifest.parquet")
        table["image_id"] += f"-{fold}"
        table.to_parquet(store / "manifest.parquet")
    grids = [block for block in section(tmp_path / "runs") if isinstance(block, Pictures)]
    assert [one.caption.split("`")[1] for one in grids[0].pictures] == ["chestxray14/i00-0", "chestxray14/i00-1"]
    assert [Image.open(io.BytesIO(one.data)).getpixel((0, 0)) for one in grids[0].pictures] == [50, 51]


def test_of_several_seeds_the_first_is_shown_and_of_several_models_each(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        for seed in (0, 1):
            run(tmp_path / f"{model}{seed}", [0.9, 0.2], [0, 1], model=model, seed=seed)
    whose = [text.split(":")[0] for text in said(section(tmp_path)) if ", seed " in text]
    assert whose == ["CNN, seed 0", "CNN, seed 0", "CNN-LSTM, seed 0", "CNN-LSTM, seed 0"]


def test_findings_are_named_and_an_image_may_be_wrong_about_several(tmp_path):
    test = predictions({"chestxray14": 6}, seed=1, labels=FINDINGS)
    for finding in FINDINGS:
        test[f"target_{finding}"] = np.float32(0)
        test[f"probability_{finding}"] = np.float32(0.1)
    test["target_tuberculosis"] = np.nan
    test["probability_tuberculosis"] = np.float32(0.99)
    test.loc[0, ["probability_hernia", "probability_mass"]] = 0.9, 0.8
    test.loc[4, "target_nodule"] = 1
    write_run(tmp_path / "a", test=test, task="findings")
    blocks = section(tmp_path, task="findings")
    tables = [block for block in blocks if isinstance(block, Table)]
    image = test["image_id"]
    assert tables[0].columns == ["Image", "Dataset", "Finding", "Labelled", "Probability"]
    assert [row[2] for row in tables[0].rows] == ["hernia", "mass (proxy for cancer)"]
    assert [row[0] for row in tables[0].rows] == [f"`{image[0]}`"] * 2
    assert tables[1].rows[0][2:] == ["nodule (proxy for cancer)", "nodule (proxy for cancer)", "0.100"]
    assert "CNN, seed 0: 2 absent findings called present." in said(blocks)
    assert "CNN, seed 0: 1 present finding called absent." in said(blocks)


def test_the_page_stays_small_however_many_models_there_are(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 512, 512), np.uint8)
    store = keep(tmp_path / "store", ids(*range(8)), images=noise)
    for number in range(5):
        config = {"model.sequence": f"s{number}"}
        run(tmp_path / "runs" / str(number), [0.9] * 4 + [0.1] * 4, [0] * 4 + [1] * 4, store=store, config=config)
    blocks = section(tmp_path / "runs")
    pictures = [one for block in blocks if isinstance(block, Pictures) for one in block.pictures]
    assert len(pictures) == 40
    assert sum(len(one.data) for one in pictures) <= mistakes.BUDGET
    page = html(Document("T", "A", [Section("M", blocks)]))
    assert len(page) < 2_000_000
    assert base64.b64encode(pictures[0].data).decode() in page


def test_what_cannot_be_made_small_enough_is_listed(tmp_path, monkeypatch):
    store = keep(tmp_path / "store", ids(0, 1))
    run(tmp_path / "runs" / "a", [0.9, 0.2], [0, 1], store=store)
    monkeypatch.setattr(mistakes, "BUDGET", 10)
    blocks = section(tmp_path / "runs")
    assert not [block for block in blocks if isinstance(block, Pictures)]
    assert any("would make this page too large" in text for text in said(blocks))
    assert listed(blocks) == [ids(0), ids(1)]


def test_a_picture_is_no_larger_than_it_has_to_be(tmp_path):
    store = keep(tmp_path / "store", ids(0, 1), size=700)
    run(tmp_path / "runs" / "a", [0.9, 0.2], [0, 1], store=store)
    [first, _] = [block for block in section(tmp_path / "runs") if isinstance(block, Pictures)]
    assert Image.open(io.BytesIO(first.pictures[0].data)).size == (224, 224)


def test_heat_is_drawn_on_each_mistake_where_it_is_asked_for(tmp_path):
    class Explainer:
        methods = ("gradcam",)

        def opened(self, run):
            return nullcontext(self)

        def maps(self, images, labels, method):
            assert labels == ["abnormal"] * len(images)
            heat = np.zeros((len(images), 32, 32), np.float32)
            heat[:, :8, :8] = 1
            return heat

    folder, test = run(tmp_path / "run", [0.9, 0.1], [0, 1])
    remember(folder, keep(tmp_path / "store", test["image_id"].tolist()))
    blocks = section(folder, explainer=Explainer())
    pictures = [picture for block in blocks if isinstance(block, Pictures) for picture in block.pictures]
    assert len(pictures) == 2
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(picture.data))).astype(int)
        assert pixels.ndim == 3
        assert pixels[5, 5, 0] - pixels[5, 5, 2] > 50  # yellow
        assert np.ptp(pixels[-5, -5]) == 0  # grey
    assert "Yellow is what speaks for the finding, by Grad-CAM" in blocks[0].text
