"""The sections on where results come from: what training cost, which data and split, which runs."""

from lungdet.evaluation.sections import comparability
from lungdet.page.document import Items, Table, Text
from lungdet.page.wording import counted, duration, figure, label, number, optional, share_of, unit


def cost_table(summary: dict) -> Table:
    """What training cost: parameters, time, memory, and on what hardware."""
    columns = [
        "Model",
        "Parameters",
        "Training time",
        "Epochs (best)",
        "Images/s",
        "Peak memory",
        "Arithmetic",
        "Hardware",
    ]
    rows = [
        [
            label(model),
            optional(block["parameters"], "{:,.0f}"),
            "unknown" if block["fit_seconds"] is None else duration(block["fit_seconds"]),
            f"{optional(block['epochs'], '{:.3g}')} ({optional(block['best_epoch'], '{:.3g}')})",
            optional(block["images_per_second"], "{:.1f}"),
            "unknown" if block["peak_memory_bytes"] is None else f"{block['peak_memory_bytes'] / 2**20:,.0f} MiB",
            ", ".join(block["precision"]),
            ", ".join(block["hardware"]),
        ]
        for model, block in summary["models"].items()
    ]
    notes = ["Of training; means over runs. The best epoch is counted from 0, as in `metrics.csv`."]
    return Table(columns, rows, 1, notes)


def data_and_split(summary: dict) -> list:
    """Images and patients by part and by dataset, how images were resized, the split and its hashes."""
    data, split = summary["data"], summary["split"]

    def patients(counts: dict) -> str:
        return f"{counts['patients']:,}" if data["patients_known"] else "not known"

    def of_patients(counts: dict) -> str:
        return f", {counts['patients']:,} patients" if data["patients_known"] else ""

    said = []
    if data["external"]:
        said.append(
            Text(
                f"Other data was scored by finished runs: {data['external']}, {counted(data['test'], data)}, "
                "at the thresholds that their own validation images chose. Images of patients whom a run, or one that "
                "it started from, was trained or tuned on are left out, with them those who have an image that was "
                f"learnt from under another name ({number(data['scored']['copies'], 'such image')}). "
                f"{number(data['scored']['excluded'], 'image')} could not be used. What follows are the runs' own data "
                "and split."
            )
        )
    own = [f"{data['images']:,} images{of_patients(data)}"] if "images" in data else []
    for name, source in data.get("sources", {}).items():
        part = f" of {source['of']:,}" if source.get("of") not in (None, source["images"]) else ""
        own.append(f"{name}: {source['images']:,}{part} images{of_patients(source)}")
    resize = {
        "squash": "squeezed to a square (`squash`, the study's way)",
        "pad": "padded to a square (`pad`)",
        "crop": "cropped to a square (`crop`)",
    }.get(data.get("resize"), f"resized by `{data.get('resize')}`")
    own.append(f"Every image was {resize}, {data.get('image_size')} x {data.get('image_size')} pixels")
    own.append(
        f"{data.get('excluded', 0)} unreadable or unusable image(s) left out; "
        f"data fingerprint `{str(data.get('fingerprint'))[:16]}`"
    )
    seed = "" if split.get("seed") is None else f", seed {split['seed']}"
    hashes = ", ".join(f"`{value}`" for value in split["hashes"])
    name = summary["parts"]["family"] if summary["parts"] else f"{split['name']}{seed}"
    own.append(f"Split `{name}`, by {unit(data)}, hash {hashes}")
    said.append(Items([f"{line}." for line in own]))
    said.append(Text(comparability.sentence(summary)))
    rows = [
        [
            side if len(split["by_part"]) == 1 else f"{part}: {side}",
            "all",
            f"{block['images']:,}",
            patients(block),
            share_of(block["abnormal"], block["labelled"]),
            block["hash"],
        ]
        for part, sides in split["by_part"].items()
        for side, block in sides.items()
    ]
    [*_, last] = data["parts"].values()
    scored = {"other data" if data["external"] else "test": data["test_datasets"]}
    if len(data["parts"]) == 1:
        scored = {"val": last["val_datasets"]} | scored
    for part, datasets in scored.items():
        for name, block in datasets.items():
            if len(datasets) > 1 or part == "other data":
                abnormal = share_of(block["abnormal"], block["labelled"])
                rows.append([part, name, f"{block['images']:,}", patients(block), abnormal, ""])
    said.append(Table(["Part", "Dataset", "Images", "Patients", "Abnormal", "Hash"], rows, 2))
    return said


def list_of_runs(summary: dict) -> list:
    """Every run that went in, and those that did not with the reason."""
    none = "none" if summary["task"] == "abnormal" else "by finding"
    started_from = any(run["start"] for block in summary["models"].values() for run in block["runs"])
    rows = [
        [
            label(model),
            str(run["seed"]),
            *([run["part"]] if summary["parts"] else []),
            f"`{run['run']}`",
            *(["none" if run["start"] is None else f"`{run['start']['run']}`"] if started_from else []),
            run["started"] or "unknown",
            run["git"] or "none",
            none if run["threshold"] is None else f"{run['threshold']:.3f}",
            *["undefined" if run["test"][m] is None else figure(m, run["test"][m]) for m in ("accuracy", "auroc")],
        ]
        for model, block in summary["models"].items()
        for run in block["runs"]
    ]
    part = ["Tested on"] if summary["parts"] else []
    start = ["Started from"] if started_from else []
    columns = ["Model", "Seed", *part, "Folder", *start, "Started", "Revision", "Threshold", "Accuracy", "AUROC"]
    notes = ["Folders as seen from the report's. Accuracy at threshold 0.5."]
    found = [Table(columns, rows, columns.index("Threshold"), notes)]
    if summary["not_evaluated"]:
        lines = [f"`{one['run']}`: {one['reason']}" for one in summary["not_evaluated"]]
        found += [Text("Found and not evaluated:"), Items(lines)]
    if summary["evaluated_elsewhere"]:
        lines = [f"`{one['run']}`: {one['reason']}: `{one['report']}`" for one in summary["evaluated_elsewhere"]]
        found += [Text("Found beside these and evaluated in a report of their own:"), Items(lines)]
    return found
