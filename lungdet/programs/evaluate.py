"""Finished runs become numbers: compare what they predicted, write metrics.json, report.md and report.html.

    python evaluate.py runs=outputs/sweeps/FOLDER
    python evaluate.py 'runs=[RUN_A,RUN_B]' threshold.rule=sensitivity threshold.at=0.95
    python evaluate.py runs=RUN data=montgomery data.root=DIR
    python evaluate.py runs=RUN predictions=other.csv

Heavy imports stand inside the functions, so that --help and --cfg answer at once.
"""

from contextlib import ExitStack
from functools import partial

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lungdet.configuration.program import CONF, run_program
from lungdet.errors import plain_errors
from lungdet.machine.locking import alone
from lungdet.machine.writing import require_writable


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(config: DictConfig) -> None:
    """Evaluate the runs that the configuration names."""
    with plain_errors(), ExitStack() as locks:
        evaluate(config, locks)


def start() -> None:
    """Evaluate as the command line says."""
    run_program(main, "evaluate")


def evaluate(config: DictConfig, locks: ExitStack) -> None:
    """Find the runs, have them predict anew where asked to, and report on those of the same test images."""
    from lungdet.evaluation import request
    from lungdet.evaluation.explanations.explainer import Explainer
    from lungdet.evaluation.gathering import peers
    from lungdet.evaluation.gathering.families import divided, require_one_part
    from lungdet.evaluation.gathering.gather import gather
    from lungdet.evaluation.gathering.results import narrowed, renewed
    from lungdet.runs.preparation import other_data

    asked = request.read(config)
    words = HydraConfig.get().overrides.task
    results, skipped = gather(asked.folders)
    require_writable("out", asked.out)
    locks.enter_context(alone(asked.out, asked.out / ".report.lock"))
    results = [narrowed(result, asked.labels) for result in results]
    files = peers.read(asked.predictions)
    external = asked.data is not None
    other = partial(other_data, config=config, overrides=words) if external else None
    if external:
        require_one_part(results)
    if external or len(asked.views) > 1:
        from lungdet.training.scoring import predict_anew

        tables = (predict_anew(result.run, asked.data, other, asked.views, config.trust) for result in results)
        results = [renewed(result, anew, asked.views, external) for result, anew in zip(results, tables, strict=True)]
    families, error = divided(results, skipped, asked.out, asked.together)
    # All are compared before the first is written.
    compared = [family.compared(files, hashes=not external) for family in families]
    from lungdet.evaluation.report import report_on  # not before, so that errors answer at once, too

    explainer = Explainer(asked.methods, config.trust, other) if asked.methods else None
    for family, models in compared:
        document, numbers = report_on(family, models, asked.data, explainer, config, words)
        if config.get("logger"):
            from lungdet.training.dashboards import log_report

            tested = [(result.run, result.test) for result in family.results]
            log_report(config.logger, tested, family.out, document, numbers)
    if error is not None:
        raise error
