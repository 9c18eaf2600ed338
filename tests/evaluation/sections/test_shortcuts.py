"""What is reached without reading the lungs stands beside the models, and on the first screen where it comes near."""

import pytest

from lungdet.evaluation import report
from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.results import EvaluationError, collect
from lungdet.evaluation.sections import comparability, shortcuts
from lungdet.evaluation.statistics import metrics
from tests.evaluation.summaries import rendered, summarised
from tests.fake_runs import evaluate, fold_of, predictions, two_runs, write_run


def test_each_shortcut_is_measured_on_the_test_images_and_listed_beside_the_models(tmp_path):
    numbers, _, out = evaluate(two_runs(tmp_path, guesses={"age": 0.6, "thumbnail": 0.9}))
    table = collect([tmp_path])[0][0].shortcuts
    for name in ("age", "thumbnail"):
        rows = table[table.shortcut == name]
        found = numbers["models"]["cnn"]["shortcuts"][name]["test"]
        assert found["auroc"] == pytest.approx(metrics.auroc(rows.target_abnormal, rows.logit_abnormal))
        assert found["accuracy"] == pytest.approx({"age": 0.6, "thumbnail": 0.9}[name], abs=0.02)
    text = (out / "report.md").read_text()
    assert "## What the label can be guessed from without reading the lungs" in text
    row = f"| 8 x 8 thumbnail | {numbers['models']['cnn']['shortcuts']['thumbnail']['test']['auroc']:.3f} |"
    assert text.count(row) == 1  # the same for both models, so once
    assert f"| CNN, which reads the image | {numbers['models']['cnn']['test']['auroc']:.3f} |" in text


def summary_with(areas: dict[str, float], models: dict[str, float]) -> dict:
    blocks = {name: {"test": {"auroc": area}} for name, area in areas.items()}
    return {"models": {name: {"test": {"auroc": area}, "shortcuts": blocks} for name, area in models.items()}}


@pytest.mark.parametrize(
    ("area", "model", "warns"),
    [(0.61, 0.9, True), (0.59, 0.9, False), (0.55, 0.59, True), (0.55, 0.61, False), (0.49, 0.5, False)],
)
def test_a_shortcut_is_a_caveat_when_it_is_strong_or_near_a_model(area, model, warns):
    caveats = shortcuts.caveats(summary_with({"age": area}, {Model("cnn"): model}))
    assert bool(caveats) == warns
    for said in caveats:
        assert f"age {area:.3f}" in said
        assert ("CNN may have learnt no more" in said) == (area >= model - 0.05)


def test_of_many_models_the_caveat_counts_those_that_a_shortcut_comes_near():
    models = {Model("cnn", {"model.dropout": number}): area for number, area in enumerate((0.7, 0.7, 0.7, 0.7, 0.9))}
    assert shortcuts.caveats(summary_with({"age": 0.7}, models))[0].endswith(
        "5 models 0.700 to 0.900. 4 of 5 models may have learnt no more than such a shortcut."
    )


def test_the_caveat_is_on_the_first_screen(tmp_path):
    numbers, _, out = evaluate(write_run(tmp_path / "run", guesses={"view": 0.99}))
    assert any("guessed without reading the lungs (AUROC): view (PA, AP) 1.000" in c for c in report.caveats(numbers))
    text = (out / "report.md").read_text()
    assert text.index("guessed without reading the lungs (AUROC)") < text.index("## Cost")


def test_runs_without_shortcuts_say_so(tmp_path):
    numbers = summarised(write_run(tmp_path / "run"))
    assert numbers["models"]["cnn"]["shortcuts"] is None
    assert shortcuts.tell(numbers) == []
    assert shortcuts.unmeasured(numbers)[0].remedy == "the runs recorded none"


def test_models_fitted_on_different_images_show_their_own_shortcuts(tmp_path):
    test = predictions({"chestxray14": 68}, seed=1)
    write_run(tmp_path / "a", test=test, guesses={"age": 0.6})
    write_run(tmp_path / "b", "cnn_lstm", test=test, guesses={"age": 0.8})
    text = rendered(shortcuts.tell(summarised(tmp_path)))
    assert "| age, for CNN |" in text
    assert "| age, for CNN-LSTM |" in text


def test_the_mean_over_findings_holds_for_shortcuts_too(tmp_path):
    run = write_run(tmp_path / "run", task="findings", guesses={"age": 0.75})
    numbers = summarised(run, draws=100)
    table = collect([run])[0][0].shortcuts
    areas = [metrics.auroc(table[f"target_{f}"], table[f"logit_{f}"]) for f in ("effusion", "nodule")]
    assert numbers["models"]["cnn"]["shortcuts"]["age"]["test"]["auroc"] == pytest.approx(sum(areas) / 2)


def test_shortcuts_of_other_images_are_refused(tmp_path):
    run = write_run(tmp_path / "run", guesses={"age": 0.6})
    other = write_run(tmp_path / "other", split_seed=3, guesses={"age": 0.6})
    part = "predictions/shortcuts_test.parquet"
    (run / part).write_bytes((other / part).read_bytes())
    with pytest.raises(EvaluationError, match="shortcut age are not those of"):
        collect([run])


def test_folds_pool_the_shortcuts_that_every_fold_has(tmp_path):
    for fold, more in ((0, {"view": 0.7}), (1, {})):
        test = predictions({"chestxray14": 30}, seed=50 + fold)
        config, known = {"data.fold": fold}, {"age": 0.6} | more
        write_run(tmp_path / str(fold), test=test, split=fold_of(fold, 2), config=config, guesses=known)
    numbers = summarised(tmp_path, draws=100)
    assert list(numbers["models"]["cnn"]["shortcuts"]) == ["age"]
    assert numbers["models"]["cnn"]["shortcuts"]["age"]["test"]["accuracy"] == pytest.approx(0.6)


OFFICIAL = {"protocol": "official"}


def protocol(folder, split=None, datasets=None, whole=True, **more) -> str:
    numbers = summarised(write_run(folder, datasets=datasets, split=split, **more), draws=50)
    if whole:
        numbers["data"]["test"]["images"] = comparability.OFFICIAL_TEST
        for source in numbers["data"]["sources"].values():
            source["of"] = source["images"]
    return comparability.sentence(numbers)


def test_the_report_says_which_published_results_share_the_protocol(tmp_path):
    said = protocol(tmp_path / "random", config={"data.fractions": [0.7, 0.15, 0.15]})
    assert "does not say whether it drew patients or images" in said
    assert "The study has the same ratio" in said
    said = protocol(tmp_path / "other", config={"data.fractions": [0.6, 0.2, 0.2]})
    assert "The study's ratio is another" in said
    said = protocol(tmp_path / "official", OFFICIAL, task="findings")
    assert "compare with papers that state that they test on that list" in said
    assert "CheXNet (Rajpurkar et al. 2017) does not compare" in said
    assert "normal against abnormal compares only" in protocol(tmp_path / "binary", OFFICIAL)
    assert "10 % of the training patients" in protocol(tmp_path / "less", {"train_fraction": 0.1})
    assert "results on the same table" in protocol(tmp_path / "file", {"protocol": "file", "file": "mine.csv"})


def test_a_part_of_a_dataset_compares_with_no_published_result(tmp_path):
    assert "Only 68 of the list's 25,596 images are at hand" in protocol(tmp_path / "a", OFFICIAL, whole=False)
    assert "Only 68 of 112,120 images of chestxray14 are at hand" in protocol(tmp_path / "c", whole=False)
    assert "at hand" not in protocol(tmp_path / "b", OFFICIAL)


def test_phantoms_and_images_of_ones_own_have_no_published_result(tmp_path):
    assert "synthetic phantoms. No published result" in protocol(tmp_path / "a", datasets={"phantom-shenzhen": 30})
    assert "no published result is known" in protocol(tmp_path / "b", datasets={"clinic": 30})
