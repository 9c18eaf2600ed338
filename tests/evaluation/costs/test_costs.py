"""Costs are counted as by hand, measured in turns under one set of conditions, and what fails says why."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from lungdet.evaluation.costs import costs, network
from lungdet.evaluation.gathering.models import Model
from lungdet.machine import hardware
from lungdet.models import averaging
from lungdet.models.cnn import CNN
from lungdet.models.cnn_lstm import CNNLSTM
from lungdet.runs.folder import Run, load_run
from tests.calling import CHECKOUT
from tests.fake_runs import write_run

SIZE, BATCH = 32, 4
PLAIN, RECURRENT = Model("cnn"), Model("cnn_lstm")
CHOICES = {
    PLAIN: ["model=cnn"],
    RECURRENT: ["model=cnn_lstm"],
    Model("cnn_lstm", {"model.sequence": "patches"}): ["model=cnn_lstm", "model.sequence=patches"],
    Model("cnn", {"model.backbone.name": "resnet18"}): [
        "model=cnn",
        "model/backbone=timm",
        "model.backbone.pretrained=true",
        "model.backbone.weights=/gone/resnet18.pth",
    ],
}


def make_run(folder: Path, *choices: str) -> Run:
    """A run folder with the configuration that train.py would write, small."""
    write_run(folder)
    small = ["data=phantom", f"data.image_size={SIZE}", f"data.batch_size={BATCH}", "logger=csv"]
    plain = ["trainer.accelerator=cpu", "trainer.precision=32-true", f"outputs={folder}", f"run_dir={folder}"]
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        config = compose("train", [*small, *plain, *choices])
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    (folder / "environment.json").write_text("{}")
    return load_run(folder)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """One call a turn, no more rounds than have to be, and no step too long, however busy the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "TURN", 0.0)
        patch.setattr(costs, "MOST", 0)
        patch.setattr(costs, "STEP", float("inf"))
        patch.setattr(costs, "gc", SimpleNamespace(collect=lambda: None))  # of all that the other tests have loaded
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: make_run(folder / str(i), *choices) for i, (name, choices) in enumerate(CHOICES.items())}


@pytest.fixture(scope="module")
def found(runs: dict[str, Run]) -> dict:
    return costs.measure(runs)


def test_that_a_model_reads_series_is_remarked(runs: dict[str, Run], tmp_path: Path) -> None:
    visits = make_run(tmp_path / "run", "model=cnn_lstm", "model.sequence=visits", "model.gap=age", "data.visits=3")
    found = costs.measure({PLAIN: runs["cnn"], RECURRENT: visits})
    assert found["remarks"][0].endswith("as so many single images; it is read by CNN-LSTM.")
    assert found["models"]["cnn_lstm"]["flops"]


def flops_of_backbone() -> int:
    """Four 3x3 convolutions, each followed by a halving."""
    widths = [1, 32, 64, 128, 256]
    return sum(2 * 9 * widths[i] * widths[i + 1] * (SIZE // 2**i) ** 2 for i in range(4))


def flops_of_lstm(steps: int) -> int:
    """Two layers of 128 units on 256 channels: four gates, each of input and state."""
    return steps * sum(2 * 4 * 128 * (inputs + 128) for inputs in (256, 128))


def flops_of_head(inputs: int) -> int:
    return 2 * inputs * 128 + 2 * 128 * 2


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("cnn", flops_of_head(256)),
        ("cnn_lstm", flops_of_lstm(SIZE // 16) + flops_of_head(128)),
        ("cnn_lstm model.sequence=patches", flops_of_lstm((SIZE // 16) ** 2) + flops_of_head(128)),
    ],
)
def test_flops_are_those_counted_by_hand(found: dict, model: str, head: int) -> None:
    assert found["models"][model]["flops"] == flops_of_backbone() + head


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_flops_of_timm_models_are_the_sum_over_their_layers(name: str) -> None:
    size = 64 if name == "resnet18" else 224
    config = {"_target_": "lungdet.models.backbone.TimmBackbone", "name": name}
    cnn = CNN(instantiate(config), hidden=8, dropout=0.0, learning_rate=1e-3)
    counted = []

    def count(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        weights = layer.weight.numel() // layer.weight.shape[0]
        counted.append(2 * weights * output.numel())

    for layer in cnn.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    flops = network.flops(cnn, size)
    attention = 12 * 2 * 2 * 197 * 197 * 192 if name.startswith("vit") else 0
    assert flops == sum(counted) + attention


def test_all_is_measured_at_the_same_conditions_which_stand_beside(found: dict) -> None:
    assert [found[key] for key in ("image_size", "batch_size", "precision")] == [SIZE, BATCH, "32-true"]
    assert found["device"]
    assert found["threads"] == torch.get_num_threads()
    assert found["rounds"] == {"training_images_per_second": 3, "images_per_second": 9, "latency_ms": 9}
    assert found["remarks"] == []
    assert json.loads(json.dumps(found)) == found
    for one in found["models"].values():
        for quantity in ("training_images_per_second", "images_per_second", "latency_ms"):
            assert 0 < one[quantity]["low"] <= one[quantity]["median"] <= one[quantity]["high"]


def test_weights_are_neither_loaded_nor_downloaded(found: dict) -> None:
    assert found["models"]["cnn model.backbone.name=resnet18"]["parameters"] > 11e6


def test_ratios_are_to_the_first_model(found: dict) -> None:
    cnn, lstm = found["models"]["cnn"], found["models"]["cnn_lstm"]
    assert found["against"] == "cnn"
    assert "ratios" not in cnn
    assert lstm["ratios"]["flops"] == lstm["flops"] / cnn["flops"]
    assert lstm["ratios"]["parameters"] == lstm["parameters"] / cnn["parameters"]


def test_peak_memory_holds_weights_gradients_and_both_moments(found: dict) -> None:
    for one in found["models"].values():
        assert one["peak_memory_bytes"] > 4 * 4 * one["parameters"]


def test_a_step_includes_the_average_of_the_weights_where_a_run_keeps_one(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(averaging, "update", lambda average, weights, share: taken.append((len(average), share)))
    place, _ = network.choose("cpu", "32-true", "contiguous_format", SIZE)
    held = []
    for run in (runs["cnn"], make_run(tmp_path / "run", "model=cnn", "trainer.averaging=null")):
        model = network.Network(run, place)
        model.load(BATCH)
        model.train()
        held.append(model.peak_memory())
    values = averaging.averaged(model.network)
    share = pytest.approx(1 - runs["cnn"].config.trainer.averaging)
    assert taken == [(len(values), share)] * 2  # in the step that memory is counted of, too
    assert held[0] - held[1] == sum(value.nbytes for value in values.values())


def test_peak_memory_is_of_what_is_alive_at_once() -> None:
    megabyte = 2**20
    own = [torch.zeros(megabyte, dtype=torch.uint8)]

    def step() -> None:
        large = own[0].repeat(4)
        del large
        own[0].view(2, -1).add_(1)
        own.append(own[0].repeat(2))

    assert network.peak_of_tensors(step, list(own)) == 5 * megabyte


def test_models_take_turns_and_each_round_begins_with_another(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for model in (CNN, CNNLSTM):

        def forward(self, image, length, when, case, name=model.__name__, true=model.forward):
            calls.append((name, len(length), self.training))
            return true(self, image, length, when, case)

        monkeypatch.setattr(model, "forward", forward)
    costs.measure({name: runs[name] for name in (PLAIN, RECURRENT)})
    there, back = ["CNN", "CNNLSTM"], ["CNNLSTM", "CNN"]
    steps = [name for name, images, training in calls if training][-6:]
    passes = [name for name, images, training in calls if not training and images == BATCH][-18:]
    single = [name for name, images, training in calls if not training and images == 1][-18:]
    assert steps == there + back + there
    assert passes == single == (there + back) * 4 + there


def test_a_model_that_cannot_be_built_says_why_and_the_others_are_measured(
    runs: dict[str, Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = OmegaConf.to_container(runs["cnn"].config)
    network = config["model"]
    broken = {
        "No module named 'lungdet.models.gone'": config | {"model": network | {"_target_": "lungdet.models.gone.Gone"}},
        "hidden": config | {"model": {key: value for key, value in network.items() if key != "hidden"}},
        "model.sequence=sideways: one of rows, columns, patches, visits is needed": config
        | {"model": network | {"sequence": "sideways"}},
        "model": {key: value for key, value in config.items() if key != "model"},
    }
    measured = {}
    for number, whole in enumerate(broken.values()):
        folder = write_run(tmp_path / str(number))
        OmegaConf.save(OmegaConf.create(whole), folder / "config.yaml")
        measured[Model("broken", {"number": number})] = Run(folder)
    found = costs.measure(measured | {PLAIN: runs["cnn"]})
    assert found["models"]["cnn"]["flops"]
    assert found["against"] == "cnn"
    for model, reason in zip(measured, broken, strict=True):
        assert reason in found["models"][model]["reason"]
        assert reason in caplog.text
    folder = write_run(tmp_path / "cut")
    cut = config | {"trainer": {key: value for key, value in config["trainer"].items() if key != "precision"}}
    OmegaConf.save(OmegaConf.create(cut), folder / "config.yaml")
    assert costs.measure({PLAIN: Run(folder)}) == {"reason": f"{folder}/config.yaml has no trainer.precision"}


def test_a_model_that_fails_on_these_images_says_why(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def training_step(self, batch, _):
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(CNNLSTM, "training_step", training_step)
    found = costs.measure({name: runs[name] for name in (PLAIN, RECURRENT)})
    assert found["models"]["cnn_lstm"] == {"reason": "RuntimeError: no kernel for this"}
    assert found["models"]["cnn"]["latency_ms"]
    alone = costs.measure({RECURRENT: runs["cnn_lstm"]})
    assert alone == {"reason": "CNN-LSTM: RuntimeError: no kernel for this"}


def test_what_a_run_has_otherwise_is_remarked(runs: dict[str, Run], tmp_path: Path) -> None:
    other = make_run(tmp_path / "run", "data.image_size=64", "trainer.accelerator=gpu", "model=cnn_lstm")
    other.record(parameters=5)
    found = costs.measure({PLAIN: runs["cnn"], RECURRENT: other})
    assert found["image_size"] == SIZE
    size, accelerator, parameters = found["remarks"]
    assert size == "The runs differ in `data.image_size` (CNN 32, CNN-LSTM 64); all were measured as CNN has it."
    assert "`trainer.accelerator`" in accelerator
    assert "had 5 when its run was trained" in parameters


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_run_of_a_gpu_is_measured_on_what_is_here_and_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "trainer.accelerator=cuda", "trainer.precision=16-mixed")
    found = costs.measure({PLAIN: run})
    assert found["precision"] == hardware.fastest("cpu").precision
    assert "`trainer.accelerator=cuda` is not on this machine" in found["remarks"][0]
    assert "`trainer.precision=16-mixed` is for GPUs" in found["remarks"][1]


def test_a_batch_that_would_take_too_long_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "STEP", 0.0)
    found = costs.measure({PLAIN: make_run(tmp_path / "run", "data.batch_size=9")})
    assert found["batch_size"] == costs.PROBE
    assert found["remarks"] == ["Measured on batches of 4 images: the run's 9 would take too long here."]


# More than all of the machine: between two looks at two clocks a busy one may pause.
@pytest.mark.parametrize(("share", "quiet"), [(1000.0, False), (0.0, True), (None, True)])
def test_a_busy_machine_is_not_quiet(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch, share: float | None, quiet: bool
) -> None:
    def others() -> float | None:
        return None if share is None else share * os.cpu_count() * time.perf_counter()

    monkeypatch.setattr(costs, "_cpu_seconds_of_others", others)
    found = costs.measure({PLAIN: runs["cnn"]})
    assert found["quiet"] is quiet
