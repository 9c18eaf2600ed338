"""Efficiency: the section on what models cost, as `costs.measure` found it and as the runs recorded it."""

from collections.abc import Callable, Sequence
from statistics import fmean

from lungdet.evaluation.costs.costs import TIMED
from lungdet.evaluation.sections.choice import NOT_MEASURED
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured
from lungdet.page.document import Details, Items, Table, Text
from lungdet.page.wording import duration, label, number, optional

COSTS = ("parameters", "fit_seconds", "epochs", "best_epoch", "images_per_second", "peak_memory_bytes")
"""What runs record of their training."""
MOST_COLUMNS = 4
"""Of more models a table is wider than a page."""
VISIBLE = 2
"""So many of these rows are not folded."""
WIDE = 0.2
"""A distance of the quartiles above this share of the median is remarked upon."""


def tell(summary: dict) -> list:
    """Ratios to the first model, where costs were measured side by side; a row a cost and a column a model.

    Args:
        summary: with each model's costs, and `efficiency`: what `costs.measure` returned, or None.
    """
    efficiency = summary["efficiency"] or {}
    measured = efficiency.get("models", {})
    # Models that differ in neither network, optimizer nor averaging cost the same; one of each kind is measured.
    models = {name: cost for name, cost in summary["models"].items() if name in measured} or summary["models"]
    rows = [["Parameters", *[_parameters(measured.get(name, {}), block) for name, block in models.items()]]]
    for title, cell in _ROWS.items() if measured else ():
        costs = [measured.get(name, {"reason": ""}) for name in models]
        rows.append([title, *["not measured" if "reason" in cost else cell(cost) for cost in costs]])
    columns = ["Cost", *[label(name) for name in models]]
    of_runs = [[title, *map(cell, models.values())] for title, cell in _RECORDED.items()]
    recorded = Details("What else the runs recorded", [_laid(columns, of_runs[VISIBLE:])])
    table = _laid(columns, rows + of_runs[:VISIBLE])
    if "reason" in efficiency:
        reason = f"Speed, latency and memory side by side are not measured: {efficiency['reason']}."
        return [Text(reason), table, recorded]
    if not efficiency:
        return [table, recorded]
    lines = [
        _against(efficiency["against"], name, cost["ratios"]) for name, cost in measured.items() if "ratios" in cost
    ]
    details = Details("How costs were measured", [*map(Text, _notes(efficiency))])
    return [*([Items(lines)] if lines else []), table, details, recorded]


def measure(study: Study) -> dict:
    """What `costs.measure` found side by side, and what the runs themselves recorded, means over runs."""
    blocks = {}
    for model, replicates in study.models.items():
        environments = [result.run.environment for replicate in replicates for result in replicate.results]
        blocks[model] = {cost: _mean([environment.get(cost) for environment in environments]) for cost in COSTS} | {
            "precision": sorted({environment["precision"] for environment in environments}),
            "hardware": sorted({environment["hardware"]["device"] for environment in environments}),
        }
    return {"efficiency": study.costs, "models": blocks}


def advice(summary: dict) -> list[list[str]]:
    """The faster model where the quartiles of the latencies' ratio lie on one side of 1, on a quiet machine."""
    efficiency, verdicts = summary.get("efficiency") or {}, []
    for name, cost in efficiency.get("models", {}).items():
        ratio = cost.get("ratios", {}).get("latency_ms")
        if ratio is None or name not in summary["models"] or name.base == efficiency["against"].base:
            continue
        against, this = label(efficiency["against"]), label(name)
        times = f"{this}'s latency is {ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f}) of {against}'s"
        if ratio["low"] <= 1 <= ratio["high"]:
            verdicts.append(f"either: {times}")
        else:
            verdicts.append(f"{this if ratio['high'] < 1 else against}: {times}")
    if verdicts and efficiency.get("quiet") is False:  # ratios mislead then, however close their quartiles
        busy = f"other programs kept {efficiency['others_cores']:.1f} of {efficiency['cores']} cores busy"
        verdicts = [f"{NOT_MEASURED} on a quiet machine: meanwhile {busy}, and no model is advised"]
    return [["An answer as soon as possible, image by image", "; ".join(verdicts), "[Cost](#cost)"]] if verdicts else []


UNASKED = Unmeasured(
    "FLOPs, speed, latency and memory side by side, half a minute",
    "`python evaluate.py runs=FOLDER efficiency=true`",
)
SECTION = Section(
    "Cost",
    measure=measure,
    tell=tell,
    advice=advice,
    unmeasured=lambda summary: [] if summary["efficiency"] else [UNASKED],
    claim=(22, 25, 26),
)


_ROWS: dict[str, Callable[[dict], str]] = {
    "FLOPs an image, billions": lambda cost: f"{cost['flops'] / 1e9:.4g}",
    "Training, images/s": lambda cost: _quartiles(cost["training_images_per_second"], _short),
    "Inference, images/s": lambda cost: _quartiles(cost["images_per_second"], _short),
    "Latency, one image, ms": lambda cost: _quartiles(cost["latency_ms"], _short),
    "Peak memory, MiB": lambda cost: _mebibytes(cost["peak_memory_bytes"]),
}


_RECORDED: dict[str, Callable[[dict], str]] = {
    "Training time": lambda block: _epochs(block, block["epochs"]),
    "Epochs (best)": lambda block: f"{optional(block['epochs'], '{:.3g}')} ({optional(_best(block), '{:.3g}')})",
    "Time an epoch": lambda block: _epochs(block, 1),
    "Time to the best epoch": lambda block: _epochs(block, _best(block)),
    "Images/s in training": lambda block: optional(block["images_per_second"], "{:.1f}"),
    "Memory in training, MiB": lambda block: _mebibytes(block["peak_memory_bytes"]),
    "Arithmetic": lambda block: ", ".join(block["precision"]),
    "Hardware": lambda block: ", ".join(block["hardware"]),
}
"""What the runs themselves recorded, reading images included; means over runs."""


def _laid(columns: list[str], rows: list[list[str]]) -> Table:
    """A column a model, or of many a row."""
    if len(columns) - 1 <= MOST_COLUMNS:
        return Table(columns, rows)
    return Table(["Model", *[row[0] for row in rows]], [list(cells) for cells in zip(columns, *rows, strict=True)][1:])


def _parameters(cost: dict, block: dict) -> str:
    return optional(cost.get("parameters", block["parameters"]), "{:,.0f}")


def _mebibytes(count: float | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:,.0f}"


def _best(block: dict) -> float | None:
    """The best epoch as people count, from 1; runs record it as `metrics.csv` has it, from 0."""
    return None if block["best_epoch"] is None else block["best_epoch"] + 1


def _epochs(block: dict, count: float | None) -> str:
    """So many of a model's epochs, in time."""
    if block["fit_seconds"] is None or not block["epochs"] or count is None:
        return "unknown"
    return duration(block["fit_seconds"] / block["epochs"] * count)


def _against(first: str, name: str, ratios: dict) -> str:
    named = {"parameters": "parameters", "flops": "FLOPs"} | TIMED | {"peak_memory_bytes": "peak memory"}
    clauses = []
    for quantity, words in named.items():
        ratio = ratios[quantity]
        if ratio is not None:
            value = _quartiles(ratio, "{:.2f}".format) if quantity in TIMED else f"{ratio:.2f}"
            clauses.append(f"{value} times the {words}")
    return f"{label(name)} against {label(first)}: {', '.join(clauses)}."


def _notes(efficiency: dict) -> list[str]:
    side, rounds = efficiency["image_size"], efficiency["rounds"]
    notes = [
        f"Measured in turns in one process on {efficiency['device']}, {number(efficiency['threads'], 'CPU thread')}, "
        f"torch {efficiency['torch']}, {efficiency['precision']}, {efficiency['memory_format'].replace('_', ' ')}, "
        f"batches of {efficiency['batch_size']} images of {side} x {side} pixels already in memory. Medians of "
        f"{rounds['training_images_per_second']} rounds of training, {rounds['images_per_second']} of inference and "
        f"{rounds['latency_ms']} of single images, quartiles in brackets; ratios of speeds and latency are taken round "
        "by round, and one whose quartiles lie on both sides of 1 shows no difference.",
        "FLOPs: one forward pass, a multiply-add counted as 2, in convolutions, matrix products and LSTMs. Peak "
        "memory: of a training step, what is alive at once, without the program itself.",
        *efficiency["remarks"],
        *[
            f"{label(name)} is not measured: {cost['reason']}."
            for name, cost in efficiency["models"].items()
            if "reason" in cost
        ],
    ]
    if not efficiency["quiet"]:
        notes.append(
            f"Meanwhile other programs kept {efficiency['others_cores']:.1f} of {efficiency['cores']} cores busy: "
            "these speeds are too low and their ratios mislead. Measure again on a quiet machine."
        )
    timed = [cost[quantity] for cost in efficiency["models"].values() if "reason" not in cost for quantity in TIMED]
    widest = max((spread["high"] - spread["low"]) / spread["median"] for spread in timed)
    if widest > WIDE:
        notes.append(f"Quartiles lie up to {100 * widest:.0f} % apart: the machine was not quiet.")
    return notes


def _quartiles(spread: dict, form: Callable[[float], str]) -> str:
    return f"{form(spread['median'])} ({form(spread['low'])}–{form(spread['high'])})"


def _short(value: float) -> str:
    """Three digits, or whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mean(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else fmean(values)
