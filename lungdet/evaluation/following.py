"""Following: the commands that a report's reader may go on with, made of the words that the runs were made with."""

from collections.abc import Sequence
from math import prod

from lungdet.evaluation.gathering.results import Result
from lungdet.evaluation.sections.contract import without_peers
from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED
from lungdet.machine.commands import command, key_of

OFFERED = 3


def following(summary: dict, results: Sequence[Result], words: Sequence[str]) -> list[tuple[str, str]]:
    """At most three commands, each with what it is for.

    Args:
        summary: what the report is made of.
        results: the runs in it.
        words: that evaluate.py was given.
    """
    commands = []
    if min(len(block["seeds"]) for block in without_peers(summary)["models"].values()) < SEEDS_NEEDED:
        anew = more_seeds(results)
        commands += [(anew, "more seeds, so that what is said holds of the models")] if anew else []
    if not summary["efficiency"]:
        commands.append((command("evaluate.py", *words, "efficiency=true"), "what the models cost side by side"))
    if not summary["threshold"]["asked"]:
        rule = ("threshold.rule=sensitivity", "threshold.at=0.95")
        commands.append((command("evaluate.py", *words, *rule), "thresholds that find 95 % of the abnormal"))
    if summary["data"]["external"] is None:
        words = [word for word in words if key_of(word) != "predictions"]
        data = ("data=table", "data.table=FILE.csv", "data.root=IMAGES")
        commands.append((command("evaluate.py", *words, *data), "the same runs on images of your own"))
    return commands[:OFFERED]


def more_seeds(results: Sequence[Result]) -> str | None:
    """The command that trains the same models under three seeds; in a multirun's folder it does what is missing.

    None where no one multirun makes them: they are the best of searches, or no grid.
    """
    commands = {tuple(w for w in r.run.environment.get("overrides", []) if key_of(w) != "seed") for r in results}
    values: dict[str, dict[str, None]] = {}
    for key, equals, value in (word.partition("=") for words in sorted(commands) for word in words):
        values.setdefault(f"{key}{equals}", {})[value] = None
    if any(result.trials for result in results) or len(commands) != prod(map(len, values.values())):
        return None
    seeds = ",".join(map(str, sorted({0, 1, 2} | {result.seed for result in results})))
    values["seed="] = {seeds: None}
    folders = {result.run.folder.resolve().parent for result in results}
    if len(folders) == 1 and (folder := folders.pop()).parent.name == "sweeps":
        values["sweep.name="] = {folder.name: None}
    own = results[0].run.environment["own_configuration"]
    return command("train.py -m", *own, *[f"{key}{','.join(choices)}" for key, choices in values.items()])
