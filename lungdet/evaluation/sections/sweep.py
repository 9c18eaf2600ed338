"""Sweep: models that differ in one setting of their training, and what each value of it was run with."""

from collections.abc import Sequence
from typing import NamedTuple

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.sections.comparability import TRAINED_ON
from lungdet.evaluation.sections.contract import Unmeasured
from lungdet.page.wording import label

Value = float | tuple[str, ...] | None
"""What a setting is set to; None: as the data has it."""


class Sweep(NamedTuple):
    """Models that differ in one setting: its values in order, and each line's model at those it has.

    `unnamed` are the settings that lines are not named by: this one, and the others where all models have them as
    usual.
    """

    values: list[Value]
    lines: dict[Model, dict[Value, Model]]
    unnamed: tuple[str, ...]

    def line(self, model: Model) -> Model:
        """A model without the settings that it is not named by."""
        return model.without([f"data.{key}" for key in self.unnamed])

    def called(self, model: Model) -> str:
        """A model as a text calls it that has said what the setting is."""
        return label(self.line(model))

    @property
    def varies(self) -> bool:
        """Whether there is anything to compare."""
        return len(self.values) > 1

    @property
    def cells(self) -> list[tuple[Value, Model, Model | None]]:
        """Value by value every line, with its model there or None where it was not run."""
        return [(value, line, models.get(value)) for value in self.values for line, models in self.lines.items()]

    def at(self, value: Value, comparisons: Sequence[dict]) -> list[dict]:
        """The comparisons of models that were both trained so."""
        models = {line[value] for line in self.lines.values() if value in line}
        return [comparison for comparison in comparisons if {comparison["first"], comparison["second"]} <= models]


def sweep(summary: dict, key: str) -> Sweep:
    """The models by a setting of `TRAINED_ON`: with the others as usual, or all if that leaves none to compare."""
    models = {model: block["settings"] for model, block in summary["models"].items()}
    usual_settings = {setting: usual for setting, usual in TRAINED_ON.items() if setting != key}
    as_usual = {
        model: settings
        for model, settings in models.items()
        if all(settings.get(setting, usual) == usual for setting, usual in usual_settings.items())
    }
    few = len({_value(settings, key) for settings in as_usual.values()}) < 2
    swept = Sweep([], {}, (key,) if few else tuple(TRAINED_ON))
    for model, settings in (models if few else as_usual).items():
        value, line = _value(settings, key), swept.line(model)
        swept.lines.setdefault(model if value in swept.lines.get(line, {}) else line, {})[value] = model
    values = {value for line in swept.lines.values() for value in line}
    swept.values.extend([*sorted(values - {None}), *values & {None}])
    return swept


def measured_by(experiment: str, question: str) -> Unmeasured:
    """What an experiment measures."""
    return Unmeasured(question, f"`python train.py experiment={experiment} data.root=DIR`")


def missing(rows: Sequence[Sequence[str]]) -> list[str]:
    """A note where a table lacks a run."""
    lacking = any("not run" in row for row in rows)
    return ["Not run: no finished run is among those evaluated; see [Runs](#runs)."] if lacking else []


def _value(settings: dict, key: str) -> Value:
    return tuple(settings[key]) if isinstance(settings[key], list) else settings[key]
