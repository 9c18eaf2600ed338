"""A search gives every model as many trials, goes on where it was cut, and ends with how to train the best again."""

import logging
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.trial import TrialState

import evaluate
import train
from lungdet.machine.commands import override
from lungdet.runs.folder import find_runs
from lungdet.sweeps.search.sweeper import Search
from tests.calling import CHECKOUT, output

BOTH = "model=cnn,cnn_lstm"


SPACE = ("model.learning_rate", "model.weight_decay", "model.dropout")


Job = dict[str, str]


class Launcher:
    """Does what a launcher does, with a function in the place of training."""

    def __init__(self, loss: Callable[[Job, int], float]) -> None:
        self.loss = loss
        self.turns: list[list[Job]] = []
        self.numbers: list[int] = []

    def launch(self, batch: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        jobs = [dict(word.lstrip("+").split("=", 1) for word in overrides) for overrides in batch]
        self.turns.append(jobs)
        return [self.run(job, initial_job_idx + place) for place, job in enumerate(jobs)]

    def run(self, job: Job, number: int) -> JobReturn:
        self.numbers.append(number)
        done = JobReturn(overrides=[], status=JobStatus.COMPLETED)
        done.hydra_cfg = OmegaConf.create({"hydra": {"runtime": {"output_dir": f"/runs/{number}"}}})
        try:
            done.return_value = self.loss(job, number)
        except Exception as error:
            done.return_value, done.status = error, JobStatus.FAILED
        return done

    @property
    def jobs(self) -> list[Job]:
        return [job for turn in self.turns for job in turn]


def by_learning_rate(job: Job, number: int = 0) -> float:
    """A loss that is lowest at a learning rate of 0.001, and lower with an LSTM."""
    return abs(math.log10(float(job["model.learning_rate"])) + 3) + (job["model"] == "cnn")


@cache
def composed(*words: str) -> DictConfig:
    return GlobalHydra.instance().config_loader().load_configuration("train", [*words], RunMode.MULTIRUN)


def multirun(words: Sequence[str]) -> DictConfig:
    """What Hydra composes of them; of the sweep's own values, which others hardly depend on, without Hydra."""
    words = {word.partition("=")[0]: word for word in words}.values()
    plain = [word for word in words if re.fullmatch(r"(outputs|sweep\.(name|trials|seed))=[\w./-]+", word)]
    config = deepcopy(composed(*(word for word in words if word not in plain)))
    with open_dict(config):
        config.merge_with_dotlist(plain)
    return config


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Launcher]]:
    """Starts the sweeper with the project's own configuration, by default in the same folder again."""
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def start(
            *arguments: str, loss: Callable = by_learning_rate, name: str = "one", launcher=None, legal=True
        ) -> Launcher:
            arguments = ("sweep=optuna", f"sweep.name={name}", f"outputs={tmp_path}", *arguments)
            config = multirun(arguments)
            sweeper = Search(params=config.hydra.sweeper.params)
            sweeper.config = config
            sweeper.hydra_context = HydraContext(loader, Callbacks())
            sweeper.launcher = launcher or Launcher(loss)
            if legal:  # composing jobs takes most of the time
                sweeper.validate_batch_is_legal = lambda _: None
                monkeypatch.setattr(loader, "load_sweep_config", lambda config, _: config)
            sweeper.sweep([*arguments])
            return sweeper.launcher

        yield start


def studies(outputs: Path) -> dict[str, list[TrialState]]:
    """The states of each study's trials, of the search in the usual folder."""
    storage = f"sqlite:///{outputs / 'sweeps/one/search.sqlite'}"
    return {
        name: [trial.state for trial in optuna.load_study(study_name=name, storage=storage).trials]
        for name in optuna.get_all_study_names(storage)
    }


def values(job: Job) -> tuple[str, ...]:
    return tuple(job[key] for key in SPACE)


def cut_at(last: int) -> Callable[[Job, int], float]:
    def loss(job: Job, number: int) -> float:
        if number == last:
            raise KeyboardInterrupt
        return by_learning_rate(job)

    return loss


def test_every_combination_has_the_same_number_of_trials_and_they_take_turns(search, tmp_path):
    launcher = search(BOTH, "data.resize=pad,crop", "sweep.trials=2")
    four = [(model, resize) for model in ("cnn", "cnn_lstm") for resize in ("pad", "crop")]
    assert [[(job["model"], job["data.resize"]) for job in turn] for turn in launcher.turns] == [four] * 2
    assert launcher.numbers == list(range(8))
    states = studies(tmp_path)
    assert [*states.values()] == [[TrialState.COMPLETE] * 2] * 4
    assert {"model-cnn_data.resize-pad", "model-cnn_lstm_data.resize-crop"} <= states.keys()
    assert OmegaConf.load(tmp_path / "sweeps/one/multirun.yaml").sweep.trials == 2


def test_values_are_within_the_space_and_a_run_is_told_what_was_searched(search):
    for job in search("model=cnn", "sweep.trials=12").jobs:
        assert 1e-4 <= float(job["model.learning_rate"]) <= 1e-2
        assert 0 <= float(job["model.dropout"]) <= 0.6
        assert job["sweep.searched"] == f"[{','.join(SPACE)}]"


def test_the_command_line_adds_to_the_space_replaces_a_range_or_takes_a_key_out(search):
    more = ["model.hidden=range(64,257,64)", "model.learning_rate=tag(log,interval(1e-6,1e-5))", "model.dropout=0.3"]
    launcher = search("model=cnn", *more, "+model.extra=int(interval(2,4))", "sweep.trials=8")
    assert {int(job["model.hidden"]) for job in launcher.jobs} <= {64, 128, 192, 256}
    assert {int(job["model.extra"]) for job in launcher.jobs} <= {2, 3, 4}
    assert all(1e-6 <= float(job["model.learning_rate"]) <= 1e-5 for job in launcher.jobs)
    assert {job["model.dropout"] for job in launcher.jobs} == {"0.3"}
    assert "model.dropout" not in launcher.jobs[0]["sweep.searched"]
    assert "model.extra" in launcher.jobs[0]["sweep.searched"]


def test_what_an_experiment_sweeps_is_searched_apart(search, tmp_path):
    launcher = search("experiment=[paper,smoke]", "sweep.trials=1")
    assert [job["model"] for job in launcher.jobs] == ["cnn", "cnn_lstm"]
    assert [job["seed"] for job in launcher.jobs] == ["0", "0"]
    assert studies(tmp_path).keys() == {f"model-{model}_seed-0_experiment-paper-smoke" for model in ("cnn", "cnn_lstm")}


def test_trials_that_were_cut_are_launched_again_with_their_own_values_and_nothing_twice(search, tmp_path):
    with pytest.raises(SystemExit, match="130"):
        search(BOTH, "sweep.trials=3", launcher=(cut := Launcher(cut_at(3))))
    running = [TrialState.COMPLETE, TrialState.RUNNING]
    assert [*studies(tmp_path).values()] == [running] * 2
    again = search(BOTH, "sweep.trials=3")
    assert [values(job) for job in again.turns[0]] == [values(job) for job in cut.turns[1]]
    assert [job["model"] for job in again.turns[0]] == ["cnn", "cnn_lstm"]
    assert len(again.turns) == 2
    assert [*studies(tmp_path).values()] == [[TrialState.COMPLETE] * 3] * 2
    assert search(BOTH, "sweep.trials=3").jobs == []


def test_more_trials_go_on_and_suggest_what_one_search_would_have(search):
    """13 trials, since the first ten are drawn at random."""
    whole = search("model=cnn", "sweep.trials=13", name="whole")
    parts = [search("model=cnn", f"sweep.trials={count}", name="parts") for count in (4, 11, 13)]
    assert [len(part.turns) for part in parts] == [4, 7, 2]
    assert [values(job) for part in parts for job in part.jobs] == [values(job) for job in whole.jobs]
    assert len({values(job) for job in whole.jobs}) == 13
    assert parts[1].numbers[0] == 4


def test_suggestions_follow_the_seed_and_are_the_same_for_all_at_first(search):
    both = search(BOTH, "sweep.trials=3", name="a")
    assert all(values(turn[0]) == values(turn[1]) for turn in both.turns)
    again, reseeded = (
        {values(job) for job in search("model=cnn", "sweep.trials=3", f"sweep.seed={seed}", name=f"{seed}").jobs}
        for seed in (0, 1)
    )
    assert {values(job) for job in both.jobs} == again
    assert again.isdisjoint(reseeded)


def test_losses_are_lowered(search):
    launcher = search("model=cnn_lstm", "sweep.trials=30")
    losses = [by_learning_rate(job) for job in launcher.jobs]
    assert sum(losses[20:]) / 10 < 0.3  # drawn blindly they are 0.5 on average, the highest 1


def test_a_job_that_fails_in_the_middle_is_told_and_the_rest_goes_on(search, tmp_path, caplog):
    def loss(job: Job, number: int) -> float:
        if number == 2:
            raise RuntimeError("disk full")
        return by_learning_rate(job)

    with pytest.raises(RuntimeError, match="disk full"):
        search(BOTH, "sweep.trials=3", launcher=(launcher := Launcher(loss)))
    assert len(launcher.jobs) == 6
    assert "model=cnn, trial 1 failed" in caplog.text
    assert "RuntimeError: disk full; in /runs/2" in caplog.text
    states = studies(tmp_path)
    assert states["model-cnn"] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    again = search(BOTH, "sweep.trials=3")  # makes up for it with other values
    assert [job["model"] for job in again.jobs] == ["cnn"]
    assert values(again.jobs[0]) not in {values(job) for job in launcher.jobs}
    assert search(BOTH, "sweep.trials=3").jobs == []


def test_a_loss_that_is_no_number_is_a_failed_trial_and_no_crash(search, tmp_path, caplog):
    none = {1: math.nan, 3: math.inf, 5: None}  # of the second model, whose jobs have the odd numbers
    launcher = search(BOTH, "sweep.trials=4", loss=lambda job, number: none.get(number, by_learning_rate(job)))
    assert len(launcher.jobs) == 8
    assert studies(tmp_path)["model-cnn_lstm"] == [*[TrialState.FAIL] * 3, TrialState.COMPLETE]
    for trial, (number, loss) in enumerate(none.items()):
        rate = launcher.jobs[number]["model.learning_rate"]
        assert f"model=cnn_lstm, trial {trial} failed (model.learning_rate={rate}" in caplog.text
        assert f"its validation loss is {loss}" in caplog.text


def test_a_search_in_which_all_fail_ends(search, caplog):
    assert len(search("model=cnn", "sweep.trials=3", loss=lambda *_: math.nan).jobs) == 3
    assert "no trial was finished, 3 failed" in caplog.text


def test_the_end_names_the_best_its_folder_and_a_command_that_trains_it_with_other_seeds(search, caplog):
    caplog.set_level(logging.INFO)
    launcher = search(BOTH, "experiment=[paper,smoke]", "seed=4", "sweep.trials=3")
    best = min((job for job in launcher.jobs if job["model"] == "cnn"), key=by_learning_rate)
    number = launcher.jobs.index(best)
    best_values = " ".join(f"{key}={best[key]}" for key in SPACE)
    assert f"model=cnn: lowest validation loss {by_learning_rate(best):.4f} of 3 finished trials" in caplog.text
    assert f"{best_values}, in /runs/{number}" in caplog.text
    command = next(line for line in caplog.messages if "model=cnn " in line and "train.py" in line)
    assert command.endswith(f"{best_values} seed=5,6,7")
    assert "'experiment=[paper,smoke]'" in command
    assert "sweep" not in command


def test_another_fixed_value_is_another_study(search, tmp_path):
    search("model=cnn", "sweep.trials=1")
    assert len(search("model=cnn", "sweep.trials=1", "logger=csv", "data.num_workers=0").jobs) == 0
    assert len(search("model=cnn", "sweep.trials=1", "trainer.max_epochs=3").jobs) == 1
    assert studies(tmp_path).keys() == {"model-cnn", "model-cnn_trainer.max_epochs-3"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("sweep.trials=0", "sweep.trials=0"),
        ("sweep.trials=1.5", "sweep.trials=1.5"),
        ("sweep.space=null", "sweep.space is empty"),
        ("find=lr", "sweep=optuna and find: a search trains"),
        ("model.sequence=interval(0,1)", "model.sequence is no number but rows"),
        ("model.hiden=interval(0,1)", r"model.hiden=interval\(0,1\): the configuration has no such key"),
        ("seed=range(3)", r"seed=range\(3\): validation losses do not compare"),
        ("model.dropout=interval(1,0)", r"model.dropout=interval\(1,0\): nothing can be drawn"),
        ("model.hidden=range(9,3)", r"model.hidden=range\(9,3\): .*the range is empty"),
        ("model.dropout=tag(log,interval(0,1))", r"model.dropout=tag\(log,interval\(0,1\)\): nothing can be drawn"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_line_before_anything_is_written(search, tmp_path, argument, message):
    with pytest.raises(SystemExit, match=message):
        search(BOTH, argument)
    assert not (tmp_path / "sweeps").exists()


def test_a_study_of_another_kind_of_values_is_refused(search):
    search("model=cnn", "sweep.trials=1")
    with pytest.raises(
        SystemExit, match=r"search\.sqlite: model\.dropout was drawn from FloatDistribution.*sweep\.name"
    ):
        search("model=cnn", "model.dropout=int(interval(0,1))", "sweep.trials=2")


def test_a_value_that_cannot_be_composed_leaves_no_trial_to_go_on_with(search, tmp_path):
    with pytest.raises(HydraException, match="cnn_x"):
        search("model=cnn_x", "sweep.trials=1")
    assert not (tmp_path / "sweeps").exists()
    with pytest.raises(SystemExit, match=r"model\.hidden"):
        search(BOTH, "+model.hidden=interval(0,1)", "sweep.trials=1", legal=False)
    assert [*studies(tmp_path).values()] == [[TrialState.FAIL]] * 2


def test_a_search_lies_in_its_own_folder_however_that_is_called(search, tmp_path):
    outputs = tmp_path / "what? a b=c [1] #%20 ü $x 'q'"
    search(BOTH, "sweep.trials=1", override("outputs", outputs))
    assert (outputs / "sweeps/one/search.sqlite").is_file()


def test_two_processes_do_not_search_in_one_folder(search, tmp_path):
    (tmp_path / "sweeps/one").mkdir(parents=True)
    with FileLock(tmp_path / "sweeps/one/.lock"), pytest.raises(SystemExit, match="another process is searching"):
        search("model=cnn")


def test_without_optuna_the_message_says_what_to_install(search, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit, match=re.escape("pip install 'lungdet[optuna]'")):
        search("model=cnn")


def test_the_search_opens_with_its_question_its_command_its_cost_and_what_is_expected():
    first, *lines = (CHECKOUT / "conf/sweep/optuna.yaml").read_text().splitlines()
    assert first == "# @package _global_"
    header = [line[2:11].strip() for line in lines if line.startswith("#")]
    assert [heading for heading in header if heading] == ["Question", "Command", "Cost", "Expected"]


@pytest.mark.slow
def test_the_command_searches_goes_on_and_is_reported(tmp_path):
    small = ("data.size=64", "data.image_size=32", "data.num_workers=0", "trainer.max_epochs=1")
    words = ("sweep=optuna", BOTH, "experiment=smoke", *small, "sweep.name=real", f"outputs={tmp_path}")
    folder = tmp_path / "sweeps/real"
    assert "0 of 1 trials are finished" in output(train, *words, "sweep.trials=1")
    assert len(find_runs(folder)) == 2
    assert "1 of 2 trials are finished" in output(train, *words, "sweep.trials=2")
    runs = find_runs(folder)
    assert len(runs) == 4
    for model in ("CNN", "CNNLSTM"):
        rates = {run.config.model.learning_rate for run in runs if run.config.model._target_.endswith(f".{model}")}
        assert len(rates) == 2
    report = output(evaluate, f"runs={folder}", "efficiency=false", "draws=100")
    assert "CNN-LSTM: 1 run, seed 0" in report
    assert "the same number of trials, 2" in (folder / "report/report.md").read_text()
