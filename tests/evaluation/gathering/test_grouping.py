"""Runs are grouped into models by their configuration, and models are called by what tells them apart."""

import json
import re
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.gathering import models as gathered
from lungdet.evaluation.gathering.models import Model, group
from lungdet.evaluation.gathering.results import EvaluationError, collect
from lungdet.evaluation.sections import runs
from lungdet.page.document import flat
from lungdet.page.wording import label
from lungdet.runs.folder import load_run
from tests.calling import CHECKOUT
from tests.evaluation.summaries import rendered, summarised
from tests.fake_runs import write_run


def test_runs_that_differ_in_how_they_learn_are_models_of_their_own_and_named_by_it(tmp_path):
    plateau = {f"schedule.{key}": value for key, value in {"_target_": "torch.optim.x.Plateau", "patience": 3}.items()}
    averaged = {"trainer.averaging": 0.98}
    cosine = {"schedule._target_": "torch.optim.x.Cosine", "schedule.eta_min": 0.0}
    for i, settings in enumerate((plateau | averaged, cosine | averaged, plateau | {"trainer.averaging": None})):
        for seed in (0, 1):
            write_run(tmp_path / f"{i}_{seed}", "cnn", seed, config=settings)
    models, _ = group(collect([tmp_path])[0])
    assert {label(model): len(replicates) for model, replicates in models.items()} == {
        "CNN schedule=Plateau schedule.patience=3 trainer.averaging=0.98": 2,
        "CNN schedule=Cosine schedule.eta_min=0.0 trainer.averaging=0.98": 2,
        "CNN schedule=Plateau schedule.patience=3 trainer.averaging=None": 2,
    }
    assert len(gathered.kinds(models)) == 2  # of one network, with an average of it or without
    write_run(tmp_path / "sgd", "cnn", 0, config=plateau | averaged | {"optimizer._target_": "torch.optim.SGD"})
    assert len(gathered.kinds(group(collect([tmp_path])[0])[0])) == 3  # a step of which costs another


def test_the_report_says_which_models_learn_otherwise_than_the_study(tmp_path):
    averaged = {"trainer.averaging": 0.98, "optimizer._target_": "torch.optim.AdamW", "model.warm_up": 0.0}
    write_run(tmp_path / "cnn", "cnn", config=averaged)
    write_run(tmp_path / "lstm", "cnn_lstm", config={"trainer.averaging": None})
    told = rendered(runs.tell(summarised(tmp_path, draws=20)))
    words = "CNN with `optimizer=AdamW` and `trainer.averaging=0.98`"
    assert f"Trained otherwise than the study's models: {words}.\n" in told


def test_runs_that_differ_in_seed_and_places_alone_are_one_model(tmp_path):
    for seed in (2, 0, 1):
        places = {
            "data.root": f"/elsewhere/{seed}",
            "data.pseudonymize": f"/{seed}/key",
            "data.num_workers": seed,
            "model.seed": seed,
            "outputs": str(seed),
        }
        write_run(tmp_path / f"cnn{seed}", "cnn", seed, config=places)
        write_run(tmp_path / f"lstm{seed}", "cnn_lstm", seed)
    models = group(collect([tmp_path])[0])[0]
    assert {name: [run.seed for run in runs] for name, runs in models.items()} == {
        "cnn": [0, 1, 2],
        "cnn_lstm": [0, 1, 2],
    }


@pytest.mark.parametrize(("key", "kinds"), [("table", ("images", "patients", "labels")), ("split_file", ("split",))])
def test_of_a_users_file_it_counts_what_it_says_and_not_where_it_lies(tmp_path, key, kinds):
    for name, seed, content in (("a", 0, "1234"), ("b", 1, "1234"), ("a", 0, "5678")):
        folder = write_run(tmp_path / f"{name}{content}", "cnn", seed, config={f"data.{key}": f"/{name}/{name}.csv"})
        path = folder / "environment.json"
        environment = json.loads(path.read_text())
        environment["data"]["identity"] = {kind: {"hash": content} for kind in kinds}
        path.write_text(json.dumps(environment))
    models = group(collect([tmp_path])[0])[0]
    assert sorted([run.seed for run in runs] for runs in models.values()) == [[0], [0, 1]]
    assert all(re.fullmatch(f"cnn data.{key}=a-[0-9a-f]{{8}}", name) for name in models)


def test_every_key_that_is_no_matter_of_the_model_is_in_the_configuration():
    def keys(config):
        return set(config) | {key for node in config.values() if isinstance(node, dict) for key in keys(node)}

    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(
            compose("train", ["degrade=standard", "data=folder"], return_hydra_config=True), resolve=False
        )
    assert keys(config) >= gathered.NOT_THE_MODEL


def test_variants_of_one_class_are_told_apart_by_the_keys_that_differ(tmp_path):
    write_run(tmp_path / "a", "cnn", 0)
    write_run(tmp_path / "b", "cnn_lstm", 0)
    write_run(tmp_path / "c", "cnn_lstm", 0, config={"model.sequence": "columns"})
    write_run(tmp_path / "d", "cnn_lstm", 0, config={"model.sequence": "columns", "trainer.max_epochs": 9})
    assert list(group(collect([tmp_path])[0])[0]) == [
        "cnn",
        "cnn_lstm model.sequence=columns trainer.max_epochs=3",
        "cnn_lstm model.sequence=columns trainer.max_epochs=9",
        "cnn_lstm model.sequence=rows trainer.max_epochs=3",
    ]


def started(folder: Path, start: Path | None, seed: int, **more) -> None:
    """A run that started from another, or from none, as training leaves it."""
    backbone = {"init_from": start and str(start), "frozen": True}
    write_run(folder, seed=seed, config={"model.backbone": backbone}, **more)
    if start is not None:
        load_run(folder).keep_start(load_run(start))


def test_runs_that_started_from_one_model_under_several_seeds_are_one_model(tmp_path):
    starts = {
        (what, seed): write_run(tmp_path / f"starts/{what}{seed}", seed=seed, config={"model.dropout": dropout})
        for what, dropout in (("a", 0.1), ("b", 0.2))
        for seed in (0, 1)
    }
    for seed in (0, 1):
        started(tmp_path / f"runs/anew{seed}", None, seed)
        for what in "ab":
            started(tmp_path / f"runs/{what}{seed}", starts[what, seed], seed)
    shutil.rmtree(tmp_path / "starts")
    models = group(collect([tmp_path / "runs"])[0])[0]
    assert [[one.seed for one in some] for some in models.values()] == [[0, 1]] * 3
    names = sorted(re.sub("cnn-[0-9a-f]{8}$", "cnn-*", name) for name in models)
    assert names == ["cnn model.backbone.init_from=None", *["cnn model.backbone.init_from=cnn-*"] * 2]


@pytest.mark.parametrize(
    ("cnn", "lstm", "shared", "differ"),
    [
        ((None, None), (None, None), False, False),
        (("a", "b"), ("a", "b"), False, False),
        (("a", "a"), ("a", "a"), True, False),
        (("a", "a"), (None, None), True, True),
        (("a", "b"), ("b", "a"), False, True),
    ],
)
def test_seeds_that_share_a_start_and_models_that_do_not_are_a_caveat(tmp_path, cnn, lstm, shared, differ):
    starts = {name: write_run(tmp_path / f"starts/{name}", seed=seed) for seed, name in enumerate("ab")} | {None: None}
    for model, names in (("cnn", cnn), ("cnn_lstm", lstm)):
        for seed, name in enumerate(names):
            started(tmp_path / f"runs/{model}{seed}", starts[name], seed, model=model)
    numbers = summarised(tmp_path / "runs", draws=50)
    doubts = "\n".join(caveats(numbers))
    assert ("start from one run's convolutional layers" in doubts) == shared
    assert ("Frozen, as in CNN" in doubts) == shared
    assert ("The models do not start from the same runs: CNN" in doubts) == differ
    assert "differ in more than their class" not in doubts
    [table] = flat(runs.tell(numbers))
    assert ("Started from" in table.columns) == any((*cnn, *lstm))


def test_a_control_is_known_by_its_configuration_and_never_goes_by_the_name_of_the_cnn_lstm(tmp_path):
    plain, shuffled = {"model.shuffle": False, "model.frozen": False}, {"model.shuffle": True, "model.frozen": False}
    run = write_run(tmp_path / "shuffled", "cnn_lstm", config=shuffled)
    assert list(group(collect([run])[0])[0]) == ["cnn_lstm model.shuffle=True"]
    write_run(tmp_path / "plain", "cnn_lstm", config=plain)
    models = group(collect([tmp_path])[0])[0]
    assert {label(model): model.role for model in models} == {
        "CNN-LSTM": "cnn_lstm",
        "CNN-LSTM shuffled": "cnn_lstm_shuffled",
    }
    settings = {"data.train_fraction": 0.1, "model.frozen": True, "model.sequence": "visits", "model.shuffle": "none"}
    assert label(Model("cnn_lstm", settings)) == "CNN-LSTM data.train_fraction=0.1 frozen sequence=visits"
    assert label(Model("cnn", {}, "resnet18")) == "CNN on resnet18"  # no network of the study's
    assert label(Model(gathered.module("clinic.cnn.Net"))) == "cnn.Net"
    bases = ("cnn_mlp", "pool", "length_only")
    assert [label(Model(base)) for base in bases] == ["CNN-MLP", "pooled steps", "length alone"]


def test_one_seed_twice_in_a_model_is_refused_naming_both_runs(tmp_path):
    one, two = write_run(tmp_path / "one", seed=3), write_run(tmp_path / "two", seed=3)
    with pytest.raises(EvaluationError, match=f"{one} and {two} are the same model with the same seed 3"):
        group(collect([tmp_path])[0])


def test_settings_that_differ_between_models_are_found_where_both_have_them(tmp_path):
    write_run(tmp_path / "a", "cnn", 0)
    write_run(tmp_path / "b", "cnn_lstm", 1, config={"trainer.max_epochs": 9, "model.layers": 2})
    identities = [gathered.identity(result.run) for result in collect([tmp_path])[0]]
    assert gathered.differences(identities, shared_only=True) == ["model._target_", "trainer.max_epochs"]
