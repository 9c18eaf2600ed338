"""Starts: the runs and the published weights that convolutional layers began with, and what follows from them."""

from itertools import combinations

from lungdet.page.wording import join, label, number


def caveats(summary: dict) -> list[str]:
    """What published weights may have seen; seeds of a model that began with one network, models that did not."""
    return [*_of_weights(summary), *_of_runs(summary)]


def _of_weights(summary: dict) -> list[str]:
    """That what published weights have learnt from is not known, or that validation images are of it."""
    validated = {dataset for part in summary["data"]["parts"].values() for dataset in part["val_datasets"]}
    users: dict[tuple[str, ...], list[str]] = {}
    for model, block in summary["models"].items():
        for weights in [weights for run in block["runs"] for weights in run["origins"]]:
            met = sorted(validated & {*(weights["seen"] or ())})
            if weights["seen"] is None or met:
                names = users.setdefault((weights["weights"], *met), [])
                names.extend([label(model)] if label(model) not in names else [])
    sentences = []
    for (weights, *met), models in users.items():
        start = f"{join(models)} {'starts' if len(models) == 1 else 'start'} from `{weights}`"
        if met:
            sentences.append(
                f"{start}, weights that have learnt from {join(met)}, nobody knows from which images. The best epoch "
                "and the thresholds were chosen on images of it, which may be too sure of themselves."
            )
        else:
            sentences.append(
                f"{start}, and what these weights have learnt from is not known: images that are tested here may be "
                "part of it."
            )
    return sentences


def _of_runs(summary: dict) -> list[str]:
    """That seeds of a model began with one network, and that models began with different ones."""
    models = {name: block for name, block in summary["models"].items() if block["settings"]["frozen"] is not None}
    starts = {name: _starts(block) for name, block in models.items()}
    sentences = []
    shared = [name for name in models if _shared(starts[name])]
    if shared:
        sentences.append(
            f"Seeds of {join([label(name) for name in shared])} start from one run's convolutional layers: the spread "
            "over seeds leaves out what another start would change, and so does every interval that counts it."
        )
    if frozen := [label(name) for name in shared if models[name]["settings"]["frozen"]]:
        sentences[-1] += f" Frozen, as in {join(frozen)}, these layers are one and the same network under every seed."
    if any(_differ(*pair) for pair in combinations(starts.values(), 2)):
        names = [f"{label(name)} from {_named(models[name])}" for name in models]
        sentences.append(f"The models do not start from the same runs: {'; '.join(names)}. A difference may be theirs.")
    return sentences


def _starts(block: dict) -> dict[tuple, tuple | None]:
    """Which run each seed started from on each part; None where from none."""
    return {
        (run["seed"], run["part"]): run["start"] and (run["start"]["run"], run["start"]["started"])
        for run in block["runs"]
    }


def _shared(starts: dict[tuple, tuple | None]) -> bool:
    """Whether two seeds started from one run on the same part."""
    return any(
        first is not None and first == second and part == other_part
        for ((_, part), first), ((_, other_part), second) in combinations(starts.items(), 2)
    )


def _differ(first: dict[tuple, tuple | None], second: dict[tuple, tuple | None]) -> bool:
    """Whether a seed that both models have started from different runs, or from one and from none."""
    return any(first[seed_and_part] != second[seed_and_part] for seed_and_part in first.keys() & second.keys())


def _named(block: dict) -> str:
    """The runs that a model started from: what they are, and how many."""
    starts = {run["start"] and (run["start"]["name"], run["start"]["run"]) for run in block["runs"]}
    if starts == {None}:
        return "none"
    names = sorted({name for name, _ in starts - {None}})
    folders = sorted({folder for _, folder in starts - {None}})
    return f"{join(names)} ({f'`{folders[0]}`' if len(folders) == 1 else number(len(folders), 'run')})"
