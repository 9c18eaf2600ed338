"""A finished run as one file that needs no lungdet, written once its own runtime has computed what the run does."""

import logging
import math
from importlib.metadata import version
from pathlib import Path

import torch

from lungdet.data.store.store import StoreError
from lungdet.errors import InputError, RunError
from lungdet.inference import precision as precisions
from lungdet.inference.differences import differences
from lungdet.inference.formats import FORMATS
from lungdet.inference.graph import Graph
from lungdet.inference.model import Model
from lungdet.inference.samples import Sample, noise, sample
from lungdet.machine.writing import replacing, require_writable

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Log-odds of a file in fp32 are no further from the run's."""
TESTED = 1000
"""Test cases, at most, that a file is checked on: a wrong graph shows on a few, what AUROC loses on hundreds."""
CALIBRATION = 128
"""Validation cases that tell the ranges of a network in int8."""
USE = (
    "Research. This is no medical device: nothing that it computes is a diagnosis, and it has not been tested on your "
    "patients and machines before you have done so."
)


def export(model: Model, out: Path, format: str = "onnx", precision: str = "fp32") -> dict:
    """Write a run, or the mean of several, as one file, and say how far it is from what the run computes.

    Args:
        model: see `lungdet.inference.loading.load`.
        out: the file, whose name ends as the format's do.
        format: of `lungdet.inference.formats.FORMATS`.
        precision: of `lungdet.inference.precision.PRECISIONS`; all but fp32 are for ONNX.

    Returns:
        The metadata, which stand in the file as JSON.

    Raises:
        InputError: a format or precision that is not there or cannot be; a control; int8 without validation images.
        RunError: the file computes something else than the run. Nothing is written then.
    """
    _require_choices(format, precision, out)
    require_writable("out", out)
    if out.exists():
        log.info("%s: a file is there already, and is going to be replaced", out)
    _, build, pack, open_file = FORMATS[format]
    graph = Graph(model)
    try:
        tested = sample(model, "test", TESTED)
    except StoreError as error:
        log.warning("the run's own images cannot be read, so the file is checked on noise: %s", error)
        tested = noise(model)
    built = build(graph, _example(graph, model))
    if precision == "fp16":
        built = precisions.half(built)
    elif precision == "int8":
        built = precisions.eight_bits(built, _validation(model).batches(graph.inputs, 1))
    facts = _facts(model, graph, format, precision)
    predict, _ = open_file(pack(built, facts))
    checked = differences(model, graph, predict, tested)
    if precision == "fp32" and not checked["log_odds"] <= TOLERANCE:
        raise RunError(
            f"{out}: not written. In {format} the log-odds of {checked['furthest']} differ from the run's by "
            f"{checked['log_odds']:.2g}, and {TOLERANCE:g} is the most; another format may keep them"
        )
    del checked["furthest"]  # an image's name may be a patient's, and the file goes to strangers
    facts["checked"] = checked
    data = pack(built, facts)
    if open_file(data)[1] != facts:
        raise RunError(f"{out}: not written. Its metadata cannot be read back; take another format")
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        file.write(data)
    return facts


def _require_choices(format: str, precision: str, out: Path) -> None:
    if format not in FORMATS:
        raise InputError(f"format={format}: one of {', '.join(FORMATS)} is needed")
    if precision not in precisions.PRECISIONS:
        raise InputError(f"precision={precision}: one of {', '.join(precisions.PRECISIONS)} is needed")
    if precision != "fp32" and format != "onnx":
        raise InputError(f"precision={precision}: only format=onnx has it, and format={format} is asked for")
    if out.suffix != FORMATS[format].suffix:
        others = ", ".join(f"{kind.suffix} is format={name}" for name, kind in FORMATS.items() if name != format)
        raise InputError(
            f"out={out}: a name that ends in {FORMATS[format].suffix} is needed for format={format}; {others}"
        )
    if out.is_dir():
        raise InputError(f"out={out}: a folder has this name")


def _example(graph: Graph, model: Model) -> list[torch.Tensor]:
    """Inputs of which no two axes are alike, so that none is taken for another."""
    side = model.settings.size
    inputs = {
        "image": torch.zeros(3, 1, side + 8, side + 5, dtype=torch.uint8),
        "length": torch.tensor([1, 2]),
        "when": torch.tensor([[50.0, 0.0], [40.0, 0.0], [41.0, 1.0]]),
    }
    return [inputs[name] for name in graph.inputs]


def _validation(model: Model) -> Sample:
    try:
        return sample(model, "val", CALIBRATION)
    except StoreError as error:
        raise InputError(
            f"precision=int8 is set by the run's validation images, and they cannot be read: {error}. Prepare them "
            "again, or take precision=fp16, which needs none"
        ) from error


def _facts(model: Model, graph: Graph, format: str, precision: str) -> dict:
    """What whoever opens the file has to know, JSON-ready."""
    return {
        "use": USE,
        "lungdet": version("lungdet"),
        "format": format,
        "precision": precision,
        "inputs": list(graph.inputs),
        "image": {
            "size": model.settings.size,
            "resize": model.settings.resize,
            "bits": model.settings.bits,
            "visits": model.visits,
            "gap": next((network.gap for network in model.networks if network.gap), None),
        },
        "labels": list(model.labels),
        "thresholds": {label: cut.as_dict() for label, cut in model.thresholds.items()},
        "temperature": {
            label: None if math.isnan(value) else float(value) for label, value in model.temperature.items()
        },
        "runs": [
            {
                "name": run.name,
                "model": run.config.model._target_,
                "task": run.config.task,
                "finished": run.environment["finished"],
                **model.hashes[str(run.folder)],
            }
            for run in model.runs
        ],
    }


def sentences(facts: dict, out: Path) -> list[str]:
    """What is said of a file that was written: how large, how far from the run, and what it is not."""
    checked = facts["checked"]
    of = "the run's network" if len(facts["runs"]) == 1 else "the runs' networks"
    images = "test images" if checked["images"] == "test" else "images of noise"
    lines = [
        f"{out}: {facts['format']} in {facts['precision']}, {out.stat().st_size / 1e6:.1f} MB",
        f"checked on {checked['cases']:,} {images}: log-odds differ by at most {checked['log_odds']:.2g} from {of} in "
        "fp32",
    ]
    for label, area in checked.get("auroc", {}).items():
        if None not in area.values():
            change = area["file"] - area["run"]
            lines.append(f"AUROC of {label}: {area['file']:.4f}, of {of} in fp32 {area['run']:.4f}: {change:+.4f}")
    if own := checked.get("own"):
        lines.append(f"from the run's own predictions, made in {own['made_in']}: by at most {own['log_odds']:.2g}")
    return [*lines, facts["use"]]
