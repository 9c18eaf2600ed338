"""What the data sheets that runs recorded say of the datasets, a report says."""

import pytest

from lungdet.evaluation.sections.data_and_split import meanings
from tests.fake_runs import evaluate, sheet, two_runs


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["chestxray14"], {}),
        (["montgomery", "shenzhen"], {}),
        (["phantom-montgomery", "shenzhen"], {}),
        (["clinic"], {}),
        (["chestxray14", "shenzhen"], {"findings": ["chestxray14"], "tuberculosis": ["shenzhen"]}),
        (["clinic", "shenzhen"], {None: ["clinic"], "tuberculosis": ["shenzhen"]}),
        (["clinic", "ward"], {None: ["clinic", "ward"]}),
    ],
)
def test_sources_mean_the_same_only_where_their_sheets_say_so(sources, expected):
    tested, *learnt_from = sources
    data = {
        "test_datasets": {tested: {}},
        "learnt_from": learnt_from,
        "sheets": {name: sheet(name) for name in sources},
    }
    assert meanings(data) == expected


def test_images_are_synthetic_by_their_sheet_and_not_by_their_name(tmp_path):
    numbers, _, _ = evaluate(two_runs(tmp_path, {"phantom limbs": 68}), draws=100)
    assert not numbers["data"]["synthetic"]
