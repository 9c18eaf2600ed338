"""Where the report of an evaluation goes."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lungdet.evaluation import request
from lungdet.evaluation.gathering.results import EvaluationError
from lungdet.findings import FINDINGS
from tests.calling import CHECKOUT


def test_reports_on_other_labels_and_other_systems_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    many = [name for name in FINDINGS if name != "hernia"]
    asked = [["labels=[effusion,mass]"], *([f"labels=[{','.join(many[:count])}]"] for count in (12, 13))]
    asked += [[f"predictions=[{','.join(f'system-of-clinic-{i}.csv' for i in range(count))}]"] for count in (5, 6)]
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        folders = [request.read(compose("evaluate", [f"runs={tmp_path}", *words])).out for words in asked]
    assert folders[0] == tmp_path / "report-effusion-mass"
    assert len({*folders}) == len(folders)
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        assert request.read(compose("evaluate", [f"runs={tmp_path}", "out=5"])).out == Path("5")
        with pytest.raises(EvaluationError, match=r"out=\['a', 'b'\]: one folder is needed"):
            request.read(compose("evaluate", [f"runs={tmp_path}", "out=[a,b]"]))
    assert max(len(folder.name) for folder in folders) <= len("report-") + request.LONGEST
