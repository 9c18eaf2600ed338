"""Finished runs become numbers: compare what they predicted, write metrics.json, report.md and report.html.

    python evaluate.py runs=outputs/sweeps/FOLDER
    python evaluate.py 'runs=[RUN_A,RUN_B]' threshold.rule=sensitivity threshold.at=0.95
    python evaluate.py runs=RUN data=montgomery data.root=DIR

Heavy imports stand inside the functions, so that --help and --cfg answer at once.
"""

import hashlib
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lungdet.errors import plain_errors, run_program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lungdet.evaluation.gathering.parts import Replicate
    from lungdet.evaluation.gathering.results import Result, Skipped

log = logging.getLogger(__name__)

FEWEST_DRAWS = 100


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate the runs that the configuration names."""
    with plain_errors("evaluate.py", alone=HydraConfig.get().mode is RunMode.RUN):
        evaluate(config)


def evaluate(config: DictConfig) -> None:
    """Collect the runs, and report on those that were tested on the same images."""
    from lungdet.evaluation.gathering import grouping, trials
    from lungdet.evaluation.gathering.results import EvaluationError, Skipped, collect, common_parent
    from lungdet.evaluation.statistics import thresholds
    from lungdet.runs import multirun

    if OmegaConf.is_missing(config, "runs") or config.runs in (None, "", []):
        raise EvaluationError("which runs? say runs=FOLDER or 'runs=[A,B]'")
    if not isinstance(config.draws, int) or config.draws < FEWEST_DRAWS:
        raise EvaluationError(f"draws={config.draws}: intervals are made of at least {FEWEST_DRAWS}")
    if config.threshold.rule is not None:
        thresholds.check(config.threshold.rule, config.threshold.at)
    named = config.runs if OmegaConf.is_list(config.runs) else [config.runs]
    folders = [Path(str(folder)) for folder in named]
    results, skipped = collect(folders)
    results = trials.best(results)
    for job in (job for folder in folders for job in multirun.never_run(folder)):
        reason = f"job {job.number} of the multirun left no run: {' '.join(job.overrides)}"
        skipped.append(Skipped(job.multirun / str(job.number), reason))
    external = None if config.get("data") is None else name_of(config.data)
    out = Path(config.out or common_parent(folders) / f"report{f'-{external}' if external else ''}")
    if config.out is None and out.is_symlink():  # of whoever wrote the runs
        raise EvaluationError(
            f"{out}: a link to {out.readlink()}; say out=FOLDER to have the report there or elsewhere"
        )
    if out.exists() and not out.is_dir():
        raise EvaluationError(f"out={out}: a file of that name is there; name a folder")
    families = grouping.families(results)
    if len(families) == 1 or external or all((folder / "config.yaml").exists() for folder in folders):
        report_on(results, skipped, out, config, external)
        return
    log.warning("the runs have not all one task and test part: %d reports, each in a folder of %s", len(families), out)
    broken = grouping.broken(families)
    for name, some in families.items():
        if name in broken:
            continue
        others = [(other, one) for other, runs in families.items() for one in runs if other != name]
        elsewhere = [
            Skipped(one.run.folder, broken[other])
            if other in broken
            else Skipped(one.run.folder, "of another task, or tested on other images", f"../{other}/report.html")
            for other, one in others
        ]
        report_on(some, [*skipped, *elsewhere], out / name, config, None)
    if broken:
        raise EvaluationError("\n".join(f"no report on {name}: {reason}" for name, reason in broken.items()))


def report_on(
    results: "Sequence[Result]", skipped: "Sequence[Skipped]", out: Path, config: DictConfig, external: str | None
) -> None:
    """Score other data where it is asked for, compare, report."""
    from lungdet.evaluation import report, summary
    from lungdet.evaluation.costs import costs
    from lungdet.evaluation.gathering import grouping
    from lungdet.evaluation.statistics import thresholds
    from lungdet.machine.writing import require_writable

    if external:
        grouping.require_one_part(results)
        results = [predict_on(result, config, external) for result in results]
    grouping.require_pairs(results, hashes=external is None)
    models, left_out = grouping.group(results)
    skipped = [*skipped, *left_out]
    for one in skipped:
        if one.elsewhere is None:
            log.warning("not evaluated: %s: %s", one.folder, one.reason)
    rule, at = thresholds.agreed(config.threshold.rule, config.threshold.at, [r.run.folder for r in results])
    say(models, rule, at, external)
    require_writable(out)
    measured = costs.measure(grouping.kinds(models), config.trust) if config.efficiency else None
    study = summary.study_of(models, skipped, rule, at, out, config.draws, external, measured)
    report.show(report.write(summary.summarise(study), study), out)


def say(models: "Mapping[str, Sequence[Replicate]]", rule: str, at: float | None, external: str | None) -> None:
    """Log what is evaluated: the runs by model, seed and part, on how many images, and where thresholds come from."""
    from lungdet.page.wording import label, number

    for name, some in models.items():
        seeds = ", ".join(str(one.seed) for one in some)
        parts = f" on {', '.join(some[0].parts)}" if len(some[0].parts) > 1 else ""
        log.info("%s: %s, seed %s%s", label(name), number(sum(len(o.parts) for o in some), "run"), seeds, parts)
    replicate = next(iter(models.values()))[0]
    test = replicate.test
    where = f"other data, {external}" if external else "the test part"
    if replicate.patients_known(external is not None):
        patients = number(test["patient_id"].nunique(), "patient")
        log.info("tested on %s: %s of %s", where, number(len(test), "image"), patients)
    else:
        log.info("tested on %s: %s", where, number(len(test), "image"))
        log.warning("no patient_id says whose an image is: each counts as a patient, and results may flatter")
    log.info(
        "thresholds: rule %s on validation predictions, kept as thresholds.json in each run",
        rule if at is None else f"{rule} {at}",
    )


def name_of(data: DictConfig) -> str:
    """What predictions and report on other data are called: the data's name; of a user's table the file's stem.

    A table's name ends in a hash of where table and images lie: another table of that name is another report.
    """
    from lungdet.evaluation.gathering.results import EvaluationError

    choice = HydraConfig.get().runtime.choices["data"]
    if choice != "table":
        return choice
    if OmegaConf.is_missing(data, "table"):
        raise EvaluationError("data=table: which one? say data.table=FILE.csv")
    places = [Path(place).expanduser().resolve() for place in (data.table, data.root) if place is not None]
    digest = hashlib.sha256("\n".join(map(str, places)).encode()).hexdigest()[:6]
    return f"table-{re.sub(r'[^A-Za-z0-9.-]+', '-', Path(data.table).stem)[:100]}-{digest}"


def predict_on(result: "Result", config: DictConfig, name: str) -> "Result":
    """The run's predictions on other data, kept as `predictions/<name>.parquet` in its folder, as its test part.

    Images are prepared as the run's own were; `score` refuses what the command line says otherwise.
    """
    from lungdet.runs.predictions import check
    from lungdet.training.predicting import preparation, score

    # What the data's configuration refers to (${seed}, ..) is answered by the run; where images are kept by us.
    joined = OmegaConf.merge(result.run.config, {"outputs": config.outputs})
    joined.data = config.data
    said = [override.split("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task]
    for key, own in preparation(result.run).items():
        if f"data.{key}" not in said:
            joined.data[key] = own
    table = score(result.run, joined.data, config.trust)
    kept = result.run.folder / "predictions" / f"{name}.parquet"
    if kept.is_file() and {*result.run.predictions(name)["image_id"]} != {*table["image_id"]}:
        log.warning("%s: predictions of other images stood there and are replaced", kept)
    result.run.write_predictions(name, table)
    test = check(table, result.labels, f"run {result.run.folder}, {name} predictions")
    return replace(result, test=test, shortcuts=None)


if __name__ == "__main__":
    run_program("evaluate.py", main)
