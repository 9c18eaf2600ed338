"""Nobody's configuration calls anything but lungdet's own classes and those of packages that the command trusts."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError, RunError
from lungdet.evaluation.costs.network import Network, Place
from lungdet.models.backbone import ConvBackbone
from lungdet.models.cnn import CNN
from lungdet.runs import continuing, identity, starting
from lungdet.runs.folder import Run, load_run
from lungdet.training import fitting, pretraining
from lungdet.training.checkpoints import Checkpoints
from lungdet.training.scoring import score
from tests.calling import composed
from tests.fake_runs import write_run

READERS: dict[str, Callable[[Run], object]] = {
    "evaluate": lambda run: Network(run, Place("cpu", "32-true", "contiguous_format", 32)),
    "evaluate data=..": lambda run: score(run, run.config.data),
    "resume": fitting.build_model,
}
OWN_MODELS = """
import os
from subprocess import check_output

from lungdet.models.cnn import CNN


class Net(CNN):
    pass


def net(**options):
    return Net(**options)
"""


@cache
def small(*changes: str) -> DictConfig:
    words = ["model=cnn", "model.backbone.widths=[4]", "data.image_size=32", "logger=csv"]
    return composed("train", *words, *changes)


def configured(folder: Path, *changes: str) -> DictConfig:
    config = deepcopy(small(*changes))
    config.outputs, config.run_dir = str(folder), f"{folder}/run"
    return config


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownmodels.py").write_text(OWN_MODELS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("key", ["model", "model.backbone", "model.gap", "model.class_weights"])
@pytest.mark.parametrize("reader", READERS)
def test_a_run_folders_configuration_runs_no_code_of_its_choice(reader: str, key: str, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return open, (str(tmp_path / "it ran"), "w")

    (tmp_path / "payload").write_bytes(pickle.dumps(Payload()))
    config = configured(tmp_path)
    call = {"_target_": "pandas.read_pickle", "_args_": [str(tmp_path / "payload")]}
    OmegaConf.update(config, key, [call] if key == "model.class_weights" else call, merge=False)
    OmegaConf.update(config, "trust", ["pandas"], force_add=True)
    folder = write_run(tmp_path / "foreign")
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    with pytest.raises(Exception) as refusal:  # noqa: PT011
        READERS[reader](load_run(folder))
    assert not (tmp_path / "it ran").exists()
    assert isinstance(refusal.value, InputError)
    assert "_target_=pandas.read_pickle is no class of lungdet's" in str(refusal.value)
    assert "add 'trust=[pandas]' to the command" in str(refusal.value)


@pytest.mark.parametrize(
    ("which", "read"),
    [
        ("best", lambda run: pretraining.load(ConvBackbone([4]), str(run.folder))),
        ("best", lambda run: Checkpoints().load_checkpoint(run.checkpoint("best"))),  # as the trainer does
        ("last", lambda run: continuing.going_on(run, run.config)),
    ],
    ids=["weights", "trainer", "resume"],
)
def test_a_checkpoint_that_holds_code_is_not_read(tmp_path: Path, which: str, read: Callable[[Run], object]) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return open, (str(tmp_path / "it ran"), "w")

    folder = write_run(tmp_path / "foreign")
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": Payload()}, folder / "checkpoints" / f"{which}.ckpt")
    with pytest.raises(RunError, match=rf"^{folder}/checkpoints/{which}\.ckpt holds more than"):
        read(load_run(folder))
    assert not (tmp_path / "it ran").exists()


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("os.system", r"add 'trust=\[ownmodels,os\]'"),
        ("lungdetx.models.cnn.CNN", r"add 'trust=\[ownmodels,lungdetx\]'"),
        ("lungdet.models.gone.Gone", "No module named 'lungdet.models.gone'"),
        ("lungdet.models.cnn.CNNX", "there is no CNNX in lungdet.models.cnn"),
        ("lungdet.models.cnn.CNN.load_from_checkpoint", "not a package"),
        ("lungdet.training.predicting.pd.read_pickle", "not a package"),
        ("lungdet.sweeps.preceding.Preceding", "no model, backbone, dataset or augmentation"),
        ("lungdet.machine.launching.launch", "no model, backbone, dataset or augmentation"),
        ("lungdet.data.serving.loading.Path", "no model, backbone, dataset or augmentation"),
        ("ownmodels.os.system", "not a package"),
        ("ownmodels.check_output", "nor defined in ownmodels"),
        ("CNN", "package.module.Class"),
        (None, "package.module.Class"),
    ],
)
def test_only_what_is_offered_or_defined_in_a_trusted_package_is_let_in(
    target: str | None, reason: str, tmp_path: Path
) -> None:
    from lungdet.instantiation import instantiate

    config = configured(tmp_path)
    config.model._target_ = target
    with pytest.raises(InputError, match=rf"^model\._target_={target}\b.*{reason}"):
        instantiate("model", config.model, ["ownmodels"])


@pytest.mark.usefixtures("own_models")
@pytest.mark.parametrize("target", ["ownmodels.Net", "ownmodels.net", "ownmodels.CNN"])
def test_models_of_a_trusted_package_are_built(target: str, tmp_path: Path) -> None:
    from lungdet.instantiation import instantiate

    config = configured(tmp_path, f"model._target_={target}")
    assert isinstance(instantiate("model", config.model, ["ownmodels"]), CNN)
    with pytest.raises(InputError, match=r"trust=ownmodels: .* trust=\[mypackage\]"):
        instantiate("model", config.model, "ownmodels")


def test_a_value_that_would_be_filled_in_only_while_objects_are_made_is_refused(tmp_path: Path) -> None:
    from lungdet.instantiation import instantiate

    config = configured(tmp_path)
    config.model.gap = r"\${oc.create:{_target_: os.system}}"
    with pytest.raises(InputError, match=r"model\.gap=\$\{oc\.create"):
        instantiate("model", config.model)


def test_a_class_that_is_not_trusted_is_refused_before_a_run_folder_is_made(tmp_path: Path) -> None:
    config = configured(tmp_path, "model._target_=ownmodels.Net")
    with pytest.raises(InputError, match=r"'trust=\[ownmodels\]'"), starting.start(config):
        pass
    assert not (tmp_path / "run").exists()


def test_trust_is_kept_in_no_run_folder_and_makes_no_other_run(tmp_path: Path) -> None:
    with starting.start(configured(tmp_path, "trust=[ownmodels]", "model._target_=ownmodels.Net")) as run:
        assert "trust" not in run.config
    plain, trusting = configured(tmp_path), configured(tmp_path, "trust=[ownmodels]")
    assert identity.fingerprint(plain) == identity.fingerprint(trusting)
