"""Everything that is to be said of a dataset: numbers, oddities, copies, what an official set lacks, advice."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from lungdet.data.datamodule import RadiographDataModule


def examine(data: "RadiographDataModule") -> dict:
    """Everything that is to be said of a dataset.

    A split that training would refuse (`data.setup`) is reported, not raised, together with the numbers of its parts.

    Returns:
        `title`, `store` (fingerprint, settings), `split` (name and hashes, None without one), `refused` (why training
        would not start, or None), `official` (by dataset, `official.verify`), `copies`, `left_out`, `odd` (names by
        kind), `patients_known`, `doubts` (sentences: who is who, depth of 16-bit files), `advice`, `numbers`
        (`fingerprint.describe`), all JSON-ready; `tables` and `sheet` for those who show them.
    """
    from lungdet.data.check import advice, contact, fingerprint, inspection, official, tables
    from lungdet.data.splitting import leaks
    from lungdet.data.splitting.splits import SplitError

    data.prepare_data()
    store, manifest, roots, refused = data.store, data.store.manifest, data.roots(), None
    links = leaks.links(store)
    try:
        data.setup()
    except SplitError as error:
        refused = str(error)
    split = data.split
    appearance = inspection.inspect(store, roots)
    numbers = fingerprint.describe(manifest, appearance, links, store.excluded, split)
    present = manifest if data.plan.limit is None and store.excluded.empty else data.read()
    present_in = dict(iter(present.groupby("dataset")))
    return {
        "title": f"What is in {data.name}",
        "store": _store(data),
        "split": None if split is None else split.describe(manifest),
        "refused": refused,
        "official": {
            name: official.verify(name, present_in[name], store.excluded, roots[name], getattr(data, "release", 2020))
            for name in sorted(official.COUNTS.keys() & roots & present_in.keys())
        },
        "copies": _copies(links, manifest),
        "left_out": store.excluded.to_dict("records"),
        "odd": {
            name: manifest["image_id"][appearance[name].fillna(False).to_numpy(bool)].tolist()
            for name in ("inverted", "wide_border", "almost_blank")
        },
        "patients_known": data.patients_known,
        "doubts": _doubts(data),
        "advice": advice.advise(numbers, data.plan.split),
        "numbers": numbers,
        "tables": tables.tables(numbers, data.settings.resize == "pad"),
        "sheet": contact.contact_sheet(store, appearance, links),
    }


def _store(data: "RadiographDataModule") -> dict:
    """Which prepared images were looked at."""
    return {
        "fingerprint": data.store.fingerprint,
        "folder": str(data.store.folder),
        "image_size": data.settings.size,
        "resize": data.settings.resize,
        "bits": data.store.bits,
        "limit": data.plan.limit,
    }


def _copies(links: "pd.DataFrame", manifest: "pd.DataFrame") -> list[dict]:
    """Pairs of images that are the same or nearly so, see `leaks.links`."""
    names, patients = manifest["image_id"], manifest["patient_id"]
    return [
        {
            "kind": link.kind,
            "correlation": link.correlation,
            "image_id_a": names[link.row_a],
            "image_id_b": names[link.row_b],
            "same_patient": bool(patients[link.row_a] == patients[link.row_b]),
        }
        for link in links.itertuples()
    ]


def _doubts(data: "RadiographDataModule") -> list[str]:
    """What makes every number doubtful: patients that are not known or cannot be one person, images turned dark."""
    from lungdet.data.patients import contradictions

    doubts = [*contradictions(data.store.manifest), *data.store.depth_doubts()]
    if not data.patients_known:
        doubts.insert(
            0,
            "Nothing says whose the images are (no column patient_id): wherever patients are counted here, each image "
            "counts as one, and a patient on both sides of the split can't be seen.",
        )
    return doubts
