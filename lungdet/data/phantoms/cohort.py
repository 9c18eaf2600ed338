"""Who the synthetic patients are: age, sex, visits, what each visit shows and what its label says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lungdet.errors import InputError, require_whole

SINGLE = ("nodule", "mass", "infiltration", "effusion", "cardiomegaly", "pneumothorax")
SIGNALS = ("findings", "order", "none")
FIRST: dict[str, int] = {"chestxray14": 90_001, "montgomery": 1_001, "shenzhen": 1_001}
"""The first patient's number in each source: no phantom bears a number that the real dataset has."""
SOURCE_NAMES: tuple[str, ...] = tuple(FIRST)


@dataclass(frozen=True)
class Knobs:
    """What phantoms are made by; `PhantomDataModule` says what each means.

    Raises:
        InputError: a knob out of its range; the message names it.
    """

    patients: Mapping[str, int] = field(
        default_factory=lambda: {"chestxray14": 400, "montgomery": 150, "shenzhen": 250}
    )
    series: int = 4
    size: int = 128
    prevalence: float = 0.5
    difficulty: float = 0.0
    shortcut: float = 0.0
    signal: str = "findings"
    label_noise: float = 0.0
    masks: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "patients", dict(self.patients))
        if not self.patients or set(self.patients) - set(SOURCE_NAMES) or min(self.patients.values()) < 1:
            raise InputError(
                f"data.patients={self.patients}: a number of at least 1 for any of {', '.join(SOURCE_NAMES)}"
            )
        for name, limit in {"prevalence": 1, "difficulty": 1, "shortcut": 1, "label_noise": 0.5}.items():
            if not 0 <= getattr(self, name) <= limit:
                raise InputError(f"data.{name}={getattr(self, name)}: it lies between 0 and {limit}")
        if self.signal not in SIGNALS:
            raise InputError(f"data.signal={self.signal}: one of {', '.join(SIGNALS)} is needed")
        if not 64 <= self.size <= 4096:
            raise InputError(f"data.size={self.size}: 64 pixels, below which no rib is left, to 4096; 256 is usual")
        require_whole("data.phantom_seed", self.seed, 0)
        if self.series < (4 if self.signal == "order" else 1):
            raise InputError(f"data.series={self.series}: at least 1, and 4 where the order of visits is the signal")
        odd = [source for source, count in self.patients.items() if count % 2]
        if self.signal == "order" and odd:
            raise InputError(
                f"data.patients.{odd[0]}={self.patients[odd[0]]}: patients come as twins where the order of visits is "
                "the signal; set an even number"
            )


class Visit(NamedTuple):
    """One image. `picture` numbers the patient's pictures: two visits with the same number show the same pixels."""

    picture: int
    severity: dict[str, float]  # by finding, what is drawn
    tags: tuple[str, ...]  # what the source's table says; with label noise not what is drawn
    label: float  # 1 / 0, NaN where nobody says
    artefact: bool
    portable: bool
    age: int


class Case(NamedTuple):
    """A patient. Two cases of the same `anatomy` are twins: the same chest, the same pictures."""

    source: str
    number: int
    anatomy: int
    female: bool
    visits: list[Visit]


def cohort(knobs: Knobs) -> Iterator[Case]:
    """All patients; those of one source do not depend on how many the others have."""
    for source in SOURCE_NAMES:
        count, key = knobs.patients.get(source, 0), [knobs.seed, SOURCE_NAMES.index(source), 0]
        rng = np.random.default_rng(key)
        if knobs.signal == "order":
            yield from (case for pair in range(count // 2) for case in _twins(source, pair, knobs, rng))
        else:
            first, later = (_deck(knobs.prevalence, np.random.default_rng([*key, k])) for k in (1, 2))
            for number in range(FIRST[source], FIRST[source] + count):
                yield _case(source, number, knobs, rng, first, later)


def _case(
    source: str, number: int, knobs: Knobs, rng: np.random.Generator, first: Iterator[bool], later: Iterator[bool]
) -> Case:
    age, female = _person(rng)
    count = int(rng.integers(1, knobs.series + 1)) if source == "chestxray14" else 1
    if source == "chestxray14":
        kinds = list(rng.choice(SINGLE, 2, replace=False))[: 2 if rng.random() < 0.2 else 1]
    else:
        kinds = ["tuberculosis", "effusion"][: 2 if rng.random() < 0.2 else 1]
    ill, severity = next(first), rng.uniform(0.25, 0.8, len(kinds))
    visits = []
    for k in range(count):
        # An illness appears or clears now and then, such that every visit has the same prevalence; while it lasts it
        # mostly grows.
        if k and rng.random() < 0.4:
            ill = next(later)
        severity = np.clip(severity + (k > 0) * rng.normal(0.1, 0.12, len(kinds)), 0.15, 1)
        label = ill != (rng.random() < knobs.label_noise)
        artefact = rng.random() < _artefact(knobs.shortcut, label)
        tags = tuple(sorted(map(str, kinds))) if label else ()
        visible = ill and knobs.signal == "findings"
        lesions = {str(kind): float(s) for kind, s in zip(kinds, severity, strict=True)} if visible else {}
        portable = source == "chestxray14" and rng.random() < 0.35
        visits.append(Visit(k, lesions, tags, float(label), bool(artefact), portable, age + (k + number % 2) // 2))
    return Case(source, number, number, female, visits)


def _twins(source: str, pair: int, knobs: Knobs, rng: np.random.Generator) -> Iterator[Case]:
    """The same pictures of an effusion twice: growing in one twin, clearing in the other, the last one the same."""
    age, female = _person(rng)
    count = int(rng.integers(4, knobs.series + 1))
    steps = np.linspace(0.0, 1.0, count - 1) + rng.uniform(-0.06, 0.06, count - 1)
    severities = [*np.clip(steps, 0, 1), rng.uniform(0.3, 0.7)]
    first = int(rng.random() < 0.5)
    artefacts = rng.random(count) < _artefact(0, False)
    portable = (rng.random(count) < 0.35) & (source == "chestxray14")
    noise = rng.random() < knobs.label_noise
    for twin in (0, 1):
        growing = twin == first
        order = [*(range(count - 1) if growing else reversed(range(count - 1))), count - 1]
        label = float(growing != noise)
        visits = [
            Visit(
                picture=i,
                severity={"effusion": float(severities[i])},
                tags=(),
                label=label if i == count - 1 else np.nan,
                artefact=bool(artefacts[i]),
                portable=bool(portable[i]),
                age=age + k // 2,
            )
            for k, i in enumerate(order)
        ]
        yield Case(source, FIRST[source] + 2 * pair + twin, pair, female, visits)


def _person(rng: np.random.Generator) -> tuple[int, bool]:
    """Age, and whether it is a woman."""
    return int(np.clip(rng.normal(48, 17), 16, 92)), bool(rng.random() < 0.45)


def _deck(prevalence: float, rng: np.random.Generator) -> Iterator[bool]:
    """Cards to draw from, of which every 20 in a row hold their share.

    Chance would give each source a prevalence of its own, and then the source's look would say something of the label.
    """
    dealt = ill = 0
    while True:
        dealt += 20
        cards = np.arange(20) < round(dealt * prevalence) - ill
        ill += int(cards.sum())
        yield from (bool(card) for card in rng.permutation(cards))


def _artefact(shortcut: float, label: bool) -> float:
    """How likely an image carries the artefact: the same for both labels at 0, a sure sign at 1."""
    return 0.25 + 0.75 * shortcut if label else 0.25 * (1 - shortcut)
