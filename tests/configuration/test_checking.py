"""What a command asks for that is not there, or cannot be, is refused in one line before any folder is made."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

import train
from lungdet.configuration import checking
from lungdet.configuration.nearest import nearest
from lungdet.configuration.trainer import require_trainable
from lungdet.errors import InputError
from lungdet.programs import check, evaluate
from tests.calling import CHECKOUT, call

TINY = (
    "~data.patients.chestxray14",
    "~data.patients.shenzhen",
    "data.patients.montgomery=20",
    "data.size=64",
    "data.image_size=32",
    "data.num_workers=0",
    "logger=csv",
)


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert not [*tmp_path.glob("outputs/runs/*")]
    assert not [path for path in tmp_path.glob("outputs/sweeps/*/*") if path.name != "multirun.yaml"]


def refusal(folder: Path, *words: str, program=train) -> str:
    done = call(program, *words, cwd=folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith(("train.py: ", "lungdet "))]
    return line.partition(": ")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=0.1"], "lr: there is no such key; did you mean model.learning_rate?"),
        (["+lr=0.1"], "lr: there is no such key; did you mean model.learning_rate?"),
        (["-m", "+lr=0.1,0.2"], "lr: there is no such key; did you mean model.learning_rate? (in the job +lr=0.1)"),
        (["model=cn"], "model=cn: there is no such choice; did you mean cnn?"),
        (["-m", "hydra/launcher=job", "seed=0,1"], "hydra/launcher=job: there is no such choice; there are basic, "),
        (["-m", "hydra/launcher=null", "seed=0,1"], "hydra/launcher=null: a choice is needed, of basic, "),
        (["experiment=[paper,smok]"], "experiment=smok: there is no such choice; did you mean smoke?"),
        (["cnn_lstm"], "cnn_lstm: not to be read as key=value; did you mean model=cnn_lstm?"),
        (["model=cnn,cnn_lstm"], "model=cnn,cnn_lstm: several values make several runs; add -m"),
        (["model=[cnn,cnn_lstm]"], "model=[cnn,cnn_lstm]: one choice is needed; a run of each is -m"),
        (["seed=1", "-m", "model=cnn,cnn_lstm"], "model=cnn,cnn_lstm: options such as -m stand before all values"),
        (["logger=null"], "logger=null: a choice is needed, of csv, "),
        (["-m", "logger=csv,null"], "logger=null: a choice is needed, of csv, "),
        (["+seed=1"], "+seed=1: the key is there already; leave the + out"),
        (["--lr", "0.1"], "--lr: no such option; a value is given as key=value; did you mean model.learning_rate?"),
        (["seed=[1"], "seed=[1: not to be read as key=value; a value with a space"),
        (["data=table"], "data.table has no value yet; give data.table=VALUE"),
        (["-m", "seed=0,1", "model.hidden=1.5"], "model.hidden=1.5: a whole number is needed (in the job seed=0"),
        (["-m", "seed=0,1", "logger.lightning.tracking_uri=https://me:a@b"], "logger.lightning.tracking_uri: a user"),
        (["+hydra.sweeper.storage=postgresql://:secret@server/trials"], "hydra.sweeper.storage: a user or password "),
        (["http://me:secret@server"], "http: a user or password stands in the address"),
        (["-m", "find=lr,batch_size", "find.batch_size.mode=up"], "find.batch_size.mode: there is no such key"),
        (["trainer.max_epochs=ten"], "trainer.max_epochs=ten: at least one epoch"),
        (["-m", "trainer.accumulate_grad_batches=1,0"], "trainer.accumulate_grad_batches=0: at least one batch is"),
        (["trainer.gradient_clip_val=nan"], "trainer.gradient_clip_val=nan: a norm above 0 (null: none is clipped) is"),
        (["trainer.devices=1.5"], "trainer.devices=1.5: at least one: how many, which ([0,2]), or auto for all"),
        (["model.dropout=nan"], "model.dropout=nan: a number is needed"),
        (["sweep.name=x"], "sweep.name names the folder of several jobs: add -m"),
        (["outputs=/proc/x"], "outputs=/proc/x: nothing can be written in /proc (No such file or directory); name"),
        (["-m", "seed=0,1", "outputs=/proc/x"], "outputs=/proc/x: nothing can be written in /proc"),
        (["hydra.run.dir=/proc/x/${seed}"], "hydra.run.dir=/proc/x: nothing can be written in /proc"),
    ],
)  # fmt: skip
def test_it_is_told_before_anything_is_made(tmp_path: Path, words: list[str], message: str) -> None:
    assert refusal(tmp_path, *words).startswith(message)
    assert not [*tmp_path.iterdir()]


def test_keys_and_kinds_are_those_of_the_choices_which_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {
        "++epochs=5": "epochs: there is no such key; did you mean trainer.max_epochs?",
        "outputs=https://token@server": "outputs: a user or password stands in the address",
        "+modle=cnn": "modle: there is no such key; did you mean model?",
        "+model.layer=3 model=cnn_lstm": "model.layer: there is no such key; did you mean model.layers?",
        "+trainer.check_val=2": "trainer.check_val: there is no such key; did you mean trainer.val_check",
        "~logger": "logger=null: a choice is needed, of csv, ",
        "+logger.offline=true": "logger.offline: there is no such key",
        "~trainer.early_stopping": "~trainer.early_stopping: the key is needed; give it a value",
        "model.backbone=timm": "model.backbone is a group of keys; choose model/backbone=NAME, of conv, timm",
        "seed=abc": "seed=abc: a whole number is needed",
        "outputs=null": "outputs=null: a value is needed",
        "model.learning_rate=fast": "model.learning_rate=fast: a number is needed",
        "data.patients=7": "data.patients=7: a group of values, {KEY: VALUE}, is needed",
    }
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        loader, composed = GlobalHydra.instance().config_loader(), []
        compose = loader.load_configuration
        configs = {words: compose("train", words.split(), RunMode.RUN) for words in refused}
        monkeypatch.setattr(
            loader, "load_configuration", lambda *words, **more: composed.append(words) or compose(*words, **more)
        )
        for words, message in refused.items():
            with pytest.raises(InputError, match=re.escape(message)):
                checking.check(configs[words])
    assert len(composed) == 2  # without any choice, and with a CNN-LSTM


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.precision=bf16-true"], "trainer.precision=bf16-true: one of auto, 32-true"),
        (["model.dropout=2"], "model cannot be made of these values: dropout probability has to be between 0 and 1"),
        (["+data.patients.mars=2"], "data.patients={'montgomery': 20, 'mars': 2}: a number of at least 1 for any of"),
        (["-m", "seed=0", "data.split=official"], "data.split=official: phantom comes without an official split"),
    ],
)
def test_what_only_the_classes_and_the_data_can_tell_leaves_no_folder_either(
    tmp_path: Path, words: list[str], message: str
) -> None:
    assert message in refusal(tmp_path, *words, *TINY)


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        (evaluate, ["+rusn=x"], "rusn: there is no such key; did you mean runs?"),
        (evaluate, ["runs=x", "draws=many"], "draws=many: a whole number is needed"),
        (check, ["data=montgomry"], "data=montgomry: there is no such choice; did you mean montgomery?"),
        (check, ["+nmaed=3"], "nmaed: there is no such key; did you mean named?"),
    ],
)
def test_the_other_programs_refuse_likewise(tmp_path: Path, program, words: list[str], message: str) -> None:
    assert refusal(tmp_path, *words, program=program) == message


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lr", "model.learning_rate"), ("epochs", "trainer.max_epochs"), ("batch_size", "data.batch_size"), ("xyz", None)],
)
def test_a_key_is_meant_by_its_initials_a_word_of_it_or_itself_without_its_group(name: str, meant: str | None) -> None:
    names = ["model", "model.learning_rate", "trainer.max_epochs", "data.batch_size"]
    assert nearest(name, names)[:1] == ([meant] if meant else [])


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("averaging", [0, 1, 1.5, True, "always"]),
        ("devices", [None, 0, -2, 1.5, True, "two", "0,", [], [-1]]),
        ("gradient_clip_val", [0, -1, float("inf"), True, "high"]),
        ("num_nodes", [0, None, "two"]),
        ("sync_batchnorm", [None, "yes"]),
    ],
)
def test_a_trainer_takes_no_other_values(key: str, wrong: list[object]) -> None:
    for value in wrong:
        with pytest.raises(InputError, match=rf"trainer\.{key}=.*: .* is needed"):
            require_trainable(OmegaConf.create({"seed": 0, "trainer": {"max_epochs": 1, key: value}}))
    for devices in ("auto", -1, "-1", 2, "2", "0,2", [0, 2]):
        require_trainable(OmegaConf.create({"seed": 0, "trainer": {"max_epochs": -1, "devices": devices}}))
