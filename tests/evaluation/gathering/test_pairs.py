"""Models are compared with the CNN-LSTM of their own settings: every control is, and of a grid no two values are."""

from lungdet.evaluation.gathering import models as gathered
from lungdet.evaluation.gathering.models import Model
from lungdet.page.wording import FLAGS


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
