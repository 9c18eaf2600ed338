"""Runs: what went into the report and with what result, and what did not and why."""

from collections.abc import Callable, Sequence

from omegaconf import OmegaConf

from lungdet.evaluation.gathering.models import differences, start_name
from lungdet.evaluation.gathering.results import Result
from lungdet.evaluation.sections.contract import Section, Study
from lungdet.evaluation.statistics.cases import or_none
from lungdet.evaluation.statistics.measure import measured
from lungdet.page.document import Block, Details, Items, Table, Text
from lungdet.page.wording import figure, join, label, number, setting
from lungdet.runs.folder import Run
from lungdet.runs.learnt import origins

STUDY = {
    "optimizer._target_": "torch.optim.Adam",
    "schedule._target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "model.warm_up": 0,
    "model.label_smoothing": 0,
    "trainer.accumulate_grad_batches": 1,
    "trainer.averaging": None,
}
"""How the study learns, as conf/experiment/paper.yaml has it; what it does not name is not among it."""


def measure(study: Study) -> dict:
    """Every run with what it chose and reached, each model's settings, and which runs could not be evaluated."""
    models = {
        model: {
            "settings": study.settings[model],
            "seeds": [replicate.seed for replicate in replicates],
            "runs": [_run(study, part, result) for replicate in replicates for part, result in replicate.parts.items()],
            "model": replicates[0].first.run.config.model._target_,
            "unlike_study": _unlike_study(replicates[0].first.run),
        }
        for model, replicates in study.models.items()
    }
    skipped = [(run, {"run": study.relative(run.folder), "reason": run.reason}) for run in study.skipped]
    return {
        "models": models,
        "settings_that_differ": differences(list(study.identities.values()), shared_only=True),
        "not_evaluated": [facts for run, facts in skipped if run.elsewhere is None],
        "evaluated_elsewhere": [
            facts | {"report": run.elsewhere} for run, facts in skipped if run.elsewhere is not None
        ],
    }


def tell(summary: dict) -> list:
    """Every run that went in, and those that did not with the reason."""
    runs = [(label(model), run) for model, block in summary["models"].items() for run in block["runs"]]
    columns = _columns(summary, [run for _, run in runs])
    rows = [[name, *[cell(run) for cell in columns.values()]] for name, run in runs]
    names = ["Model", *columns]
    notes = ["Folders as seen from the report's. Accuracy at threshold 0.5."]
    table = Table(names, rows, names.index("Threshold"), notes)
    blocks: list[Block] = [Details(f"{number(len(rows), 'run')}, with folder, revision and result", [table])]
    if unlike := _trained_otherwise(summary["models"]):
        blocks.insert(0, Text(f"Trained otherwise than the study's models: {unlike}."))
    if summary["not_evaluated"]:
        lines = [f"`{run['run']}`: {run['reason']}" for run in summary["not_evaluated"]]
        blocks += [Text("Found and not evaluated:"), Items(lines)]
    if summary["evaluated_elsewhere"]:
        lines = [f"`{run['run']}`: {run['reason']}: `{run['report']}`" for run in summary["evaluated_elsewhere"]]
        blocks += [Text("Found beside these and evaluated in a report of their own:"), Items(lines)]
    return blocks


SECTION = Section(
    "Runs",
    measure=measure,
    meanings={
        "origins": "published weights that a run began with; seen: the datasets that they learnt from, null: unknown",
        "unlike_study": "how a model learns where the study says otherwise",
    },
    tell=tell,
    claim=(22, 23, 42),
)


def _columns(summary: dict, runs: Sequence[dict]) -> dict[str, Callable[[dict], str]]:
    """What stands of a run in each column; parts, starts and published weights where there are any."""
    none = "none" if summary["task"] == "abnormal" else "by finding"
    columns: dict[str, Callable[[dict], str]] = {"Seed": lambda run: str(run["seed"])}
    if summary["parts"]:
        columns["Tested on"] = lambda run: run["part"]
    columns["Folder"] = lambda run: f"`{run['run']}`"
    if any(run["start"] for run in runs):
        columns["Started from"] = lambda run: f"`{run['start']['run']}`" if run["start"] else "none"
    if any(run["origins"] for run in runs):
        columns["Published weights"] = lambda run: _weights(run["origins"])
    return columns | {
        "Started": lambda run: run["started"],
        "Revision": lambda run: run["git"] or "none",
        "Threshold": lambda run: none if run["threshold"] is None else f"{run['threshold']:.3f}",
        "Accuracy": lambda run: figure("accuracy", run["test"]["accuracy"]),
        "AUROC": lambda run: figure("auroc", run["test"]["auroc"]),
    }


def _run(study: Study, part: str, result: Result) -> dict:
    environment, scores = result.run.environment, measured(result.test, study.labels)
    chosen = study.thresholds[result.run.folder]
    return {
        "run": study.relative(result.run.folder),
        "seed": result.seed,
        "part": part,
        "started": environment["started"],
        "git": environment["git"],
        "start": _start(result),
        "origins": origins(result.run),
        "threshold": chosen["abnormal"].as_dict()["value"] if study.task == "abnormal" else None,
        "test": {metric: or_none(value) for metric, value in scores.items()},
    }


def _unlike_study(run: Run) -> dict[str, object]:
    """The keys of `STUDY` that a run has otherwise, with its values."""
    values = {key: OmegaConf.select(run.config, key, default=value) for key, value in STUDY.items()}
    return {key: value for key, value in values.items() if value != STUDY[key]}


def _trained_otherwise(models: dict) -> str:
    """Which models learn by what the study has otherwise: `CNN and CNN-LSTM with trainer.averaging=0.9`."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for model, block in models.items():
        settings = tuple(f"`{setting(key, value)}`" for key, value in block["unlike_study"].items())
        alike.setdefault(settings, []).append(label(model))
    return "; ".join(f"{join(names)} with {join([*settings])}" for settings, names in alike.items() if settings)


def _start(result: Result) -> dict | None:
    """The run that this one started from: its folder then, when it was started, and its name."""
    start = result.run.start
    if start is None:
        return None
    return {"run": start.config.run_dir, "started": start.environment["started"], "name": start_name(start)}


def _weights(origins: list[dict]) -> str:
    """Each one's file or name at timm's and whose it is, with what it has seen."""
    named = []
    for weights in origins:
        seen = "not known" if weights["seen"] is None else join(weights["seen"] or ["no radiograph"])
        origin = f" ({weights['origin']})" if weights["origin"] else ""
        named.append(f"`{weights['weights']}`{origin}, have seen: {seen}")
    return "; ".join(named) or "none"
