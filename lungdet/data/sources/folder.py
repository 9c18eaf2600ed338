"""A user's own radiographs as they lie: a folder for each class, without a table."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lungdet.configuration.nearest import hint
from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.dicom.pseudonyms import read_key
from lungdet.data.dicom.tags import names_patients, survey
from lungdet.data.files import files_below, searched
from lungdet.data.manifest import manifest, visits_in_order
from lungdet.data.sources.cells import Word
from lungdet.data.store.images import SUFFIXES, is_image, stem
from lungdet.errors import DatasetError, check_folder, first_few
from lungdet.findings import FINDINGS

log = logging.getLogger(__name__)

LAYOUT = "a folder of images for each class, normal/ and abnormal/"


class FolderDataModule(RadiographDataModule):
    """A user's own images in folders, `data=folder data.root=DIR`.

    Below `root` each class has a folder, `normal/` and `abnormal/`, or of any names, of which `data.abnormal=[tb,copd]`
    names those that are abnormal; all others are normal. Images may lie in folders within these, at any depth.

    Whose an image is, its place among the patient's visits, age, sex and view are read from the tags of DICOM files.
    **Of other files nothing says whose they are, so each counts as its own patient, and a patient on both sides of the
    split can't be seen**: where patients have several images, give a table with `patient_id` (`data=table`). What is
    not in a class's folder is ignored, and one line says how much that is. Hidden files are left out, too, and the
    pictures that `lungdet predict` has drawn (`<worklist>.overlays`), which a line names. Source, licence, how the
    labels were made and how to cite: yours to know.

    Args:
        root: the folder that holds the classes' folders.
        abnormal: names of the folders that hold abnormal images.
        dataset: the name of this source. An image is known by it and its place, so that folders of other people, whose
            files may be called alike, need another.
        pseudonymize: a file with the key of the pseudonyms that patients of DICOM files go by; None calls a patient
            after the first of their images.
        keys: everything that `RadiographDataModule` accepts.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        *,
        abnormal: Sequence[Word] = ("abnormal",),
        dataset: str = "folder",
        pseudonymize: str | Path | None = None,
        **keys,
    ) -> None:
        if not re.fullmatch(r"\w[\w .-]*", dataset):
            raise DatasetError(f"data.dataset={dataset}: a name of letters, digits, spaces and ._- is needed")
        self.abnormal, self.name, self.key = tuple(map(str, abnormal)), dataset, read_key(pseudonymize)
        super().__init__(root, **keys)

    def read(self) -> pd.DataFrame:
        """The manifest of the images in the classes' folders; `image_id` is `<dataset>/<class>/<path without suffix>`.

        Raises:
            DatasetError: no such folder, a class without a folder, a single class, two files of one name, or no image.
        """
        check_folder(self.root, "folder", LAYOUT)
        classes = self._classes()
        rows, ignored = [], 0
        for name in classes:
            for path in sorted(files_below(self.root / name)):
                if is_image(path):
                    place = path.relative_to(self.root).as_posix()
                    label = float(name in self.abnormal)
                    rows.append({"image_id": f"{self.name}/{stem(place)}", "path": place, "abnormal": label})
                else:
                    ignored += 1
        if not rows:
            raise DatasetError(
                f"{self.root.absolute()}: no image (DICOM, or {', '.join(SUFFIXES)}) in {first_few(classes)}"
            )
        table = pd.DataFrame(rows)
        if (repeated := table["image_id"].duplicated()).any():
            raise DatasetError(
                f"{self.root / table.loc[repeated, 'path'].iloc[0]}: another file has this name; rename one"
            )
        counts = table["path"].str.partition("/")[0].value_counts().sort_index()
        images = ", ".join(f"{count} in {name}" for name, count in counts.items())
        log.info("%s: %s%s", self.name, images, f"; {ignored} other files are ignored" if ignored else "")
        labels = pd.DataFrame(float("nan"), index=table.index, columns=list(FINDINGS))
        return manifest(self._described(table[["image_id", "path"]]), labels.assign(abnormal=table["abnormal"]))

    def _classes(self) -> list[str]:
        """The folders of the classes, of both kinds."""
        classes = searched(self.root, (path.name for path in self.root.iterdir() if path.is_dir()))
        if absent := [name for name in self.abnormal if name not in classes]:
            suggestion = hint(absent[0], classes) or "."
            raise DatasetError(
                f"data.abnormal: {self.root.absolute()} has no folder {absent[0]}{suggestion} Its folders are "
                f"{first_few(classes, 10) or 'none'}; 'data.abnormal=[NAME]' names those of abnormal images"
            )
        if not self.abnormal or len(classes) == len(set(self.abnormal)):
            raise DatasetError(
                f"{self.root.absolute()}: folders of both classes are needed, {LAYOUT}; of those that are there, "
                f"{first_few(classes)}, data.abnormal names {first_few(self.abnormal) or 'none'}"
            )
        return classes

    def _described(self, table: pd.DataFrame) -> pd.DataFrame:
        """Images with what DICOM tags say of them; without tags each is its own patient's."""
        description = table.assign(dataset=self.name, patient_id=table["image_id"], visit=0)
        tags = survey([self.root / path for path in table["path"]], description, self.key)
        self.patients_known = names_patients(tags)
        if tags is None:
            return description.assign(age=float("nan"), sex=None, view=None)
        description = description.assign(**tags[["patient_id", "age", "sex", "view"]])
        description["patient_id"] = description["patient_id"].fillna(description["image_id"])
        return description.assign(visit=visits_in_order(description.assign(time=tags["time"]), ["time"]))
