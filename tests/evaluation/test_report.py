"""The report states the numbers that predictions hold, what is undefined and why, and no more than they allow."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from statistics import fmean, stdev

import numpy as np
import pytest

from lungdet.evaluation import report
from lungdet.evaluation.answer import answer
from lungdet.evaluation.gathering.models import group
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import comparability, data_and_split
from lungdet.evaluation.statistics import metrics, thresholds
from lungdet.page import drawing, figures
from lungdet.page.wording import percent
from tests.evaluation.summaries import rendered, summarised
from tests.fake_runs import evaluate, predictions, two_runs, without_source, write_run

DATASETS = {"chestxray14": 60, "montgomery": 20, "shenzhen": 30}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of each model, evaluated with figures: (summary, document, folder of the report)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "svg", drawing.svg)
        return evaluate(two_runs(tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def of_three_seeds(tmp_path_factory):
    return evaluate(two_runs(tmp_path_factory.mktemp("three"), seeds=(0, 1, 2)))


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """Both models on the study's three datasets."""
    return evaluate(two_runs(tmp_path_factory.mktemp("pooled"), DATASETS))


@pytest.fixture(scope="module")
def unruly(tmp_path_factory):
    """A run of an odd and long name beside a plain one and one that was cut."""
    folder = tmp_path_factory.mktemp("unruly")
    odd = {"model.sequence": "<b>|x", "trainer.a_rather_long_key": "value"}
    write_run(folder / "a", "cnn_lstm", 0, config=odd)
    write_run(folder / "b", "cnn_lstm", 0)
    write_run(folder / "broken", seed=5, finished=False)
    return evaluate(folder)


def test_numbers_are_means_and_sample_deviations_over_seeds(of_three_seeds):
    _, _, out = of_three_seeds
    written = json.loads((out / "metrics.json").read_text())
    results, _ = collect([out.parent])
    for name, replicates in group(results)[0].items():
        runs = [one.first for one in replicates]
        block = written["models"][name]
        for metric in metrics.METRICS:
            half = [metrics.METRICS[metric](r.test.target_abnormal, r.test.logit_abnormal) for r in runs]
            assert block["test"][metric] == pytest.approx(fmean(half))
            assert block["test_sd"][metric] == pytest.approx(stdev(half))
            chosen = [thresholds.choose(r.val.target_abnormal, r.val.logit_abnormal, "youden").logit for r in runs]
            at = [
                metrics.METRICS[metric](r.test.target_abnormal, r.test.logit_abnormal, t)
                for r, t in zip(runs, chosen, strict=True)
            ]
            assert block["at_validation_threshold"][metric] == pytest.approx(fmean(at))
        assert [run["seed"] for run in block["runs"]] == [0, 1, 2]
        assert block["fit_seconds"] == 101


def test_the_chosen_threshold_is_stored_in_the_run_and_no_test_image_had_a_say(tmp_path):
    write_run(tmp_path / "a" / "0_cnn", "cnn", 0)
    summarised(tmp_path / "a")
    stored = thresholds.load(tmp_path / "a" / "0_cnn")
    test = predictions({"chestxray14": 68}, seed=1, draw=999)
    write_run(tmp_path / "b" / "0_cnn", "cnn", 0, test=test)
    summarised(tmp_path / "b")
    assert thresholds.load(tmp_path / "b" / "0_cnn") == stored
    evaluate(tmp_path / "a", rule="sensitivity", at=0.9)
    assert thresholds.load(tmp_path / "a" / "0_cnn")["abnormal"].rule == "sensitivity"


def test_each_dataset_is_reported_apart_and_together(pooled):
    numbers, _, out = pooled
    assert {n: d["images"] for n, d in numbers["models"]["cnn"]["datasets"].items()} == DATASETS
    test = collect([out.parent])[0][0].test
    part = test[test.dataset == "montgomery"]
    expected = metrics.auroc(part.target_abnormal, part.logit_abnormal)
    assert numbers["models"]["cnn"]["datasets"]["montgomery"]["test"]["auroc"] == pytest.approx(expected)
    text = (out / "report.md").read_text()
    for name, images in DATASETS.items():
        assert f"\n{name}: {images} images, {images // 2} patients" in text
    assert "`abnormal` does not mean the same in chestxray14, montgomery and shenzhen" in text
    assert f"The source alone predicts the label with an AUROC of {numbers['data']['source_alone_auroc']:.3f}" in text


def test_the_source_alone_predicts_what_the_shares_of_abnormal_give_away():
    table = predictions({"a": 50, "b": 50})
    table["target_abnormal"] = (table.dataset == "b").astype(np.float32)
    assert data_and_split.source_alone(table) == 1
    assert data_and_split.source_alone(table.assign(dataset="one")) == 0.5


def test_trivial_answers_stand_beside_the_models(plain):
    numbers, _, out = plain
    share = numbers["data"]["test"]["abnormal"] / 68
    always = numbers["baselines"]["always_abnormal"]["test"]
    assert always["accuracy"] == pytest.approx(share)
    assert always["f1"] == pytest.approx(2 * share / (1 + share))
    normal = json.loads((out / "metrics.json").read_text())["baselines"]["always_normal"]
    assert normal["test"]["precision"] is None
    assert normal["undefined"]["test"]["precision"] == "no image is called abnormal"
    assert "Undefined: Precision of always normal: no image is called abnormal." in (out / "report.md").read_text()


def test_the_report_states_images_patients_split_resize_and_hardware(plain):
    numbers, _, out = plain
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        for fact in (
            "450 images, 223 patients",
            "of 112,120 images",
            "squash",
            "bf16-mixed",
            "1,234,567",
            "1 min 40 s",
        ):
            assert fact in text, (name, fact)
        assert numbers["split"]["hash"] in text
        assert all(part["hash"] in text for part in numbers["split"]["parts"].values())
        assert "mined from reports by text analysis" in text
    assert comparability.sentence(numbers) in (out / "report.md").read_text()


def test_one_seed_has_the_paired_difference_and_says_that_it_is_of_these_runs(plain):
    numbers, written, _ = plain
    accuracy = {name: 100 * block["test"]["accuracy"] for name, block in numbers["models"].items()}
    found = numbers["comparisons"][0]["metrics"]["accuracy"]
    low, high = (100 * end for end in found["interval"])
    gap = accuracy["cnn_lstm"] - accuracy["cnn"]
    assert written.answer.startswith(
        f"On 68 test images of 34 patients (1 seed) accuracy is {accuracy['cnn']:.1f} % for CNN and "
        f"{accuracy['cnn_lstm']:.1f} % for CNN-LSTM: CNN-LSTM is {abs(gap):.1f} points {'more' if gap > 0 else 'less'} "
        f"accurate than CNN, 95 % interval {low:.1f} to {high:.1f}: no difference is shown."
    )
    assert any("holds of these very runs" in caveat for caveat in report.caveats(numbers))


def test_three_seeds_count_their_spread(of_three_seeds):
    numbers, written, out = of_three_seeds
    assert "(3 seeds)" in written.answer
    assert numbers["comparisons"][0]["counts_seeds"]
    assert not any("holds of these very runs" in caveat for caveat in report.caveats(numbers))
    assert "count the choice of test patients and the spread over seeds" in (out / "report.md").read_text()


def test_few_patients_are_warned_of_and_so_is_what_they_cannot_show(plain, tmp_path):
    few = report.caveats(plain[0])
    assert any("Intervals from 34 patients are rough" in caveat for caveat in few)
    assert any("The test part is small: with 34 patients a difference between models" in caveat for caveat in few)
    many = report.caveats(summarised(two_runs(tmp_path, {"chestxray14": 400})))
    assert not any("are rough" in caveat for caveat in many)


def test_the_published_rows_stand_only_beside_runs_of_the_studys_task_and_sources(plain, pooled):
    numbers, _, out = pooled
    [caveat] = [caveat for caveat in report.caveats(numbers) if "published rows do not compare" in caveat]
    assert "[Data and split](#data-and-split)" in caveat
    assert 'href="#data-and-split"' in (out / "report.html").read_text()
    assert "](#" not in "".join(json.loads((out / "metrics.json").read_text())["caveats"])
    assert "| CNN-LSTM, published, other data | 94.1 | 92.5 | 91.9 | 92.2 |" in (out / "report.md").read_text()
    assert not plain[0]["published"]
    assert not any("published rows" in caveat for caveat in report.caveats(plain[0]))
    assert "94.1" not in (plain[2] / "report.md").read_text()


def test_a_model_that_loses_to_a_constant_answer_is_said_to(tmp_path):
    sentence = answer(summarised(two_runs(tmp_path, skill=-2.0)))
    assert "CNN and CNN-LSTM do not beat a trivial answer: always-normal" in sentence


def test_phantoms_are_called_synthetic_and_not_set_beside_the_published_numbers(tmp_path):
    numbers = summarised(write_run(tmp_path / "run", datasets={"phantom-chestxray14": 68}))
    assert "68 synthetic test images" in answer(numbers)
    assert not numbers["published"]
    assert report.caveats(numbers)[0].startswith("The images are synthetic phantoms")


def test_a_single_model_of_a_single_patient_has_no_interval(tmp_path):
    sentence = answer(summarised(write_run(tmp_path / "run", datasets={"chestxray14": 2})))
    assert " % (no interval); no other model is here to compare." in sentence


def test_one_class_in_the_test_part_leaves_metrics_undefined_and_does_not_stop(tmp_path):
    table = predictions({"chestxray14": 20}).assign(target_abnormal=np.float32(0))
    numbers = summarised(write_run(tmp_path / "run", test=table))
    block = numbers["models"]["cnn"]
    assert block["test"]["auroc"] is None
    assert block["undefined"]["test"]["auroc"] == "no image is abnormal"
    assert any("every labelled test image is normal" in caveat for caveat in report.caveats(numbers))


def test_one_class_in_validation_leaves_the_second_threshold_undefined(tmp_path):
    table = predictions({"chestxray14": 20}, seed=5).assign(target_abnormal=np.float32(1))
    block = summarised(write_run(tmp_path / "run", val=table))["models"]["cnn"]
    assert block["at_validation_threshold"]["accuracy"] is None
    assert block["test"]["accuracy"] is not None
    assert (
        block["undefined"]["at_validation_threshold"]["accuracy"]
        == "there is no threshold: no image is normal among the 20 labelled validation images"
    )


def test_images_without_a_label_count_in_no_metric_and_are_mentioned(tmp_path):
    table = predictions({"chestxray14": 68})
    table.loc[:9, "target_abnormal"] = np.nan
    abnormal = int(table.target_abnormal.sum())
    numbers = summarised(write_run(tmp_path / "run", test=table))
    assert numbers["data"]["test"] == {
        "images": 68,
        "patients": 34,
        "labelled": 58,
        "abnormal": abnormal,
    }
    assert any("10 test images without a label" in caveat for caveat in report.caveats(numbers))

    text = rendered(data_and_split.tell(numbers))
    [row] = [line for line in text.splitlines() if line.startswith("| test | all |")]
    assert f"| {abnormal} ({percent(abnormal / 58)}) |" in row


def test_skipped_runs_are_in_every_output(unruly):
    _, _, out = unruly
    for name in ("report.md", "report.html", "metrics.json"):
        assert "../broken" in (out / name).read_text(), name
    assert "1 run could not be evaluated" in (out / "report.md").read_text()


def test_other_data_is_an_external_test_unless_the_runs_learnt_from_its_source(tmp_path):
    test = predictions({"shenzhen": 30})
    _, written, out = evaluate(two_runs(tmp_path / "a", test=test), external="shenzhen")
    assert "external test" in written.title
    assert written.answer.startswith("On 30 images of 15 patients of other data, shenzhen (1 seed)")
    said = (out / "report.md").read_text()
    assert "Other data was scored by finished runs: shenzhen, 30 images, 15 patients" in said
    assert "`abnormal` does not mean the same in chestxray14 and shenzhen" in said
    assert "The source alone" not in said
    assert "Protocol: an external test on shenzhen." in said
    both = {"datasets": {"chestxray14": 60, "shenzhen": 30}, "test": test}
    restricted = write_run(tmp_path / "b", **both, config={"data.train_on": "shenzhen"})
    never_seen = write_run(tmp_path / "c", **both, split=without_source("shenzhen"))
    assert "external test" in evaluate(never_seen, external="shenzhen")[1].title  # at hand, and in neither part
    for runs, unsearched, heaviest in (
        (restricted, (), "No external test: shenzhen was learnt from too"),
        (never_seen, ({"run": "X", "resize": "pad"},), "Whether this is an external test is not known."),
    ):
        numbers, written, out = evaluate(runs, external="shenzhen", unsearched=unsearched)
        assert "external test" not in written.title
        assert report.caveats(numbers)[0].startswith(heaviest)
        assert "Protocol: other data, shenzhen, and not known to be an external test" in (out / "report.md").read_text()
    assert "could not be compared with those of X (prepared with data.resize=pad)." in report.caveats(numbers)[0]


class Page(HTMLParser):
    """Collects tags, addresses and ids, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.addresses, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.addresses += [attributes[k] for k in ("href", "src", "xlink:href") if k in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in ("meta", "link", "br", "img", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_no_other_file_and_follows_light_and_dark(plain):
    _, _, out = plain
    text = (out / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert {address.removeprefix("#") for address in page.addresses} <= {*page.ids, "claim.html"}
    assert (out / "claim.html").exists()
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"url\((?!#)|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == text.count('role="img" aria-labelledby') == text.count("<desc id=") == 7
    assert "currentColor" in text


def test_two_models_with_nothing_further_measured_are_read_in_1500_words(plain):
    page = re.sub(r"<(style|script|svg).*?</\1>", "", (plain[2] / "report.html").read_text(), flags=re.DOTALL)
    while (inner := re.sub(r"</summary>(?:(?!<details>).)*?</details>", "</summary>", page, flags=re.DOTALL)) != page:
        page = inner  # folded, the innermost first
    assert 500 < len(re.sub(r"<[^>]*>", " ", page).split()) <= 1500


def test_figures_beside_the_markdown_exist_and_are_well_formed(plain):
    _, _, out = plain
    links = re.findall(r"\]\((figures/[^)]+)\)", (out / "report.md").read_text())
    names = ("confusion", "differences", "pr", "referral", "reliability", "roc", "sensitivity")
    assert sorted(links) == [f"figures/{name}.svg" for name in names]
    for link in links:
        assert ElementTree.parse(out / link).getroot().tag.endswith("svg")


def test_names_from_configurations_cannot_break_the_page(unruly):
    _, _, out = unruly
    assert "<b>" not in (out / "report.html").read_text()
    assert "CNN-LSTM sequence=\\<b>\\|x trainer.a_rather_long_key=value |" in (out / "report.md").read_text()


def test_the_console_shows_the_whole_table_without_a_terminal(unruly, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    numbers, written, out = unruly
    report.show(written, [("python evaluate.py runs=x", "why")], out)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    [row] = [line for line in lines if " sequence=<b>|x" in line and " minus " not in line and "[" in line]
    assert "trainer.a_rather_long_key=value" in row
    assert f"{numbers['models'][next(iter(numbers['models']))]['test']['auroc']:.3f}" in row
    assert "…" not in printed
    assert "\x1b" not in printed
    assert lines[-4] == written.answer
    assert lines[-3:] == [f"report: {out / 'report.html'}", "why:", "  python evaluate.py runs=x"]


SCANTY = {
    "ten rows": lambda table: table.iloc[:10],
    "one patient": lambda table: table.iloc[:2].assign(patient_id="chestxray14/alone"),
    "normal images alone": lambda table: table[table.target_abnormal == 0],
    "no label": lambda table: table.assign(target_abnormal=np.nan),
    "one answer for all": lambda table: table.assign(probability_abnormal=0.5),
    "ages and views unknown": lambda table: table.assign(age=np.float32("nan"), view=None, sex=None, visit=np.nan),
}


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("seeds", [(0,), pytest.param((0, 1, 2), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("name", SCANTY)
def test_scanty_data_gets_a_report_that_says_why_and_claims_nothing(tmp_path, name, seeds):
    for model in ("cnn", "cnn_lstm"):
        for seed in seeds:
            table = predictions({"chestxray14": 68}, seed=1, draw=100 * len(model) + seed)
            write_run(tmp_path / f"{model}{seed}", model, seed, test=SCANTY[name](table).reset_index(drop=True))
    numbers, written, out = evaluate(tmp_path)
    assert "difference is shown" not in written.answer.replace("no difference is shown", "")
    for block in numbers["models"].values():
        for metric, ends in block["test_interval"].items():
            reasons = block["undefined"].get("test", {}) | block["undefined"].get("test_interval", {})
            assert ends is not None or reasons[metric]
    assert (out / "report.html").stat().st_size > 10_000


def test_where_nothing_says_whose_images_they_are_the_report_speaks_of_images(tmp_path):
    two_runs(tmp_path)
    for path in tmp_path.glob("*/environment.json"):
        facts = json.loads(path.read_text())
        facts["data"]["patients_known"] = False
        path.write_text(json.dumps(facts))
    numbers, written, out = evaluate(tmp_path)
    assert written.answer.startswith("On 68 test images (1 seed) ")
    assert report.caveats(numbers)[0].startswith("Nothing says which images are of one patient: each counts as a pati")
    text = (out / "report.md").read_text()
    assert ", by image, hash" in text
    assert "Protocol: images drawn at random" in text
    assert "redrawn test parts (images, since nothing says whose they are)" in text
    assert "223 patients" not in text
    assert "missing: whose an image is: parts share no image" in (out / "claim.md").read_text()


def test_other_data_without_patients_is_told_by_its_predictions(tmp_path):
    test = predictions({"clinic": 30}, seed=3)
    alone = test.assign(patient_id=test["image_id"])
    for name, table, known in (("a", test, True), ("b", alone, False)):
        numbers, written, _ = evaluate(write_run(tmp_path / name, test=table), external="table-clinic")
        assert numbers["data"]["patients_known"] is known
        assert ("of 15 patients of other data" in written.answer) is known


def test_names_and_settings_that_look_like_the_programs_own_words_pass_through_unharmed(tmp_path):
    sources = {"x, 0.5 of train": 40, "without y + z": 30}
    notes = ("rows, model.frozen=True", "none data.train_fraction=0.1, b")
    for model in ("cnn", "cnn_lstm"):
        for note in notes:
            for source in sources:
                test = predictions({source: sources[source]}, seed=7, draw=len(model + note))
                more = {"split": without_source(source), "config": {"model.note": note, "data.held_out": source}}
                write_run(tmp_path / f"{model} {note} {source}", model, 0, sources, test=test, **more)
    numbers, written, out = evaluate(tmp_path)
    assert numbers["parts"]["present"] == sorted(sources)
    assert not numbers["parts"]["missing"]
    assert {block["settings"]["role"] for block in numbers["models"].values()} == {"cnn", "cnn_lstm"}
    pairs = {(f"cnn model.note={note}", f"cnn_lstm model.note={note}") for note in notes}
    assert {(comparison["first"], comparison["second"]) for comparison in numbers["comparisons"]} == pairs
    assert "without y + z and x, 0.5 of train each held out in turn" in written.answer
    assert written.title == "Chest radiographs, normal or abnormal: evaluation of CNN and CNN-LSTM"
    text = (out / "report.md").read_text()
    for note in notes:
        for source in sources:
            assert f"| CNN-LSTM note={note} | {source} | {sources[source]} |" in text
        assert f"The mean of CNN note={note} and CNN-LSTM note={note}" in text
    assert "Trained on 50 %" not in text
