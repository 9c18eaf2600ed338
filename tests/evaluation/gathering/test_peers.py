"""Other people's predictions are read as they are called, laid beside the runs' own images, or refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lungdet.data.sources.chestxray14_tables import read_table
from lungdet.errors import InputError
from lungdet.evaluation.gathering import models, peers
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.results import Result, collect
from lungdet.evaluation.statistics.metrics import CERTAIN
from lungdet.findings import CHESTXRAY14_FINDINGS, FINDINGS
from lungdet.runs.folder import load_run
from tests.fake_runs import fold_of, predictions, write_run


class Predicted(Result):
    """A run that is asked for nothing but what it predicted."""

    labels = ("abnormal",)


def replicate(labels: tuple[str, ...] = ("abnormal",), datasets: dict[str, int] | None = None) -> Replicate:
    """What was tested of these images."""
    table = predictions(datasets or {"chestxray14": 30}, labels=labels)
    return run_of(table.sort_values("image_id", ignore_index=True), labels)


def run_of(table: pd.DataFrame, labels: tuple[str, ...] = ("abnormal",)) -> Replicate:
    """A run with these predictions."""
    result = Predicted(None, table, table)
    object.__setattr__(result, "labels", labels)
    return Replicate({"test": result})


def peer(path: Path, tested: Replicate) -> peers.Peer:
    """The file on these images."""
    [[judged]] = peers.group(peers.read({"other": path}), {models.Model("cnn"): [tested]}).values()
    return judged


def write(table: pd.DataFrame, path: Path) -> Path:
    """As csv or parquet, by the name."""
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return path


@pytest.fixture
def named(tmp_path: Path) -> tuple[Replicate, pd.DataFrame]:
    """Thirty tested images, and a file of them in another order, called as ChestX-ray14 does."""
    tested = replicate()
    table = tested.test.sample(frac=1, random_state=0)
    names = table["image_id"].str.removeprefix("chestxray14/") + ".png"
    return tested, pd.DataFrame({"Image Index": names, "probability": table["probability_abnormal"]})


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_runs_own_predictions_come_back_to_the_last_bit(tmp_path, suffix):
    run = load_run(write_run(tmp_path / "run", datasets={"chestxray14": 30}))
    [[own]] = models.group(collect([run.folder])[0])[0].values()
    judged = peer(write(run.predictions("test"), tmp_path / f"own{suffix}"), own)
    columns = ["image_id", "patient_id", "target_abnormal", "logit_abnormal"]
    pd.testing.assert_frame_equal(judged.test[columns], own.test[columns], check_exact=True)
    assert judged.facts == (30, 0, peers.AS_THE_RUNS, {"abnormal": "logit_abnormal"}, [], [], {})
    assert judged.seed is None


def test_what_a_finished_run_makes_of_new_radiographs_is_read_as_it_is(tmp_path, named):
    tested, _ = named
    scored = pd.DataFrame({"image": "files/" + tested.test["image_id"].str.partition("/")[2] + ".png"})
    scored["logit_abnormal"] = tested.test["logit_abnormal"]
    beside = {"rank": 1, "probability_abnormal": 0.5, "calibrated_abnormal": 0.5, "decision_abnormal": None}
    judged = peer(write(scored.assign(**beside), tmp_path / "worklist.csv"), tested)
    assert np.array_equal(judged.test["logit_abnormal"], tested.test["logit_abnormal"])
    assert judged.facts.by == "by the file's name alone"


def test_of_a_table_only_images_that_share_their_files_name_are_called_by_their_path(tmp_path):
    described = pd.DataFrame({"image_id": ["table/2", "table/a/1", "table/b/1"], "target_abnormal": [0.0, 0.0, 1.0]})
    tested = run_of(described.assign(logit_abnormal=0.0))
    theirs = pd.DataFrame({"image": ["b/1.png", "c/2.png", "a/1.png", "c/3.png"], "logit": [1.0, 2.0, 3.0, 4.0]})
    judged = peer(write(theirs, tmp_path / "other.csv"), tested)
    assert [*judged.test["logit_abnormal"]] == [2.0, 3.0, 1.0]
    assert judged.facts.by == peers.BY_EITHER


def test_images_are_told_by_their_path_and_those_that_were_not_tested_are_counted(tmp_path, named):
    tested, table = named
    more = pd.DataFrame({"Image Index": ["a.png", "a.png"], "probability": [0.5, None]})  # twice, and nobody asks
    judged = peer(write(pd.concat([table, more]), tmp_path / "other.csv"), tested)
    np.testing.assert_allclose(judged.test["logit_abnormal"], tested.test["logit_abnormal"], rtol=1e-12)
    assert (judged.facts.rows, judged.facts.others, judged.facts.by) == (32, 2, "by the path in their dataset")


def test_images_that_are_missing_doubled_or_not_told_apart_are_refused_with_their_number(tmp_path, named):
    tested, table = named
    with pytest.raises(InputError, match=r"lacks 2 of the 30 tested images: chestxray14/0_00.., chestxray14/0_00"):
        peer(write(table[2:], tmp_path / "missing.csv"), tested)
    with pytest.raises(InputError, match=r"names tested images again in 3 rows: 0_00..\.png, "):
        peer(write(pd.concat([table, table[:3]]), tmp_path / "doubled.csv"), tested)
    both = replicate(datasets={"a": 4, "b": 4})
    names = pd.DataFrame({"file": [f"0_000{i}.png" for i in range(4)], "probability": 0.5})
    with pytest.raises(InputError, match="8 tested images are not told apart by their file's name: a/0_0000, "):
        peer(write(names, tmp_path / "alike.csv"), both)
    own = both.test[["image_id", "logit_abnormal"]]  # no image is taken for another source's of the same name
    with pytest.raises(InputError, match="lacks 1 of the 8 tested images: a/0_0000"):
        peer(write(own[1:], tmp_path / "own.csv"), both)


def test_a_value_that_is_none_is_refused_by_file_line_image_column_and_value(tmp_path, named):
    tested, table = named
    image = table["Image Index"].iloc[4]
    cases = [
        ("probability", "0,93", "'0,93' is no number; decimals are written with a point"),
        ("probability", "likely", "'likely' is no number"),
        ("probability", None, "nothing stands there; a number is needed for every image"),
        ("probability", 93.0, "93.0; a probability from 0 to 1 is needed; are these per cent? divide them by 100"),
        ("probability", -0.2, "-0.2; a probability from 0 to 1 is needed"),
        ("logit", np.inf, "inf; finite log-odds are needed; give probabilities instead"),
        ("decision", 0.4, "0.4 (the first of 30 such values); a decision is 0 or 1"),
    ]
    for place, (column, value, message) in enumerate(cases):
        wrong = table.rename(columns={"probability": column}).astype({column: object})
        wrong.iloc[4, 1] = value
        if column == "decision":
            wrong["decision"] = value
        path = write(wrong, tmp_path / f"{place}.csv")
        with pytest.raises(InputError) as error:
            peer(path, tested)
        at = f"{path}, line 6 (image {image}), column {column}: "
        assert str(error.value).replace(
            f"line 2 (image {table['Image Index'].iloc[0]})", f"line 6 (image {image})"
        ) == (at + message)


def test_a_file_that_is_none_is_refused_by_what_it_lacks(tmp_path, named):
    tested, table = named
    with pytest.raises(InputError, match="there is no such file"):
        peers.read({"other": tmp_path / "nowhere.csv"})
    with pytest.raises(InputError, match=r"a \.csv or \.parquet file is needed"):
        peers.read({"other": write(table, tmp_path / "other.csv").rename(tmp_path / "other.xlsx")})
    cases = {
        "a|b\n1|2\n": r"no column names the images .*; write `sep=\|` above them",
        "score\n.5\n": "no column names the images",
        "image,probability\n": "no row in it",
        "image,probability\n,.5\n": "line 2, column image: no image is named",
        "sep=;\nimage;probability\n;.5\n": "line 3, column image: no image is named",
        "image,probability\na,0,5\n": "cannot be read: no table with a header, .*Expected 2 fields in line 2, saw 3",
        "": "cannot be read: no table with a header",
    }
    for text, message in cases.items():
        (tmp_path / "wrong.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            peers.read({"other": tmp_path / "wrong.csv"})
    (tmp_path / "wrong.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        peers.read({"other": tmp_path / "wrong.parquet"})
    with pytest.raises(
        InputError, match=r"no column says abnormal, .*logit_abnormal, probability_abnormal or abnormal"
    ):
        peer(write(table.rename(columns={"probability": "score"}), tmp_path / "no.csv"), tested)
    with pytest.raises(InputError, match="columns probability and probability_abnormal both say abnormal"):
        peer(write(table.assign(probability_abnormal=0.5), tmp_path / "two.csv"), tested)


def test_findings_are_spelt_as_others_spell_them_and_lack_only_what_these_images_lack(tmp_path):
    test = predictions({"chestxray14": 40}, labels=FINDINGS).assign(target_infiltration=np.arange(40) % 2)
    tested = run_of(test, FINDINGS)
    names = {f: f.capitalize() for f in CHESTXRAY14_FINDINGS}
    names |= {"pleural_thickening": "Pleural Thickening", "infiltration": "Infiltrate", "mass": "probability_mass"}
    table = test[[f"probability_{f}" for f in names]].set_axis([*names.values()], axis=1).assign(image=test["image_id"])
    judged = peer(write(table, tmp_path / "other.csv"), tested)
    for finding in CHESTXRAY14_FINDINGS:
        np.testing.assert_allclose(judged.test[f"logit_{finding}"], test[f"logit_{finding}"], rtol=1e-9)
    assert judged.facts.lacking == ["tuberculosis"]
    assert judged.facts.columns["pleural_thickening"] == "Pleural Thickening"
    fewer = write(table.drop(columns=["Effusion", "Hernia"]), tmp_path / "fewer.csv")  # no image has a hernia
    with pytest.raises(InputError, match=r"no column says effusion, .*in common: 'labels=\[infiltration,nodule\]'$"):
        peer(fewer, tested)
    common = peer(fewer, run_of(test, ("infiltration", "nodule")))
    assert common.facts.lacking == ["effusion", "hernia", "tuberculosis"]
    hernia = peer(write(table.drop(columns="Hernia"), tmp_path / "rare.csv"), tested)
    assert hernia.facts.lacking == ["hernia", "tuberculosis"]
    assert hernia.test["target_hernia"].isna().all()  # so that nothing is measured of what it never said


def test_decisions_and_probabilities_of_0_and_1_are_counted_and_have_finite_log_odds(tmp_path, named):
    tested, table = named
    called = write(table.assign(probability=(table["probability"] > 0.5).astype(int)), tmp_path / "reader.csv")
    judged = peer(called, tested)
    assert judged.facts.decisions == ["abnormal"]
    assert {*judged.test["logit_abnormal"].abs()} == {CERTAIN}
    table.iloc[[0, 7], 1] = 0, 1
    assert peer(write(table, tmp_path / "sure.csv"), tested).facts.certain == {"abnormal": 2}


def test_a_system_is_called_by_its_name_or_its_file_and_not_as_a_model_of_the_report(tmp_path, named):
    assert peers.named("a/b, c.csv") == {"b, c": Path("a/b, c.csv")}
    assert peers.named(["a.csv", "b.parquet"]) == {"a": Path("a.csv"), "b": Path("b.parquet")}
    proposed = OverridesParser.create().parse_override("predictions={resnet-50: /x/resnet-50/predictions/test.parquet}")
    assert peers.named(proposed.value()) == {"resnet-50": Path("/x/resnet-50/predictions/test.parquet")}
    assert peers.named({"Dr <b>House</b>": "a.csv"}) == {"Dr <b>House</b>": Path("a.csv")}
    for asked, message in [
        ("CNN.csv", "calls a model or answer of its own CNN"),
        ({"always abnormal": "a.csv"}, "of its own always abnormal"),
        (["x/a.csv", "y/a.csv"], "x/a.csv and y/a.csv are both called a"),
        (
            "/x/resnet-50/predictions/test.parquet",
            r"test; name it: 'predictions=\{resnet-50: /x/resnet-50/predictions/t",
        ),
        (
            ["a.csv", "/Predictions.csv"],
            r"call the system Predictions; name it: 'predictions=\{NAME: /Predictions.csv\}'",
        ),
        ("/mine/cnn/predictions/test.csv", r"name it: 'predictions=\{mine: /mine/cnn/predictions/test.csv\}'"),
        ("/b c/test.csv", r"name it: 'predictions=\{NAME: FILE.csv\}'"),
        ({"a\nb": "a.csv"}, "is no name of a system"),
        ({"a" * 61: "a.csv"}, "is no name of a system"),
        ({"a": 3}, "a: 3 is no file"),
        (5, "5: 5 is no file"),
    ]:
        with pytest.raises(InputError, match=message):
            peers.named(asked)
    tested, table = named
    files = peers.read({"resnet": write(table, tmp_path / "other.csv")})
    with pytest.raises(InputError, match="a model of the runs is called resnet, too"):
        peers.group(files, {models.Model("resnet"): [tested]})


def test_the_images_of_all_folds_are_asked_for(tmp_path):
    for fold in (0, 1):
        config = {"data.fold": fold, "data.split_seed": 0}
        write_run(tmp_path / f"{fold}", split_seed=fold, split=fold_of(fold, 2) | {"seed": 0}, config=config)
    [[pooled]] = models.group(collect([tmp_path])[0])[0].values()
    assert len(pooled.parts) == 2
    both = pd.concat(pooled.tables)
    judged = peer(write(both, tmp_path / "both.parquet"), pooled)
    assert np.array_equal(judged.test["logit_abnormal"], pooled.test["logit_abnormal"])
    with pytest.raises(InputError, match="lacks 68 of the 136 tested images"):
        peer(write(pooled.tables[0], tmp_path / "one.parquet"), pooled)


@pytest.mark.slow
def test_a_table_with_image_index_names_each_image_of_chestxray14(tmp_path, real_data):
    manifest = read_table(real_data / "ChestX-ray14")
    theirs = pd.read_csv(real_data / "ChestX-ray14" / "Data_Entry_2017_v2020.csv")[["Image Index"]]
    theirs["probability"] = np.linspace(0.01, 0.99, len(theirs)).round(4)
    described = manifest.assign(target_abnormal=manifest["abnormal"], logit_abnormal=0.0)
    judged = peer(write(theirs, tmp_path / "theirs.csv"), run_of(described))
    assert judged.facts[:3] == (len(theirs), len(theirs) - len(manifest), "by the path in their dataset")
