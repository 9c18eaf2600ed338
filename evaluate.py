"""Finished runs become numbers: compare what they predicted, write metrics.json, report.md and report.html.

    python evaluate.py runs=outputs/sweeps/FOLDER
    python evaluate.py 'runs=[RUN_A,RUN_B]' threshold.rule=sensitivity threshold.at=0.95
    python evaluate.py runs=RUN data=montgomery data.root=DIR

Heavy imports stand inside the functions, so that --help and --cfg answer at once.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from lungdet.evaluation.results import Result

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate the runs that the configuration names."""
    from lungdet.errors import told_plainly

    with told_plainly("evaluate.py"):
        evaluate(config)


def evaluate(config: DictConfig) -> None:
    """Collect the runs, score other data where it is asked for, compare, report."""
    from lungdet.evaluation import compare, report, summary, thresholds
    from lungdet.evaluation.results import EvaluationError, collect, common_parent

    if OmegaConf.is_missing(config, "runs") or not config.runs:
        raise EvaluationError("which runs? say runs=FOLDER or 'runs=[A,B]'")
    if config.threshold.rule is not None:
        thresholds.check(config.threshold.rule, config.threshold.at)
    folders = [Path(folder) for folder in ([config.runs] if isinstance(config.runs, str) else config.runs)]
    results, skipped = collect(folders)
    for one in skipped:
        log.warning("not evaluated: %s: %s", one.folder, one.reason)
    external = None
    if config.get("data") is not None:
        external = hydra.core.hydra_config.HydraConfig.get().runtime.choices["data"]
        results = [predict_on(result, config, external) for result in results]
    compare.require_pairs(results, hashes=external is None)
    models = compare.group(results)
    out = Path(config.out or common_parent(folders) / f"report{f'-{external}' if external else ''}")
    rule, at = thresholds.agreed(config.threshold.rule, config.threshold.at, [r.run.folder for r in results])
    numbers = summary.summarise(models, skipped, rule, at, out, external)
    report.show(report.write(numbers, models, out), out)


def predict_on(result: "Result", config: DictConfig, name: str) -> "Result":
    """The run's predictions on other data, kept as `predictions/<name>.parquet` in its folder, as its test part."""
    from lungdet.evaluation.results import check
    from lungdet.models.scoring import score

    # What the data's configuration refers to (${seed}, ..) is answered by the run; where images are kept by us.
    joined = OmegaConf.merge(result.run.config, {"outputs": config.outputs})
    joined.data = config.data
    table = score(result.run, joined.data)
    result.run.write_predictions(name, table)
    return replace(result, test=check(table, result.run.folder, name))


if __name__ == "__main__":
    main()
