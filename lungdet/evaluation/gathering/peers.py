"""Peers: other systems of which predictions alone are known, of the images that the runs were tested on."""

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungdet.errors import first_few
from lungdet.evaluation.gathering import peer_file
from lungdet.evaluation.gathering.models import CONTROLS, Model
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.peer_file import PeerFile
from lungdet.evaluation.gathering.results import EvaluationError, Result
from lungdet.evaluation.statistics.measure import lacking
from lungdet.findings import FINDINGS
from lungdet.page.wording import BASELINE_NAMES, MODEL_NAMES, label, number

LONGEST = 60
"""Letters of a name, which stands at the head of columns."""
SAYS_NOTHING = {
    *("test", "val", "train", "prediction", "predictions", "preds", "probabilities", "scores", "output", "outputs"),
    *("out", "result", "results", "worklist", "submission", "data", "table", "file", "list"),
}
"""What files and folders of predictions are called whosever they are: none of these names a system."""
OWN = {name.lower() for name in (*MODEL_NAMES, *MODEL_NAMES.values(), *CONTROLS, *BASELINE_NAMES.values())}
"""What a report calls its own models and answers, and hence no system."""
SUFFIXES = r"\.(png|jpe?g|tiff?|bmp|dcm|dicom)$"
"""What an image's file may end in; names are compared without."""


class Facts(NamedTuple):
    """What is known of a peer's file.

    Attributes:
        rows: how many it has, of which `others` are of images that were not tested.
        others: see `rows`.
        by: how its images were told, of `NAMES`.
        columns: by label the column that was taken.
        lacking: labels that it says nothing of, and that these images say nothing of either, or that nobody is judged
            on.
        decisions: labels of which it has nothing but 0 and 1.
        certain: probabilities of exactly 0 or 1 by label, of those that are no decisions.
    """

    rows: int
    others: int
    by: str
    columns: dict[str, str]
    lacking: list[str]
    decisions: list[str]
    certain: dict[str, int]


@dataclass(frozen=True)
class Peer:
    """Another system on the images that the runs were tested on. No run, seed, validation or training is known of it.

    To the sections that test predictions suffice it is what a `Replicate` is: `test` has the runs' own rows, sorted by
    `image_id`, with its log-odds. A label that it says nothing of is unknown there on every image.
    """

    path: Path
    test: pd.DataFrame
    labels: tuple[str, ...]
    facts: Facts
    seed: None = None

    @property
    def parts(self) -> dict[str, Result]:
        """No run was tested on any."""
        return {}

    @property
    def results(self) -> list[Result]:
        """No run is known."""
        return []

    @property
    def places(self) -> list[Path]:
        """Where its predictions lie."""
        return [self.path]

    @property
    def tables(self) -> list[pd.DataFrame]:
        """Its test predictions, which are not told apart by part."""
        return [self.test]


Tested = Replicate | Peer
"""What has predictions of the test images."""


def read(paths: Mapping[str, Path]) -> dict[str, PeerFile]:
    """The files by the name of the system, see `peer_file.read`."""
    return {name: peer_file.read(path) for name, path in paths.items()}


def named(predictions: object) -> dict[str, Path]:
    """The files that `predictions` asks for by the name of the system: the one given, or the file's stem.

    Args:
        predictions: a path, a list of them, or paths by name.

    Raises:
        EvaluationError: a name is none, too long, stands twice, or is what a report calls one of its own models; or a
            file is called as predictions are, whosever they are, and no name is given.
    """
    if predictions is None:
        return {}
    if isinstance(predictions, Mapping):
        pairs = [(str(name).strip(), path) for name, path in predictions.items()]
    else:
        paths = predictions if isinstance(predictions, list) else [predictions]
        pairs = [(Path(str(path)).stem, path) for path in paths]
        for name, path in pairs:
            if name.lower() in SAYS_NOTHING:
                raise EvaluationError(
                    f"predictions={path}: a report would call the system {name}; name it: {_proposal(Path(path))}"
                )
    files: dict[str, Path] = {}
    for name, path in pairs:
        if not isinstance(path, str) or not path:
            raise EvaluationError(f"predictions: {name}: {path} is no file; say 'predictions={{NAME: FILE.csv}}'")
        if not name or len(name) > LONGEST or not name.isprintable():
            raise EvaluationError(
                f"predictions={path}: {name!r} is no name of a system; one of 1 to {LONGEST} letters is: "
                "'predictions={NAME: FILE.csv}'"
            )
        if name.lower() in OWN:
            raise EvaluationError(
                f"predictions={path}: a report calls a model or answer of its own {name}; name the system otherwise: "
                "'predictions={NAME: FILE.csv}'"
            )
        if name in files:
            raise EvaluationError(
                f"predictions: {files[name]} and {path} are both called {name}; name them: "
                "'predictions={A: FILE.csv,B: FILE.csv}'"
            )
        files[name] = Path(path).expanduser()
    return files


def _proposal(path: Path) -> str:
    """The override that calls a file's system as the innermost folder does that may: of a run, the run."""
    folders = [folder.name for folder in path.expanduser().absolute().parents]
    names = (name for name in folders if 0 < len(name) <= LONGEST and name.lower() not in SAYS_NOTHING | OWN)
    name = next(names, "NAME")
    plain = all(re.fullmatch(r"[\w./~-]+", part) for part in (name, str(path)))
    return f"'predictions={{{name}: {path}}}'" if plain else "'predictions={NAME: FILE.csv}'"


def group(files: Mapping[str, PeerFile], models: Mapping[Model, Sequence[Replicate]]) -> dict[Model, list[Peer]]:
    """The peers on the images that these models were tested on, all parts of them together.

    Raises:
        EvaluationError: images are missing or doubled, a label is, or a peer is called as a model is.
        InputError: a value is not one of its kind, see `PeerFile.column`.
    """
    replicate = next(iter(models.values()))[0] if files else None
    names, peers = {label(model) for model in models}, {}
    for name, file in files.items():
        if name in names:
            raise EvaluationError(
                f"predictions={file.path}: a model of the runs is called {name}, too; name the system otherwise: "
                "'predictions={NAME: FILE.csv}'"
            )
        peers[Model(name)] = [_on(replicate, file)]
    return peers


def pairs(models: Collection[Model], peers: Collection[Model]) -> list[tuple[Model, Model]]:
    """Which comparisons peers add: with each model that is no control, and with each other."""
    own = [model for model in models if model.role not in CONTROLS] or [*models]
    return [*itertools.product(own, peers), *itertools.combinations(peers, 2)]


def _on(replicate: Replicate, file: PeerFile) -> Peer:
    """A file's predictions of a replicate's test images."""
    test, labels = replicate.test, replicate.labels
    rows, by = _rows(test["image_id"], file)
    in_file = np.sort(rows)  # messages name the first wrong line
    tested, place = file.of(in_file), np.searchsorted(in_file, rows)
    columns = {name: column for name in labels if (column := tested.column(name)) is not None}
    absent = [name for name in labels if name not in columns]
    if needed := [name for name in absent if len(labels) == 1 or lacking(test, name) is None]:
        common = ",".join(name for name in labels if name in columns and lacking(test, name) is None)
        remedy = f". Judge all models on what they have in common: 'labels=[{common}]'" if common else ""
        raise EvaluationError(
            f"{file.path}: no column says {', '.join(needed)}, which the runs predict on these images "
            f"(logit_{needed[0]}, probability_{needed[0]} or {needed[0]}); columns are "
            f"{first_few(file.rows.columns, 20)}{remedy}"
        )
    own = [column for column in test.columns if column.startswith(("logit_", "probability_"))]
    unknown = {f"target_{name}": np.float32("nan") for name in absent}
    logits = {f"logit_{name}": columns[name].logit[place] if name in columns else 0.0 for name in labels}
    certain = {name: int(column.certain.sum()) for name, column in columns.items()}
    decisions = [name for name, count in certain.items() if count == len(test)]
    facts = Facts(
        len(file.rows),
        len(file.rows) - len(test),
        by,
        {name: column.name for name, column in columns.items()},
        [name for name in (labels if labels == ("abnormal",) else FINDINGS) if not file.says(name)],
        decisions,
        {name: count for name, count in certain.items() if count and name not in decisions},
    )
    return Peer(file.path, test.drop(columns=own).assign(**unknown, **logits), labels, facts)


def _rows(images: pd.Series, file: PeerFile) -> tuple[np.ndarray, str]:
    """Each tested image's row of the file, and by what of `NAMES` the images were told.

    Names that are the runs' own count alone; where none is, the way of telling that finds most images, each by itself.
    """
    ways = {}
    for by, (of_run, of_file) in NAMES.items():
        expected, names = images.map(of_run), file.images.map(of_file)
        if by == BY_EITHER:
            names = names.where(names.isin(expected), names.map(_last))
        ways[by] = expected, names, int(expected.isin(names).sum())
        if by == AS_THE_RUNS and ways[by][2]:
            break
    by = max(ways, key=lambda by: (ways[by][2], ways[by][0].is_unique))
    expected, names, known = ways[by]
    if known < len(expected):
        missing = images[~expected.isin(names)]
        raise EvaluationError(
            f"{file.path} lacks {len(missing):,} of the {len(images):,} tested images: {first_few(missing)}. It "
            f"names {len(names):,} images as {first_few(file.images, 2)}; every tested image is needed"
        )
    if (ambiguous := expected.duplicated(keep=False)).any():
        raise EvaluationError(
            f"{file.path}: {int(ambiguous.sum()):,} tested images are not told apart by their file's name: "
            f"{first_few(images[ambiguous])}; name images as the runs do"
        )
    tested = names[names.isin(expected)]
    if (repeated := tested.duplicated()).any():
        places = file.images[tested.index[repeated]]
        raise EvaluationError(
            f"{file.path} names tested images again in {number(int(repeated.sum()), 'row')}: "
            f"{first_few(places)}; one row an image is needed"
        )
    return tested.index[pd.Index(tested).get_indexer(expected)].to_numpy(), by


def _plain(name: str) -> str:
    return re.sub(SUFFIXES, "", name.strip().replace("\\", "/").removeprefix("./"), flags=re.IGNORECASE)


def _in_dataset(image: str) -> str:
    return image.partition("/")[2]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


AS_THE_RUNS = "as the runs name them"
BY_EITHER = "by the path in their dataset, or by the file's name"
"""As a table's images are called: by their path only where two of them share their file's name."""
NAMES: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    AS_THE_RUNS: (str, str),
    "by the path in their dataset": (_in_dataset, _plain),
    "by the file's name alone": (_last, lambda name: _last(_plain(name))),
    BY_EITHER: (_in_dataset, _plain),
}
"""How images may be told: what is compared of a run's `image_id` and of the file's name."""
