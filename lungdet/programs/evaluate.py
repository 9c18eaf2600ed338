"""Finished runs become numbers: compare what they predicted, write metrics.json, report.md and report.html.

    python evaluate.py runs=outputs/sweeps/FOLDER
    python evaluate.py 'runs=[RUN_A,RUN_B]' threshold.rule=sensitivity threshold.at=0.95
    python evaluate.py runs=RUN data=montgomery data.root=DIR
    python evaluate.py runs=RUN predictions=other.csv

Heavy imports stand inside the functions, so that --help and --cfg answer at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lungdet.configuration.program import CONF, run_program
from lungdet.errors import plain_errors

if TYPE_CHECKING:
    from lungdet.data.serving.views import View
    from lungdet.evaluation.explanations.explainer import Explainer
    from lungdet.evaluation.gathering.families import Family
    from lungdet.evaluation.gathering.models import Model
    from lungdet.evaluation.gathering.peer_file import PeerFile
    from lungdet.evaluation.gathering.peers import Tested
    from lungdet.evaluation.gathering.results import Result, Skipped


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate the runs that the configuration names."""
    with plain_errors(alone=HydraConfig.get().mode is RunMode.RUN):
        evaluate(config)


def start() -> None:
    """Evaluate as the command line says."""
    run_program(main, "evaluate")


def evaluate(config: DictConfig) -> None:
    """Find the runs, have them score other data where asked to, and report on those of the same test images."""
    from lungdet.evaluation import request
    from lungdet.evaluation.gathering import peers
    from lungdet.evaluation.gathering.families import Family, divided, require_one_part
    from lungdet.evaluation.gathering.gather import gather
    from lungdet.evaluation.gathering.results import narrowed

    folders, data, views, out, predictions, labels = request.read(config)
    results, skipped = gather(folders)
    if labels is not None:
        results = [narrowed(result, labels) for result in results]
    files = peers.read(predictions)
    if data is not None:
        require_one_part(results)
    if data is not None or len(views) > 1:
        results = [predicted(result, config, data, views) for result in results]
    together = data is not None or all((folder / "config.yaml").exists() for folder in folders)
    families, error = ([Family(results, skipped, out)], None) if together else divided(results, skipped, out)
    compared = [(family, compare(family, files, data)) for family in families]  # all, before the first is written
    for family, (models, skipped) in compared:
        report_on(family, models, skipped, config, data)
    if error is not None:
        raise error


def predicted(result: "Result", config: DictConfig, data: str | None, views: "tuple[View, ...]") -> "Result":
    """The run with predictions of several views of each image, or of other data, in the place of its own."""
    from lungdet.data.serving.views import name
    from lungdet.runs.predictions import check
    from lungdet.training import predicting

    run, tables = result.run, {}
    if len(views) > 1:
        parts = ["val"] if data is not None else ["val", "test"]
        tables = predicting.predict_views(run, views, parts, config.trust)
        result = replace(result, train=None, degraded=None)
    if data is not None:
        called = "-".join(filter(None, [data, name(views)]))
        tables["test"] = predicting.predict_on(run, config, HydraConfig.get().overrides.task, called, views)
        result = replace(result, shortcuts=None)
    for part, table in tables.items():
        tables[part] = check(table, result.labels, f"run {run.folder}, {part} predictions")
    return replace(result, views=views, **tables)


def compare(
    family: "Family", files: "Mapping[str, PeerFile]", data: str | None
) -> "tuple[dict[Model, Sequence[Tested]], list[Skipped]]":
    """The models of runs that were tested on the same images, then other systems; and the runs that are left out."""
    from lungdet.evaluation.gathering import models, peers
    from lungdet.evaluation.gathering.families import require_pairs

    require_pairs(family.results, hashes=data is None)
    replicates, left_out = models.group(family.results)
    return replicates | peers.group(files, replicates), [*family.skipped, *left_out]


def report_on(
    family: "Family",
    compared: "Mapping[Model, Sequence[Tested]]",
    skipped: "Sequence[Skipped]",
    config: DictConfig,
    data: str | None,
) -> None:
    """Compare models that were tested on the same images, and write the report."""
    from lungdet.evaluation import report, summary
    from lungdet.evaluation.costs import costs
    from lungdet.evaluation.following import following
    from lungdet.evaluation.gathering import models

    rule, at = config.threshold.rule, config.threshold.at
    report.begin(family.out, compared, skipped, data)
    measured = costs.measure(models.kinds(compared), config.trust) if config.efficiency else None
    explainer, words = explainer_of(config, data), HydraConfig.get().overrides.task
    study = summary.study_of(compared, skipped, rule, at, family.out, config.draws, data, measured, explainer)
    numbers = summary.summarise(study)
    written = report.write(numbers, study)
    report.show(written, following(numbers, study.results, words), family.out)
    if config.get("logger"):
        from lungdet.training.dashboards import log_report

        tested = [(result.run, result.test) for result in family.results]
        log_report(config.logger, tested, family.out, written, numbers)


def explainer_of(config: DictConfig, data: str | None) -> "Explainer | None":
    """What gives heat maps of the runs' own test images, or of other data; None where none are asked for."""
    from lungdet.evaluation import request
    from lungdet.evaluation.explanations.explainer import Explainer

    methods = request.methods(config)
    if not methods or data is None:
        return Explainer(methods, config.trust) if methods else None
    from lungdet.training.predicting import other_data

    other = partial(other_data, config=config, overrides=HydraConfig.get().overrides.task)
    return Explainer(methods, config.trust, other)
