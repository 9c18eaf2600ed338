"""The section on a search for hyper-parameters: how long each model was searched for, and what was found."""

from lungdet.evaluation.sections.contract import Section, Study
from lungdet.page.document import Caution, Table, Text
from lungdet.page.wording import join, label


def measure(study: Study) -> dict:
    """What was tried for each run that is the best of a search; empty where no run is.

    Returns:
        For each such run its model, seed, `trials` (how many were finished), `loss` (its validation loss) and `tried`:
        run, validation loss (None where not recorded) and values of each trial, the best first.
    """
    found = []
    for model, some in study.models.items():
        for result in [result for one in some for result in one.results if result.trials]:
            tried = sorted(result.trials, key=lambda trial: (trial.loss is None, trial.loss))
            found.append(
                {
                    "model": model,
                    "seed": result.seed,
                    "run": study.relative(result.run.folder),
                    "trials": len(tried),
                    "loss": tried[0].loss,
                    "tried": [
                        {"run": study.relative(trial.folder), "loss": trial.loss, "values": trial.values}
                        for trial in tried
                    ],
                }
            )
    return {"search": found}


def searched(summary: dict) -> set[str]:
    """The keys whose values were searched."""
    return set().union(*[_keys(one) for one in summary["search"]])


def caveats(summary: dict) -> list[str]:
    """That the models were not searched for equally long, or not over the same keys."""
    if not summary["search"]:
        return []
    of = {model: [one for one in summary["search"] if one["model"] == model] for model in summary["models"]}
    trials = {label(model): {str(one["trials"]) for one in some} or {"none"} for model, some in of.items()}
    if len(set().union(*trials.values())) > 1:
        said = join([f"{model} {' or '.join(sorted(counts))}" for model, counts in trials.items()])
        return [
            f"Unequal search: the trials of hyper-parameters that were finished are {said}. The best of more trials "
            "has a lower loss by chance alone, which flatters that model ([what was tried](#search)). The search's "
            "command, given again with its `sweep.name`, brings all to the same number."
        ]
    keys = {label(model): set().union(*[_keys(one) for one in some]) for model, some in of.items()}
    if len({frozenset(some) for some in keys.values()}) > 1:
        said = "; ".join(f"{model} {join(sorted(some))}" for model, some in keys.items())
        return [f"Unequal search: not the same hyper-parameters were searched: {said} ([what was tried](#search))."]
    return []


def tell(summary: dict) -> list:
    """How many trials each model had, and whether equally many; which won, and every one that was tried."""
    if not summary["search"]:
        return []
    found, unequal, keys = summary["search"], caveats(summary), sorted(searched(summary))
    said = (
        "Hyper-parameters were searched, and of each search one run is evaluated: the finished trial with the lowest "
        "validation loss. Test images had no part in that choice. Being the best of several, this loss is flattered; "
        "numbers on the test part are not."
    )
    if len(summary["models"]) > 1 and not unequal:
        said += f" Every model had the same number of trials, {found[0]['trials']}, over the same hyper-parameters."
    best = [
        [label(one["model"]), str(one["seed"]), f"`{one['run']}`", str(one["trials"]), _loss(one["loss"])]
        for one in found
    ]
    tried = [
        [label(one["model"]), f"`{trial['run']}`", *[trial["values"].get(k, "") for k in keys], _loss(trial["loss"])]
        for one in found
        for trial in one["tried"]
    ]
    notes = [
        "Every finished trial that was to be evaluated, the best first; values that were drawn twice are one run and "
        "count once. What failed or was cut is listed under Runs."
    ]
    return [
        *map(Caution, unequal),
        Text(said),
        Table(["Model", "Seed", "Evaluated", "Trials", "Validation loss"], best, 3),
        Table(["Model", "Trial", *[f"`{key}`" for key in keys], "Validation loss"], tried, 2, notes),
    ]


SECTION = Section(
    "The search for hyper-parameters",
    "search",
    measure=measure,
    meanings={
        "search": "of each search for hyper-parameters the run with the lowest validation loss, which alone is "
        "evaluated, and all that was `tried`; `loss`: validation; empty: no run is of a search"
    },
    tell=tell,
    caveats=caveats,
    claim=(26,),
)


def _keys(one: dict) -> set[str]:
    return {key for trial in one["tried"] for key in trial["values"]}


def _loss(loss: float | None) -> str:
    return "not recorded" if loss is None else f"{loss:.4f}"
