"""Several datasets merged: each by its own reader, from its own folder."""

from pathlib import Path

import pytest

from lungdet.data.sources.combined import SOURCES, CombinedDataModule
from lungdet.errors import DatasetError
from tests.data.sources.files import image

FOLDERS = {"chestxray14": "ChestX-ray14", "montgomery": "Montgomery", "shenzhen": "Shenzhen"}
TABLE = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position
00000001_000.png,Mass,0,1,58,M,PA
00000002_000.png,No Finding,0,2,81,M,AP
"""


@pytest.fixture
def root(tmp_path) -> Path:
    image(tmp_path / "ChestX-ray14/images/00000001_000.png")
    image(tmp_path / "ChestX-ray14/images/00000002_000.png")
    (tmp_path / "ChestX-ray14/Data_Entry_2017_v2020.csv").write_text(TABLE)
    (tmp_path / "ChestX-ray14/Data_Entry_2017.csv").write_text(TABLE.replace("Mass", "Nodule"))
    image(tmp_path / "Montgomery/MontgomerySet/CXR_png/MCUCXR_0001_0.png")
    image(tmp_path / "Shenzhen/CXR_png/CHNCXR_0001_0.png")
    image(tmp_path / "Shenzhen/CXR_png/CHNCXR_0327_1.png")
    return tmp_path


def test_the_sources_are_merged_in_their_order_and_their_files_are_found(root):
    data = CombinedDataModule(root, sources=SOURCES, folders=FOLDERS, batch_size=4)
    table = data.read()
    assert table["dataset"].tolist() == ["chestxray14"] * 2 + ["montgomery"] + ["shenzhen"] * 2
    assert table["abnormal"].tolist() == [1, 0, 0, 0, 1]
    assert table["mass"].isna().tolist() == [False, False, True, True, True]
    assert table["tuberculosis"].isna().tolist() == [True, True, False, False, False]
    roots = data.roots()
    assert all((roots[row.dataset] / row.path).is_file() for row in table.itertuples())


def test_some_sources_can_be_left_out_and_the_release_chosen(root):
    data = CombinedDataModule(root, sources=["shenzhen", "chestxray14"], folders=FOLDERS, release=2017)
    table = data.read()
    assert table["dataset"].tolist() == ["shenzhen"] * 2 + ["chestxray14"] * 2
    assert table["nodule"].sum() == 1
    assert set(data.roots()) == {"shenzhen", "chestxray14"}


def test_a_source_without_an_image_is_named_with_its_folder(root):
    image(root / "Montgomery2/CXR_png/other.png")
    data = CombinedDataModule(root, sources=["shenzhen", "montgomery"], folders=FOLDERS | {"montgomery": "Montgomery2"})
    with pytest.raises(DatasetError, match=r"source montgomery, looked for in .*Montgomery2: .*no image"):
        data.read()
    data = CombinedDataModule(root, sources=["montgomery"], folders={"montgomery": "absent"})
    with pytest.raises(
        DatasetError, match=r"source montgomery, looked for in .*absent(.|\n)*data.folders.montgomery=NAME"
    ):
        data.read()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "one or several of chestxray14, montgomery, shenzhen"),
        (["shenzhen", "shenzhen"], "each once"),
        (["padchest"], "unknown source 'padchest'"),
    ],
)
def test_sources_that_cannot_be_combined_are_refused(root, sources, message):
    with pytest.raises(DatasetError, match=message):
        CombinedDataModule(root, sources=sources, folders=FOLDERS)


def test_a_source_without_a_folder_name_is_refused(root):
    with pytest.raises(DatasetError, match=r"data.folders.shenzhen=NAME"):
        CombinedDataModule(root, sources=["shenzhen"], folders={})


def test_the_real_folders_merge(real_data):
    table = CombinedDataModule(real_data, sources=["chestxray14", "shenzhen"], folders=FOLDERS).read()
    assert table["dataset"].value_counts().to_dict() == {"chestxray14": 450, "shenzhen": 18}
    with pytest.raises(DatasetError, match="source montgomery"):
        CombinedDataModule(real_data, sources=SOURCES, folders=FOLDERS).read()
