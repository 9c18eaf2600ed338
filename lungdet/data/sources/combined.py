"""Several datasets as one, each read by its own reader."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.manifest import merge
from lungdet.data.regions import Regions
from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.sources.montgomery import MontgomeryDataModule
from lungdet.data.sources.shenzhen import ShenzhenDataModule
from lungdet.errors import DatasetError

SOURCES: dict[str, type[RadiographDataModule]] = {
    source.name: source for source in (ChestXray14DataModule, MontgomeryDataModule, ShenzhenDataModule)
}
"""The datasets that can be combined."""


class CombinedDataModule(RadiographDataModule):
    """ChestX-ray14, Montgomery and Shenzhen (or some of them) merged, as the study merges them.

    Sources, terms, labels and how to cite: the data sheets of `ChestXray14DataModule`, `MontgomeryDataModule` and
    `ShenzhenDataModule`. What merging them does:

    - `abnormal` means two things: any of 14 text-mined findings in ChestX-ray14, tuberculosis in the other two. "No
      Finding" of a report is not the "normal" of a tuberculosis reading.
    - The sources differ in scanner, bit depth, borders and share of abnormal images, so that a network can gain by
      telling the hospital rather than the disease. Read the results of each source apart.
    - ChestX-ray14, when whole, is 99 % of the images.
    - There is no official split of the whole.

    Args:
        root: folder that holds the datasets' folders.
        sources: which datasets, of `SOURCES`.
        folders: each one's folder within `root`.
        release: of ChestX-ray14's table, 2020 or 2017.
        keys: everything that `RadiographDataModule` accepts.

    Raises:
        DatasetError: a source that is not known or stands twice, or a source without a folder.
    """

    name = "combined"
    sheets = ChestXray14DataModule.sheets | MontgomeryDataModule.sheets | ShenzhenDataModule.sheets

    def __init__(
        self, root: str | Path, *, sources: Sequence[str], folders: Mapping[str, str], release: int = 2020, **keys
    ) -> None:
        super().__init__(root, **keys)
        known = ", ".join(SOURCES)
        if not sources or len(set(sources)) < len(sources):
            raise DatasetError(f"data.sources={list(sources)}: one or several of {known} are needed, each once")
        for source in sources:
            if source not in SOURCES:
                raise DatasetError(f"data.sources: unknown source {source!r}; known are {known}")
            if source not in folders:
                raise DatasetError(f"data.folders: no folder for source {source}; set data.folders.{source}=NAME")
        self.release, own = release, {"chestxray14": {"release": release}}
        self.readers = {
            source: SOURCES[source](self.root / folders[source], **own.get(source, {}), **keys) for source in sources
        }

    def read(self) -> pd.DataFrame:
        """The manifests of the sources, one below the other in their order.

        Raises:
            DatasetError: a source can't be read or has no image; the message names it and the folder that was looked
                in.
        """
        manifests = []
        for source, reader in self.readers.items():
            try:
                manifests.append(reader.read())
            except DatasetError as error:
                others = ",".join(name for name in self.readers if name != source)
                raise DatasetError(
                    f"source {source}, looked for in {reader.root.absolute()}: {error}\n"
                    f"Set data.folders.{source}=NAME if its folder has another name, "
                    f"or leave it out: 'data.sources=[{others}]'"
                ) from error
        return merge(manifests)

    def roots(self) -> dict[str, Path]:
        """Each source's own folder."""
        return {source: reader.root for source, reader in self.readers.items()}

    def regions(self, manifest: pd.DataFrame) -> dict[str, Regions]:
        """Those that the sources know: ChestX-ray14's boxes."""
        return {name: known for reader in self.readers.values() for name, known in reader.regions(manifest).items()}
