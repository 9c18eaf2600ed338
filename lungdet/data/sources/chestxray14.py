"""ChestX-ray14 (NIH Clinical Center): the data sheet, the image folders and the official lists."""

import logging
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.manifest import Sheet
from lungdet.data.regions import Regions, prepared
from lungdet.data.sources.chestxray14_tables import BOXES, LAYOUT, RELEASES, boxes, read_table
from lungdet.errors import DatasetError, first_few

log = logging.getLogger(__name__)

IMAGES = 112_120
"""Images of the whole dataset."""
PATIENTS = 30_805
"""Patients of the whole dataset."""
SIDE = 1024
"""Pixels of the square that boxes are drawn in."""

LISTS: dict[str, str] = {"train_val": "train_val_list.txt", "test": "test_list.txt"}


class ChestXray14DataModule(RadiographDataModule):
    """ChestX-ray14: 112,120 frontal radiographs of 30,805 patients with 14 text-mined findings.

    - **Source**: NIH Clinical Center, https://nihcc.app.box.com/v/ChestXray-NIHCC (about 45 GB in 12 archives).
    - **Terms**: use is unrestricted; link to that page, acknowledge the NIH Clinical Center and cite the paper.
    - **Cite**: X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers. ChestX-ray8: Hospital-scale Chest X-ray
      Database and Benchmarks on Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR
      2017.
    - **Images**: 1024 x 1024 PNG, 8 bit, scaled down and windowed by the publisher; grey, a few RGBA. 67,310 are
      PA, 44,810 AP. Some are inverted or have wide borders.
    - **Patients**: 13,302 have several images, up to 184, and those are 84 % of all images: split by patient or
      leak.
    - **Labels**: 14 findings mined from the radiologists' reports by text analysis, never read from the images one
      by one; the publisher expects them to be more than 90 % right, others found less. In the table of 2020, 51,759
      images have a finding and 60,361 have none. "No Finding" means that none of the 14 was found in the report,
      not that the lungs are normal, and an uncertain mention counts as none. Tuberculosis was not looked for (NaN).
    - **Official split**: by patient; 86,524 images of 28,008 patients for training and validation, 25,596 of 2,797
      for test. The two differ: 41.6 % abnormal against 61.5 %, so calling everything abnormal scores an accuracy of
      .615 on the official test.
    - **Boxes**: 984 of eight findings on 880 images (`chestxray14_tables.boxes`).

    **Two releases of the table.** `Data_Entry_2017_v2020.csv` revises `Data_Entry_2017.csv` in 181 label sets (51
    change between normal and abnormal), 27,498 ages and 24,106 follow-up numbers. 2020 is the default, because its
    follow-up number is an order in time and the other one is not: along it no patient grows younger in any of the
    81,315 steps from one image to the next, whereas along the number in the file's name 2,034 steps go back. The
    table of 2017 repeats the number in the file's name, and its ages go back in 4,717 steps (4,706 once its 16 ages
    above 120 years are taken as unknown).

    **Visit** is the follow-up number of the chosen release. In both releases it is the image's place, 0, 1, ..,
    among all images of the patient, so an image keeps its visit in a folder or a table that holds only part of
    them: a gap in the numbers is an image that is not at hand.

    Args:
        root: folder with the table and the images.
        release: 2020 or 2017.
        keys: everything that `RadiographDataModule` accepts.
    """

    name = "chestxray14"
    sheets = {"chestxray14": Sheet(IMAGES, labels_from="reports", abnormal="findings")}

    def __init__(self, root: str | Path, *, release: int = 2020, **keys) -> None:
        super().__init__(root, **keys)
        self.release = release

    def read(self) -> pd.DataFrame:
        """The manifest of the table's images whose files are in the folder; the folder may hold part of the dataset.

        Raises:
            DatasetError: no such folder, no table, no image, or one image in two folders.
        """
        table = read_table(self.root, self.release)
        files = _image_files(self.root)
        if not files:
            raise DatasetError(f"chestxray14: there is no image in {self.root.absolute()}. It should hold {LAYOUT}")
        stems = table["image_id"].str.removeprefix("chestxray14/")
        unknown = sorted(set(files) - set(stems))
        if unknown:
            log.info(
                "chestxray14: %d image files are not in %s and are left out: %s",
                len(unknown),
                RELEASES[self.release],
                first_few(files[stem] for stem in unknown),
            )
        present = table.assign(path=stems.map(files).astype("str")).dropna(subset="path").reset_index(drop=True)
        if present.empty:
            raise DatasetError(
                f"chestxray14: none of the {len(files)} images in {self.root.absolute()} is in "
                f"{RELEASES[self.release]}; the table names {first_few(stems, 2)}"
            )
        return present

    def official(self) -> pd.Series:
        """The publisher's split: "train_val" or "test" by image id.

        Raises:
            DatasetError: a list is missing, or a name is in both.
        """
        parts = {part: _listed(self.root / file) for part, file in LISTS.items()}
        shared = sorted(set(parts["train_val"]) & set(parts["test"]))
        if shared:
            lists = " and ".join(LISTS.values())
            raise DatasetError(
                f"{self.root.absolute()}: {len(shared)} images are in both {lists}, but belong in one: "
                f"{first_few(shared)}"
            )
        series = {f"chestxray14/{stem}": part for part, stems in parts.items() for stem in stems}
        return pd.Series(series, name="official", dtype="str").rename_axis("image_id")

    def regions(self, manifest: pd.DataFrame) -> dict[str, Regions]:
        """Where the boxes of the manifest's images lie once prepared; none where the publisher's file is not there.

        Copies of another size than 1024 x 1024 are taken to show all of the square original.
        """
        if not (self.root / BOXES).is_file():
            log.info("chestxray14: there is no %s in %s, so no place of disease is known", BOXES, self.root.absolute())
            return {}
        drawn = boxes(self.root)
        known: dict[str, dict[str, np.ndarray]] = {}
        for (name, finding), several in drawn[drawn["image_id"].isin(manifest["image_id"])].groupby(
            ["image_id", "finding"]
        ):
            mask = np.zeros((SIDE, SIDE), bool)
            for box in several.itertuples():
                mask[round(box.y) : round(box.y + box.height), round(box.x) : round(box.x + box.width)] = True
            known.setdefault(name, {})[finding] = prepared(mask, self.settings)
        return {name: Regions(findings) for name, findings in known.items()}


def called_alike(image_ids: pd.Series) -> pd.Series:
    """Whether images are called as this dataset's files are: eight digits of a patient and three of a visit.

    That holds of all of its images, and by chance of others. Copies under other names, the RSNA challenge's say, are
    not known by it.

    Args:
        image_ids: of any datasets.
    """
    return image_ids.str.rpartition("/")[2].str.fullmatch(r"\d{8}_\d{3}")


def _image_files(root: Path) -> dict[str, str]:
    """Every image file by its stem: the path relative to `root`, in any of the layouts."""
    folders = [root / "images", *sorted(root.glob("images_[0-9]*")), *sorted(root.glob("images_[0-9]*/images"))]
    files: dict[str, str] = {}
    for folder in filter(Path.is_dir, folders):
        for entry in os.scandir(folder):
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() not in (".png", ".jpg", ".jpeg") or not entry.is_file():
                continue
            path = f"{folder.relative_to(root).as_posix()}/{entry.name}"
            if stem in files:
                places = " and ".join(sorted([files[stem], path]))
                raise DatasetError(f"chestxray14: {stem} is twice in {root.absolute()}, as {places}; keep one")
            files[stem] = path
    return files


def _listed(path: Path) -> list[str]:
    """The image stems that a list names, one a line, whatever folder stands before a name."""
    if not path.is_file():
        raise DatasetError(
            f"data.split=official: there is no {path.name} in {path.parent.absolute()}; "
            "take it from the dataset's page or use data.split=random"
        )
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split()  # what is no text names none of its images
    return [PurePosixPath(line.replace("\\", "/")).stem for line in lines]
