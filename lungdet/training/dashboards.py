"""What a dashboard is told of a run while it trains and once it is tested, and of a report."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig
from PIL import Image

from lungdet.data.datamodule import RadiographDataModule
from lungdet.machine import ranks
from lungdet.models.metrics import METRICS
from lungdet.page.document import Document, Pictures, Table, flat
from lungdet.page.markup import plain
from lungdet.runs.folder import Run
from lungdet.training import artifacts, charts, columns, loggers
from lungdet.training.loggers import Harmless
from lungdet.training.wandb import Settings, connected, harmless, settings_of

STEP = "trainer/global_step"  # Lightning's name of it
BEST = {"train/loss": None, "val/loss": "min", **{f"val/{name}": "max" for name in METRICS}}
"""What is measured once an epoch, and which of all epochs' values is the best."""


class Curves(WandbLogger):
    """Lightning's logger of a run that has been started.

    A value that is not a number is a gap: the best of all epochs would be none from there on.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what is a number."""
        with harmless():
            super().log_metrics({name: value for name, value in metrics.items() if value == value}, step)


@contextmanager
def dashboard(run: Run, data: RadiographDataModule) -> Iterator[Curves | Harmless | None]:
    """The logger of a run's epochs and steps, or None where `logger=csv` was chosen.

    Weights & Biases', see `wandb.connected`, or another of Lightning's, see `loggers.curves`.

    The run is described by `columns.setting`, its curves by `BEST`: what is measured once an epoch has the epoch for
    its axis, a step's loss, learning rate and gradient norm the step.

    Args:
        run: that has recorded what it trains on.
        data: set up.
    """
    settings = settings_of(run.config.logger)
    if ranks.rank():
        yield None
        return
    if settings is None:
        with loggers.curves(run) if "lightning" in run.config.logger else nullcontext() as logger:
            yield logger
        return
    with connected(_identity(run, settings)) as started:
        if started is None:
            yield None
            return
        with harmless():
            _define(started)
            artifacts.use(started, artifacts.split(run, settings.log_patients is not None))
            if settings.log_patients == "images":
                started.log({"augmentation": charts.augmented(data)})
        yield Curves(experiment=started, project=settings.project, save_dir=run.folder)


def conclude(logger: Curves | Harmless, run: Run, data: RadiographDataModule) -> None:
    """Tell what a finished run came to: its summary; Weights & Biases charts and tables of the test part, predictions
    and weights, too.
    """
    if isinstance(logger, Harmless):
        logger.conclude(columns.outcome(run))
        return
    started, settings = logger.experiment, settings_of(run.config.logger)
    rows, labels = settings.log_patients is not None, data.serving.labels
    with harmless():
        started.summary.update(columns.outcome(run))
        table = run.predictions("test")
        logged = charts.charts(table, labels)
        if rows:
            picture = charts.pictures(data) if settings.log_patients == "images" else None
            logged["mistakes"] = charts.mistakes(table, labels, picture)
            logged["sample"] = charts.sample(table, labels, picture)
        started.log(logged)
        started.log_artifact(artifacts.predictions(run, rows))
        if settings.log_model == "best":
            started.log_artifact(artifacts.weights(run), aliases=["best"])


def log_search(run: Run, curve: pd.DataFrame, value: float | None) -> None:
    """Tell Weights & Biases what `find` tried, in a run of its own: the curve, and in the summary what it suggests.

    Args:
        run: of which only the configuration and the folder are there.
        curve: what was tried and what came of it, a column each.
        value: None where none is suggested.
    """
    settings, (tried, measured) = settings_of(run.config.logger), curve.columns
    if settings is None:
        return
    identity = _filed(settings, "find", None, run.name, [columns.model_name(run.config.model)]) | {
        "id": _begun_now(run.name),
        "config": columns.configuration(run.config),
        "dir": run.folder,
    }
    with connected(identity) as started, harmless():
        if started is None:
            return
        import wandb

        title = f"{measured} by {tried}".replace("_", " ")
        started.log({f"find/{tried}": wandb.plot.line(wandb.Table(dataframe=curve), tried, measured, title=title)})
        started.summary[tried] = value


def log_report(
    config: DictConfig,
    tested: Sequence[tuple[Run, pd.DataFrame]],
    out: Path,
    document: Document,
    numbers: Mapping[str, Any],
) -> None:
    """Tell of a report, in a run of its own that made use of what the runs predicted.

    Args:
        config: `logger.*`.
        tested: the runs and what they predicted.
        out: the report's folder.
        document: the report; its tables are logged.
        numbers: what `metrics.json` holds.
    """
    settings = settings_of(config)
    if settings is None:
        return
    runs, rows = [run for run, _ in tested], settings.log_patients is not None
    folders = {run.folder.absolute().parent for run in runs}
    multirun, name = folders.pop() if len(folders) == 1 else None, f"{out.absolute().parent.name}/{out.name}"
    identity = _filed(settings, "evaluate", multirun, name, [columns.model_name(run.config.model) for run in runs]) | {
        "id": _begun_now(name),
        "config": {
            "runs": [artifacts.identifier(run) for run in runs],
            **{key: numbers[key] for key in ("task", "threshold", "draws")},
        },
        "dir": out,
    }
    with connected(identity) as started, harmless():
        if started is None:
            return
        for run in runs:
            artifacts.use(started, artifacts.predictions(run, rows))
        tables = _tables(document, set() if rows else {name for _, table in tested for name in table["image_id"]})
        started.log({"comparison": _comparison(numbers), **{f"report/{name}": table for name, table in tables.items()}})
        whole = settings.log_patients == "images"  # there are radiographs in the page
        if whole:
            import wandb

            started.log({"report": wandb.Html((out / "report.html").read_text(), inject=False)})
            started.log({f"report/{anchor}": pictures for anchor, pictures in _pictures(document)})
        started.log_artifact(artifacts.report(identity["id"], out, whole))
        started.summary["answer"] = plain(document.answer)


def _pictures(document: Document) -> Iterator[tuple[str, list[Any]]]:
    """The pictures of each section that has some, by its anchor, as `wandb.Image`."""
    import wandb

    for anchor, section in zip(document.anchors, document.sections, strict=True):
        pictures = [
            wandb.Image(Image.open(BytesIO(picture.data)), caption=plain(picture.caption))
            for block in flat(section.blocks)
            if isinstance(block, Pictures)
            for picture in block.pictures
        ]
        if pictures:
            yield f"{anchor}-pictures", pictures


def _identity(run: Run, settings: Settings) -> dict[str, Any]:
    """What `wandb.init` is told of a run that trains."""
    kind = "search" if "trials" in (run.config.get("sweep") or {}) else "train"
    return _filed(settings, kind, run.folder.parent, run.name, columns.tags(run)) | {
        # An agent of a sweep has chosen the id that it waits for.
        "id": (os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None) or artifacts.identifier(run),
        "config": columns.setting(run),
        "dir": run.folder,
        "resume": "allow",  # a run that was cut goes on in the same curves
    }


def _begun_now(name: str) -> str:
    """The `id` of a run that begins now."""
    return artifacts.identified(datetime.now(UTC).isoformat(timespec="seconds"), name)


def _filed(settings: Settings, kind: str, multirun: Path | None, name: str, tags: Sequence[str]) -> dict[str, Any]:
    """Where a run is filed and as what; `multirun` is the folder that it may have in common with others."""
    common = multirun is not None and (multirun / "multirun.yaml").exists()
    return {
        "name": settings.name or name,
        "tags": [*dict.fromkeys([*tags, *settings.tags])],
        "project": settings.project,
        "entity": settings.entity,
        "group": settings.group or (multirun.name if common else None),
        "job_type": settings.job_type or kind,
        "notes": settings.notes,
    }


def _define(started: Any) -> None:
    for name in ("epoch", STEP):
        started.define_metric(name, hidden=True)
    started.define_metric("step/*", step_metric=STEP)
    for name, best in BEST.items():
        started.define_metric(name, step_metric="epoch", summary=best)
    for name in ("learning_rate", "images_per_second"):
        started.define_metric(name, step_metric="epoch")


def _comparison(numbers: Mapping) -> Any:
    """Each model's metrics with their intervals, a row a number."""
    import wandb

    rows = [
        [model, metric, value, *(facts["test_interval"].get(metric) or (None, None)), facts["images"]]
        for model, facts in numbers["models"].items()
        for metric, value in facts["test"].items()
    ]
    return wandb.Table(["model", "metric", "value", "low", "high", "images"], rows)


def _tables(document: Document, images: Collection[str]) -> dict[str, Any]:
    """The report's tables as people read them, by their section's anchor, but for those that name one of the images."""
    import wandb

    tables = {}
    for anchor, section in zip(document.anchors, document.sections, strict=True):
        blocks = [block for block in flat(section.blocks) if isinstance(block, Table)]
        for number, block in enumerate(blocks, 1):
            rows = [[plain(cell) for cell in row] for row in block.rows]
            if not any(cell in images for row in rows for cell in row):
                tables[anchor if len(blocks) == 1 else f"{anchor}-{number}"] = wandb.Table(block.columns, rows)
    return tables
