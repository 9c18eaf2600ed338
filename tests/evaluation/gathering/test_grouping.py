"""Runs are found, checked, paired on the same test part only, and grouped into models by their configuration."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lungdet.data.dicom.pseudonyms import keyed
from lungdet.errors import RunError
from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.gathering import models as gathered
from lungdet.evaluation.gathering.families import require_pairs
from lungdet.evaluation.gathering.models import Model, group
from lungdet.evaluation.gathering.results import EvaluationError, collect
from lungdet.evaluation.sections import runs
from lungdet.page.document import flat
from lungdet.page.wording import FLAGS, label
from lungdet.runs.folder import load_run
from tests.calling import CHECKOUT
from tests.evaluation.summaries import rendered, summarised
from tests.fake_runs import predictions, write_run


def test_a_folder_of_runs_is_searched_and_a_run_named_twice_counts_once(tmp_path):
    one = write_run(tmp_path / "sweep" / "0_cnn_seed0", "cnn", 0)
    two = write_run(tmp_path / "sweep" / "1_cnn_lstm_seed0", "cnn_lstm", 0)
    results, skipped = collect([tmp_path / "sweep", one])
    assert [result.run.folder for result in results] == [one, two]
    assert not skipped


def test_runs_that_cannot_be_evaluated_are_listed_with_the_reason(tmp_path):
    write_run(tmp_path / "0", "cnn", 0)
    write_run(tmp_path / "1", "cnn", 1, finished=False)
    diverged = predictions({"chestxray14": 68})
    diverged.loc[3, "probability_abnormal"] = np.nan
    write_run(tmp_path / "2", "cnn", 2, test=diverged)
    write_run(tmp_path / "4", "cnn", 4)
    (tmp_path / "4" / "predictions" / "val.parquet").write_bytes(b"PAR1 cut off")
    results, skipped = collect([tmp_path])
    assert [result.run.name for result in results] == ["0"]
    reasons = {one.folder.name: one.reason for one in skipped}
    assert "finish the run with: python train.py resume=" in reasons["1"]
    assert "NaN" in reasons["2"]
    assert "val.parquet cannot be read" in reasons["4"]


def test_a_run_that_still_trains_is_left_out_and_not_told_to_be_resumed(tmp_path):
    busy = write_run(tmp_path / "busy", "cnn", 0, finished=False)
    degraded_now = write_run(tmp_path / "degraded now", "cnn", 1)
    with FileLock(busy / ".lock"), FileLock(degraded_now / ".lock"):
        results, skipped = collect([tmp_path])
    [one] = skipped
    assert (one.folder, one.reason) == (busy, "it is being trained; evaluate it when it has finished")
    assert [result.run.folder for result in results] == [degraded_now]


def test_a_run_that_is_named_itself_must_be_whole(tmp_path):
    run = write_run(tmp_path / "cut", finished=False)
    with pytest.raises(RunError, match=f"resume={run}"):
        collect([run])


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="no such folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(EvaluationError, match=r"no run in it; a run is a folder that train\.py wrote"):
        collect([tmp_path])
    write_run(tmp_path / "0", finished=False)
    with pytest.raises(EvaluationError, match=r"no run can be evaluated:\n.*no predictions"):
        collect([tmp_path])


@pytest.mark.parametrize("part", ["test", "val"])
def test_damaged_predictions_are_refused_by_run_part_and_count(tmp_path, part):
    table = predictions({"chestxray14": 68})
    nan = table.copy()
    nan.loc[[3, 5], "probability_abnormal"] = np.nan
    with pytest.raises(RunError, match=rf"nan, {part} predictions: .* on 2 of 68 images, the first is chestxray14/"):
        collect([write_run(tmp_path / "nan", **{part: nan})])
    twice = table.copy()
    twice.loc[3, "image_id"] = twice.image_id[0]
    with pytest.raises(RunError, match=f"{part} predictions: 1 image.* more than once.*{twice.image_id[0]}"):
        collect([write_run(tmp_path / "twice", **{part: twice})])
    with pytest.raises(RunError, match=f"{part} predictions: no column dataset"):
        collect([write_run(tmp_path / "lacking", **{part: table.drop(columns="dataset")})])
    with pytest.raises(RunError, match="no image in the table"):
        collect([write_run(tmp_path / "empty", **{part: table.iloc[:0]})])


def test_a_run_without_a_recorded_split_is_refused(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "environment.json").write_text(json.dumps({"run": "run"}))
    with pytest.raises(EvaluationError, match=r"environment\.json records no split"):
        collect([run])


def test_different_test_parts_are_not_compared_and_both_hashes_are_named(tmp_path):
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", "cnn_lstm", split_seed=1)
    results, _ = collect([one, two])
    with pytest.raises(EvaluationError, match="their test parts differ") as caught:
        require_pairs(results)
    for part in (str(one), str(two), results[0].test_hash, results[1].test_hash):
        assert part in str(caught.value)


def test_equal_hashes_do_not_excuse_different_images_or_labels(tmp_path):
    table = predictions({"chestxray14": 68}, seed=1)
    one = write_run(tmp_path / "one", test=table)
    other_images = write_run(tmp_path / "images", test=table.iloc[:-1])
    relabelled = table.copy()
    relabelled.loc[4, "target_abnormal"] = 1 - relabelled.target_abnormal[4]
    other_labels = write_run(tmp_path / "labels", test=relabelled)
    environment = (one / "environment.json").read_text()
    unrelated = write_run(tmp_path / "patients", test=table.assign(patient_id=np.roll(table.patient_id, 1)))
    for folder, message in (
        (other_images, "its 67 images .* are not those of the test part"),
        (other_labels, "labels differ"),
        (unrelated, "patient_id differs on 67 image"),
    ):
        (folder / "environment.json").write_text(environment)
        with pytest.raises(EvaluationError, match=message):
            require_pairs(collect([one, folder])[0])


def test_the_order_of_rows_unknown_labels_and_another_key_of_patients_do_not_keep_runs_apart(tmp_path):
    table = predictions({"chestxray14": 68}, seed=1)
    table.loc[3, "target_abnormal"] = np.nan
    one = write_run(tmp_path / "one", test=table)
    two = write_run(tmp_path / "two", "cnn_lstm", test=table.sample(frac=1, random_state=0))
    renamed = table.assign(patient_id=table.patient_id.map(lambda name: keyed(name, b"another key of patients")))
    require_pairs(collect([one, two, write_run(tmp_path / "three", seed=1, test=renamed)])[0])


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


def pairs(configurations: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Which of these configurations are compared, by the names that a test gives them."""
    models = {}
    for name, configuration in configurations.items():
        flags = {flag: True for flag in FLAGS if configuration.get(flag) == "True"}
        models[Model(gathered.module(configuration["model._target_"]), {"name": name} | flags)] = configuration
    return [(first.settings["name"], second.settings["name"]) for first, second in gathered.pairs(models)]


def test_models_alike_but_for_their_class_are_the_ones_compared():
    def identity(target: str, fraction: str, split: str) -> dict:
        return {"model._target_": target, "model.width": "1", "data.train_fraction": fraction, "split": split}

    four = {
        f"{target} {fraction}": identity(target, fraction, fraction)
        for target in ("cnn", "lstm")
        for fraction in ("1", "2")
    }
    assert pairs(four) == [("cnn 1", "lstm 1"), ("cnn 2", "lstm 2")]
    two = {name: one for name, one in four.items() if name.startswith("cnn")}
    assert pairs(two) == [("cnn 1", "cnn 2")]
    assert pairs({"cnn 1": four["cnn 1"]}) == []


def configuration(model: str, **settings: str) -> dict[str, str]:
    """What `models.identity` gives of a model of `conf/model`."""
    base = model.removesuffix("_shuffled").removesuffix("_frozen")
    own = {"model._target_": f"lungdet.models.{base}.X", "model.sequence": "rows", "data.train_fraction": "1.0"}
    if base == "cnn_lstm":
        flags = {
            f"model.{key}": str(model.endswith(word)) for key, word in (("shuffle", "shuffled"), ("frozen", "frozen"))
        }
        own |= {"model.width": "128", "model.pooling": "last", **flags}
    more = {"cnn_mlp": {"model.width": "128"}, "pool": {"model.pooling": "mean"}}.get(base, {})
    return own | more | {key.replace("_", ".", 1): value for key, value in settings.items()} | {"split": str(settings)}


SEVEN = ("cnn", "cnn_lstm", "cnn_lstm_frozen", "cnn_lstm_shuffled", "cnn_mlp", "length_only", "pool")


def test_every_control_is_compared_with_the_cnn_lstm_and_with_nothing_else():
    models = {name: configuration(name) for name in SEVEN}
    assert pairs(models) == [(name, "cnn_lstm") for name in SEVEN if name != "cnn_lstm"]
    assert pairs({name: models[name] for name in ("cnn", "cnn_lstm")}) == [("cnn", "cnn_lstm")]
    alone = {name: models[name] for name in ("cnn_lstm", "cnn_lstm_shuffled")}
    assert pairs(alone) == [("cnn_lstm_shuffled", "cnn_lstm")]


def test_a_cnn_lstm_of_before_there_were_controls_is_one():
    older = {key: one for key, one in configuration("cnn_lstm").items() if key not in ("model.shuffle", "model.frozen")}
    models = {"cnn": configuration("cnn"), "cnn_lstm": older, "pool": configuration("pool")}
    assert pairs(models) == [("cnn", "cnn_lstm"), ("pool", "cnn_lstm")]


def test_in_a_sweep_over_data_each_cnn_lstm_meets_the_models_of_its_own_settings():
    models = {
        f"{name} {share}": configuration(name, data_train_fraction=share)
        for name in ("cnn", "cnn_lstm", "cnn_lstm_shuffled", "pool")
        for share in ("0.1", "1.0")
    }
    assert pairs(models) == [
        (f"{name} {share}", f"cnn_lstm {share}")
        for name in ("cnn", "cnn_lstm_shuffled", "pool")
        for share in ("0.1", "1.0")
    ]


def test_of_several_cnn_lstms_the_cnn_meets_each_and_a_control_the_one_that_it_controls():
    models = {"cnn": configuration("cnn")} | {
        f"{name} {sequence}": configuration(name, model_sequence=sequence)
        for name in ("cnn_lstm", "cnn_lstm_shuffled", "pool")
        for sequence in ("columns", "rows")
    }
    assert pairs(models) == [
        ("cnn", "cnn_lstm columns"),
        ("cnn", "cnn_lstm rows"),
        *[
            (f"{name} {one}", f"cnn_lstm {one}")
            for name in ("cnn_lstm_shuffled", "pool")
            for one in ("columns", "rows")
        ],
    ]
    two = {name: one for name, one in models.items() if name.startswith("cnn_lstm ")}
    assert pairs(two) == [("cnn_lstm columns", "cnn_lstm rows")]
    wide = configuration("cnn_lstm", model_width="256")
    assert pairs({"cnn": models["cnn"], "narrow": configuration("cnn_lstm"), "wide": wide}) == [
        ("cnn", "narrow"),
        ("cnn", "wide"),
    ]


def test_of_a_grid_each_meets_the_model_of_its_own_values_alone():
    models = {
        f"{name} {dropout}": configuration(name, model_dropout=dropout)
        for name in ("cnn", "cnn_lstm")
        for dropout in ("0.1", "0.2", "0.5")
    }
    assert pairs(models) == [(f"cnn {dropout}", f"cnn_lstm {dropout}") for dropout in ("0.1", "0.2", "0.5")]
    del models["cnn 0.1"]
    assert ("cnn 0.2", "cnn_lstm 0.1") in pairs(models)  # rather than none


def test_without_a_cnn_lstm_models_are_paired_by_class_as_ever():
    models = {name: configuration(name) for name in ("cnn", "cnn_lstm_frozen", "cnn_lstm_shuffled")}
    assert pairs(models) == [("cnn", "cnn_lstm_frozen"), ("cnn", "cnn_lstm_shuffled")]
