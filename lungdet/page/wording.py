"""Wording: how the report names models and metrics and writes numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

METRIC_NAMES = {"f1": "F1", "auroc": "AUROC", "mcc": "Matthews' correlation", "brier": "Brier score"}
"""Of metrics whose keys are not their names."""
SHARES = {
    *("accuracy", "precision", "recall", "f1", "specificity", "balanced_accuracy"),
    *("pointing", "energy", "overlap", "lungs"),
}
"""Metrics shown in per cent, as the study does, and measures of heat maps; the others are decimals."""

MODEL_NAMES = {
    "cnn": "CNN",
    "cnn_lstm": "CNN-LSTM",
    "cnn_mlp": "CNN-MLP",
    "pool": "pooled steps",
    "length_only": "length alone",
}
"""By module; other models are called by theirs."""
FLAGS = {"model.shuffle": "shuffled", "model.frozen": "frozen"}
"""The settings that make a CNN-LSTM a control, and the word for one that has it."""

METHODS = {
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
}
"""Of heat maps, what they are called."""

BASELINE_NAMES = {
    "always_abnormal": "always abnormal",
    "always_normal": "always normal",
    "validation_share": "always validation's share",
}


class Named(Protocol):
    """A model as far as its name goes: the module of its class, what tells it from others of it, its own backbone."""

    base: str
    settings: Mapping[str, object]
    backbone: str | None


def label(model: Named) -> str:
    """A model as a text calls it: by its usual name or its module's, with what tells it from others of its class."""
    backbone = f"on {model.backbone}" if model.backbone and "model.backbone.name" not in model.settings else ""
    words = [setting(key, value) for key, value in model.settings.items()]
    return " ".join(filter(None, [MODEL_NAMES.get(model.base, model.base), backbone, *words]))


def setting(key: str, value: object) -> str:
    """A setting as a text calls it: of `FLAGS` a word where it is set, and nothing where not; of a class its name.

    `schedule=OneCycleLR`. Of the model's own keys the group is left out: `dropout=0.1`.
    """
    if key in FLAGS:
        return FLAGS[key] if value is True else ""
    if key.endswith("_target_"):
        return f"{key.removesuffix('._target_')}={str(value).rpartition('.')[2]}"
    return f"{key.removeprefix('model.')}={value}"


def finding_name(finding: str) -> str:
    """A finding as a text calls it; nodule and mass as what they are to those who look for cancer."""
    name = finding.replace("_", " ")
    return f"{name} (proxy for cancer)" if finding in ("nodule", "mass") else name


def percent(share: float) -> str:
    """A share in per cent with one decimal."""
    return f"{rounded(share)} %"


def rounded(share: float) -> str:
    """The same without the sign; a half that lost its last bit is still rounded up, as on paper."""
    return f"{100 * share + 1e-9:.1f}"


def number(count: int, noun: str) -> str:
    """A count with its noun: `1 seed`, `3 seeds`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def mean_count(count: float) -> str:
    """A count, or the mean of several with a decimal: `12,345`, `6.3`."""
    return f"{count:,.1f}".removesuffix(".0")


def join(parts: list[str], last: str = "and") -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def listed(entries: Mapping[str, Sequence[str]]) -> str:
    """What belongs to each of several names: `CNN: 0.8, 0.9; CNN-LSTM: 0.7`."""
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in entries.items())


def metric_name(metric: str) -> str:
    """A metric's name, at the head of a column say."""
    return METRIC_NAMES.get(metric, metric.replace("_", " ").capitalize())


def in_a_sentence(metric: str) -> str:
    """A metric's name within a sentence."""
    name = metric_name(metric)
    return name if metric in ("auroc", "f1", "mcc") else name.lower()


def points(metric: str, difference: float) -> tuple[str, str]:
    """A difference as texts say it, and its unit: percentage points for shares, none for other metrics."""
    if metric not in SHARES:
        return f"{difference:.3f}", ""
    number = f"{100 * difference:.1f}".replace("-0.0", "0.0")
    return number, " point" if number == "1.0" else " points"


def p_value(p: float | None) -> str:
    """A p-value as tables show it; empty where there is none."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def value(block: dict, key: str, metric: str) -> str:
    """A metric of a summary's block, with its spread over seeds where there is one."""
    sd = block.get(f"{key}_sd", {}).get(metric)
    return figure(metric, block[key][metric]) + ("" if sd is None else f" ± {figure(metric, sd)}")


def with_interval(block: dict, key: str, metric: str) -> str:
    """A metric of a summary's block with its 95 % interval in brackets; `no interval` where there is none."""
    return cell(block[key][metric], block[f"{key}_interval"][metric], metric, figure)


def difference(value: float | None, ends: Sequence[float] | None, metric: str) -> str:
    """A difference in a metric with its 95 % interval, likewise."""
    return cell(value, ends, metric, signed)


def cell(value: float | None, ends: Sequence[float] | None, metric: str, written: Callable[[str, float], str]) -> str:
    """A number, as it is to be written, with its interval in brackets."""
    return "undefined" if value is None else f"{written(metric, value)} [{between(ends, metric, written)}]"


def between(ends: Sequence[float] | None, metric: str, written: Callable[[str, float], str]) -> str:
    """An interval by its ends: `0.712 to 0.833`; `no interval` where there is none."""
    return "no interval" if ends is None else " to ".join(written(metric, end) for end in ends)


def interval(ends: Sequence[float] | None, metric: str, written: Callable[[str, float], str]) -> str:
    """The same within a sentence: `95 % interval 0.712 to 0.833`."""
    return f"{'' if ends is None else '95 % interval '}{between(ends, metric, written)}"


def signed(metric: str, value: float) -> str:
    """A difference as tables show it; what rounds to 0 has no sign."""
    number = points(metric, value)[0]
    return number if float(number) else number.removeprefix("-")


def figure(metric: str, value: float | None) -> str:
    """A metric's number as tables show it."""
    return "undefined" if value is None else rounded(value) if metric in SHARES else f"{value:.3f}"


def unit(data: dict) -> str:
    """What is drawn and split, of a summary's `data`: patients, or images where nothing says whose they are."""
    return "patient" if data["patients_known"] else "image"


def counted(counts: dict, data: dict) -> str:
    """Images, patients where they are known, and the share that is abnormal."""
    return f"{pictured(counts, data)}, {share_of(counts['abnormal'], counts['labelled'])} abnormal"


def pictured(counts: dict, data: dict) -> str:
    """Images, and patients where they are known."""
    images = number(counts["images"], "image")
    return f"{images}, {number(counts['patients'], 'patient')}" if data["patients_known"] else images


def share_of(part: int, whole: int) -> str:
    """A count and its share."""
    return f"{part:,} ({percent(part / whole)})" if whole else f"{part:,}"


def optional(value: float | None, form: str) -> str:
    """A number, or `unknown` where nothing recorded it."""
    return "unknown" if value is None else form.format(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
