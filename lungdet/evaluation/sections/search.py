"""The section on a search for hyper-parameters: how long each model was searched for, and what was found."""

from lungdet.evaluation.sections.contract import Section, Study
from lungdet.page.document import Caution, Details, Table, Text
from lungdet.page.wording import join, label


def measure(study: Study) -> dict:
    """What was tried for each run that is the best of a search; empty where no run is.

    Returns:
        For each such run its model, seed, `trials` (how many were finished), `loss` (its validation loss) and `tried`:
        run, validation loss and values of each trial, the best first.
    """
    searches = []
    for model, replicates in study.models.items():
        for result in [result for replicate in replicates for result in replicate.results if result.trials]:
            tried = sorted(result.trials, key=lambda trial: trial.loss)
            searches.append(
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
    return {"search": searches}


def searched(summary: dict) -> set[str]:
    """The keys whose values were searched."""
    return set().union(*[_keys(search) for search in summary["search"]])


def caveats(summary: dict) -> list[str]:
    """That the models were not searched for equally long, or not over the same keys."""
    if not summary["search"]:
        return []
    of = {model: [search for search in summary["search"] if search["model"] == model] for model in summary["models"]}
    trials = {
        label(model): {str(search["trials"]) for search in searches} or {"none"} for model, searches in of.items()
    }
    if len(set().union(*trials.values())) > 1:
        words = join([f"{model} {' or '.join(sorted(counts))}" for model, counts in trials.items()])
        return [
            f"Unequal search: the trials of hyper-parameters that were finished are {words}. The best of more trials "
            "has a lower loss by chance alone, which flatters that model ([what was tried](#search)). The search's "
            "command, given again with its `sweep.name`, brings all to the same number."
        ]
    keys = {label(model): set().union(*[_keys(search) for search in searches]) for model, searches in of.items()}
    if len({frozenset(searches) for searches in keys.values()}) > 1:
        words = "; ".join(f"{model} {join(sorted(searches))}" for model, searches in keys.items())
        return [f"Unequal search: not the same hyper-parameters were searched: {words} ([what was tried](#search))."]
    return []


def tell(summary: dict) -> list:
    """How many trials each model had, and whether equally many; which won, and every one that was tried."""
    if not summary["search"]:
        return []
    searches, unequal, keys = summary["search"], caveats(summary), sorted(searched(summary))
    text = (
        "Hyper-parameters were searched, and of each search one run is evaluated: the finished trial with the lowest "
        "validation loss. Test images had no part in that choice. Being the best of several, this loss is flattered; "
        "numbers on the test part are not."
    )
    if len(summary["models"]) > 1 and not unequal:
        text += f" Every model had the same number of trials, {searches[0]['trials']}, over the same hyper-parameters."
    best = [
        [
            label(search["model"]),
            str(search["seed"]),
            f"`{search['run']}`",
            str(search["trials"]),
            f"{search['loss']:.4f}",
        ]
        for search in searches
    ]
    tried = [
        [
            label(search["model"]),
            f"`{trial['run']}`",
            *[trial["values"].get(k, "") for k in keys],
            f"{trial['loss']:.4f}",
        ]
        for search in searches
        for trial in search["tried"]
    ]
    notes = [
        "Every finished trial that was to be evaluated, the best first; values that were drawn twice are one run and "
        "count once. What failed or was cut is listed under Runs."
    ]
    table = Table(["Model", "Trial", *[f"`{key}`" for key in keys], "Validation loss"], tried, 2, notes)
    return [
        *map(Caution, unequal),
        Text(text),
        Table(["Model", "Seed", "Evaluated", "Trials", "Validation loss"], best, 3),
        Details("Every trial", [table]),
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


def _keys(search: dict) -> set[str]:
    return {key for trial in search["tried"] for key in trial["values"]}
