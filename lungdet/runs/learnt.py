"""What a run has learnt from: its own training and validation images, and those of every run that it started from.

Weights that others published have learnt from images that nobody lists: `origins` says of which datasets.

A run that starts from another keeps in its folder `start` what identifies that one (`Run.keep_start`), its start in
turn included. So the whole chain is there wherever the runs have gone, and whatever their folders hold by now.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from lungdet.runs.folder import Run

if TYPE_CHECKING:
    import pandas as pd

    from lungdet.data.store.store import Store


def chain(run: Run) -> list[Run]:
    """The run, the run it started from as it was then, that one's start, and so on.

    Raises:
        RunError: a run started from another and has kept nothing of it.
    """
    runs = [run]
    while (start := runs[-1].start) is not None:
        runs.append(start)
    return runs


def learnt(run: Run) -> "pd.DataFrame":
    """The images that a run's weights come from, whichever run of its chain learnt from them.

    Returns:
        `image_id, patient_id, dataset, split` (`train`, or `val`: the best epoch was chosen on it), and `link`, the
        run's place in `chain(run)`.

    Raises:
        RunError: a run of the chain has not written down its split.
    """
    import pandas as pd

    tables = [origin.split().assign(link=link) for link, origin in enumerate(chain(run))]
    table = pd.concat(tables, ignore_index=True)
    return table[table["split"].isin(("train", "val"))]


def origins(run: Run) -> list[dict]:
    """What is known of the published weights that a run, or one of its chain, began with, see `published.origin`."""
    return [link.environment["origin"] for link in chain(run) if link.environment.get("origin")]


class Copies(NamedTuple):
    """Images that were learnt from under another name: `of` tells which, by `image_id`.

    `unsearched` has facts of each run of the chain whose images could not be compared: the `run`'s folder, and why, as
    `store`, what is wrong with that, or as `resize`, how it was prepared, which is otherwise. See `why_unsearched`.
    """

    of: dict[str, str]
    unsearched: list[dict[str, str]]


def copies(run: Run, store: "Store", parts: tuple[str, ...] = ("train", "val")) -> Copies:
    """The images of a store that show what the run has learnt from, in these parts, whatever they are called.

    The images learnt from are read in the stores that the runs of the chain recorded.
    """
    from lungdet.data.splitting import leaks
    from lungdet.data.store.store import StoreError, reopen

    table, copied = learnt(run), Copies({}, [])
    for link, origin in enumerate(chain(run)):
        try:
            recorded = reopen(origin.data["store"], origin.data["fingerprint"])
        except StoreError as error:
            copied.unsearched.append({"run": origin.config.run_dir, "store": str(error)})
            continue
        if recorded.settings.resize != store.settings.resize:
            copied.unsearched.append({"run": origin.config.run_dir, "resize": recorded.settings.resize})
            continue
        images = table["image_id"][(table["link"] == link) & table["split"].isin(parts)]
        copied.of.update(leaks.copied(store, recorded, set(images)))
    return copied


def why_unsearched(facts: Mapping[str, str]) -> str:
    """`of RUN (why)`: whose images could not be compared, from the facts that `Copies` has of it."""
    if "store" in facts:
        return f"of {facts['run']} ({facts['store']}; prepare its data again)"
    return f"of {facts['run']} (prepared with data.resize={facts['resize']})"
