"""PhantomDataModule: synthetic radiographs with known truth, read by the real datasets' own readers."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from lungdet.data.manifest import merge
from lungdet.data.phantoms.cohort import Knobs
from lungdet.data.phantoms.files import FOLDERS, SERIES, generate, name_of, truth
from lungdet.data.regions import Regions, prepared
from lungdet.data.sources.combined import CombinedDataModule
from lungdet.data.sources.table import TableDataModule
from lungdet.errors import InputError

PREFIX = "phantom-"
"""Opens the name of every phantom's dataset, image and patient, so that no report takes them for the real ones."""


class PhantomDataModule(CombinedDataModule):
    """Phantoms: drawn frontal chest radiographs in the layouts of ChestX-ray14, Montgomery and Shenzhen.

    - **Source**: drawn by `lungdet.data.phantoms.files.generate` from numbers alone; no patient's image went into them.
      Free of any terms beyond this project's licence.
    - **Good for**: trying the program; tests; asking whether a method finds an effect whose truth is known, and finds
      none where there is none.
    - **Not good for**: any statement about patients, about the real datasets, or about how hard a finding is to see.
      A model trained on them is of no use on radiographs. Never a clinical claim.
    - **Images**: thorax, lungs with vessels, ribs, spine, clavicles, heart, diaphragm, bowel gas; position, size and
      exposure vary from image to image more than a finding changes them, so that neither an image's brightness nor any
      one pixel tells the label (AUROC below .6; tested). ChestX-ray14: square, 8 bit, of every exposure, some with
      borders, some portable. Montgomery: 12 bit in 16-bit files, landscape or portrait, dark. Shenzhen: 8 bit,
      varying size, bright, flat.
    - **Findings**: nodule, mass, infiltration, effusion with meniscus, cardiomegaly, pneumothorax (ChestX-ray14);
      apical infiltrate with streaks and, if severe, a cavity, sometimes with an effusion (the other two).
    - **Patients**: 1 to `series` images each in ChestX-ray14, one in the others. Over visits the chest is the same, an
      illness appears, grows and clears. Every visit and every source has the same prevalence.
    - **Truth**: beside the images: `truth.csv` (what is drawn, how severe, what the label says), `masks/`.

    With `signal=order` the label shows in nothing but the order of visits. Patients come as twins with the same
    pictures of an effusion, the last picture the same too: before it the effusion grew in one (1) and cleared in the
    other (0). Only the last of at least 4 visits has a label. A model must see a series
    whole, since the last few of a series tell the order by what they show. Twins always stand in the same part of a
    split, so a model that looks at the last image alone has an AUROC of exactly .5.

    Args:
        root: where phantoms are kept; each set of knobs has a folder in it, made when first needed.
        patients: how many in each source; even with `signal=order`.
        series: images of a ChestX-ray14 patient (of any patient, with `signal=order`), at most.
        size: short side of a file in pixels (about that in Shenzhen).
        prevalence: share of abnormal images.
        difficulty: 0 glaring findings, 1 invisible ones.
        shortcut: how surely an artefact (a lead bead and a black strip) tells the label: 0 not at all, 1 always.
        signal: `findings`, `order`, or `none`: labels are given as ever, but nothing is drawn.
        label_noise: share of labels that say the opposite of what is drawn.
        masks: write a mask for each finding.
        phantom_seed: other patients; not the run's seed.
        keys: everything that `RadiographDataModule` accepts; `limit` not with `signal=order`. `held_out` and
            `train_on` may name a source as its real dataset is named.

    Raises:
        InputError: a knob out of its range, or a `limit` that would part twins.
    """

    name = "phantom"
    KEYS = (Knobs,)
    sheets = {
        PREFIX + name: replace(sheet, of=None, labels_from=None, synthetic=True)
        for name, sheet in CombinedDataModule.sheets.items()
    }

    def __init__(self, root: str | Path, *, phantom_seed: int = 0, **keys) -> None:
        names = {field.name for field in fields(Knobs)} - {"seed"}  # which is the run's own
        self.knobs = Knobs(seed=phantom_seed, **{name: keys.pop(name) for name in names & keys.keys()})
        if self.knobs.signal == "order" and keys.get("limit") is not None:
            raise InputError(
                f"data.limit={keys['limit']}: it could take one of two twins and leave the other, and then the last "
                "image alone tells something; set data.limit=null and fewer data.patients"
            )
        for key in ("held_out", "train_on"):
            keys[key] = _phantoms_name(keys.get(key), self.knobs.patients)
        self.home = Path(root).expanduser()
        super().__init__(self.home / name_of(self.knobs), sources=list(self.knobs.patients), folders=FOLDERS, **keys)

    def read(self) -> pd.DataFrame:
        """The manifest, its names opening with PREFIX; draws the phantoms if they are not there."""
        generate(self.home, self.knobs)
        if self.knobs.signal == "order":
            tables = ((reader.root, reader.root / SERIES) for reader in self.readers.values())
            manifest = merge(TableDataModule(root, table=table).read() for root, table in tables)
        else:
            manifest = super().read()
        # People of another seed, and twins, are other people: nobody may take them for the same.
        people = ("twin-" if self.knobs.signal == "order" else "") + (f"{self.knobs.seed}-" if self.knobs.seed else "")
        names = {
            column: PREFIX + manifest[column].str.replace("/", f"/{people}") for column in ("image_id", "patient_id")
        }
        return manifest.assign(dataset=PREFIX + manifest["dataset"], **names)

    def roots(self) -> dict[str, Path]:
        """Each source's own folder."""
        return {PREFIX + source: folder for source, folder in super().roots().items()}

    def regions(self, manifest: pd.DataFrame) -> dict[str, Regions]:
        """True masks of what is drawn and of the lungs, of images that show a finding."""
        source = manifest["dataset"].str.removeprefix(PREFIX)
        images = dict(zip(zip(source, manifest["path"], strict=True), manifest["image_id"], strict=True))
        known = {}
        for name, masks, lungs in truth(self.knobs, images):
            squares = {finding: prepared(mask, self.settings) for finding, mask in masks.items() if mask.any()}
            if squares:
                known[images[name]] = Regions(squares, prepared(lungs, self.settings))
        return known

    def kept_together(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """Twins are one patient: they have neighbouring numbers, the first one odd."""
        if self.knobs.signal != "order":
            return manifest
        number = manifest["patient_id"].str.extract(r"(\d+)$")[0].astype("int64")
        return manifest.assign(patient_id=manifest["dataset"] + "/" + ((number + 1) // 2).astype("str"))


def _phantoms_name(named: str | Sequence[str] | None, sources: Mapping[str, int]) -> str | list[str] | None:
    """`shenzhen` -> `phantom-shenzhen`, so that a command made for the real datasets can be tried on phantoms."""
    if named is None or isinstance(named, str):
        return f"{PREFIX}{named}" if named in sources else named
    return [_phantoms_name(name, sources) for name in named]
