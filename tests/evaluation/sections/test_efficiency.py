"""The section on cost compares with the first model, and says what is unknown, not measured or misleading."""

import pytest

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.sections import efficiency
from lungdet.page.document import Document, Items, Section, Table, flat
from lungdet.page.html import html
from lungdet.page.markdown import markdown

CNN, LSTM, PATCHES = Model("cnn"), Model("cnn_lstm"), Model("cnn_lstm", {"model.sequence": "patches"})


def spread(median: float, wide: float = 0.1) -> dict[str, float]:
    return {"median": median, "low": median * (1 - wide / 2), "high": median * (1 + wide / 2)}


def cost(factor: float = 1.0, wide: float = 0.1) -> dict:
    """What a model costs that is `factor` times as large and slow."""
    return {
        "parameters": int(1000 * factor),
        "flops": int(2e9 * factor),
        "peak_memory_bytes": int(2**28 * factor),
        "training_images_per_second": spread(50 / factor, wide),
        "images_per_second": spread(200 / factor, wide),
        "latency_ms": spread(8 * factor, wide),
    }


def ratios(factor: float) -> dict:
    return dict.fromkeys(("parameters", "flops", "peak_memory_bytes"), factor) | {
        "training_images_per_second": spread(1 / factor),
        "images_per_second": spread(1 / factor),
        "latency_ms": spread(factor),
    }


@pytest.fixture
def found() -> dict:
    """What `costs.measure` returns of three models."""
    return {
        "device": "CPU",
        "cores": 2,
        "threads": 2,
        "torch": "2.15.0",
        "precision": "32-true",
        "memory_format": "channels_last",
        "image_size": 64,
        "batch_size": 4,
        "rounds": {"training_images_per_second": 3, "images_per_second": 9, "latency_ms": 9},
        "others_cores": 0.1,
        "quiet": True,
        "remarks": [],
        "against": CNN,
        "models": {
            CNN: cost(),
            LSTM: cost(1.5) | {"ratios": ratios(1.5)},
            PATCHES: cost(2.0) | {"ratios": ratios(2.0)},
        },
    }


def report(found: dict | None, names: list[str] | None = None) -> Document:
    """A report with the section alone."""
    block = {
        "parameters": 1000.0,
        "fit_seconds": 100.0,
        "epochs": 10.0,
        "best_epoch": 4.0,
        "images_per_second": 20.0,
        "peak_memory_bytes": 2**20,
        "precision": ["32-true"],
        "hardware": ["some GPU"],
    }
    names = names or list(found["models"])
    summary = {"models": dict.fromkeys(names, block), "efficiency": found}
    return Document("Report", "Answer.", [Section("Efficiency", efficiency.tell(summary))])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_section_compares_with_the_first_model(found: dict, count: int) -> None:
    names = list(found["models"])[:count]
    document = report(found | {"models": {name: found["models"][name] for name in names}})
    *against, table, recorded = [b for b in flat(document.sections[0].blocks) if isinstance(b, Items | Table)]
    assert len(table.columns) == len(recorded.columns) == 1 + count
    assert all(len(row) == 1 + count for row in table.rows + recorded.rows)
    rows = {title: cells for title, *cells in table.rows + recorded.rows}
    assert rows["Parameters"][0] == f"{found['models']['cnn']['parameters']:,}"
    assert rows["Time an epoch"] == ["10.0 s"] * count
    assert rows["Time to the best epoch"] == ["50.0 s"] * count
    assert rows["Epochs (best)"] == ["10 (5)"] * count  # counted from 1
    assert len(against) == (count > 1)
    if against:
        assert isinstance(against[0], Items)
        assert len(against[0].items) == count - 1
        said = (
            "CNN-LSTM against CNN: 1.50 times the parameters, 1.50 times the FLOPs, 0.67 (0.63–0.70) times the training"
        )
        assert against[0].items[0].startswith(said)
    assert "64 x 64 pixels" in html(document)


def test_the_section_says_why_nothing_was_measured_and_shows_what_the_runs_recorded() -> None:
    said, table, _ = report({"reason": "the configuration is gone"}, [CNN, LSTM]).sections[0].blocks
    assert said.text == "Speed, latency and memory side by side are not measured: the configuration is gone."
    unasked = report(None, [CNN, LSTM]).sections[0].blocks
    assert unasked[0] == table
    assert efficiency.SECTION.unmeasured({"efficiency": None})[0].remedy.endswith("efficiency=true`")
    assert [title for title, *_ in table.rows] == ["Parameters", "Training time", "Epochs (best)"]
    assert table.rows[0][1:] == ["1,000", "1,000"]


def test_of_many_models_each_is_a_row() -> None:
    models = [Model("cnn", {"model.dropout": number}) for number in range(5)]
    table, _ = report(None, models).sections[0].blocks
    assert table.columns == ["Model", "Parameters", "Training time", "Epochs (best)"]
    assert [row[:2] for row in table.rows] == [[f"CNN dropout={number}", "1,000"] for number in range(5)]


def test_the_section_shows_what_is_not_known_as_unknown(found: dict) -> None:
    block = dict.fromkeys(efficiency.COSTS) | {"hardware": ["None"], "precision": ["unknown"]}
    nothing = found | {"models": {CNN: found["models"][CNN] | {"peak_memory_bytes": None}}}
    blocks = flat(efficiency.tell({"models": {CNN: block}, "efficiency": nothing}))
    rows = {title: cells for table in blocks if isinstance(table, Table) for title, *cells in table.rows}
    assert rows["Peak memory, MiB"] == rows["Time an epoch"] == rows["Time to the best epoch"] == ["unknown"]


def test_the_section_says_why_a_model_was_not_measured(found: dict) -> None:
    found["models"][LSTM] = {"reason": "RuntimeError: no kernel for this"}
    text = markdown(report(found))
    assert "CNN-LSTM is not measured: RuntimeError: no kernel for this." in text
    assert "not measured |" in text


@pytest.mark.parametrize("quiet", [False, True])
def test_the_section_remarks_on_a_busy_machine(found: dict, quiet: bool) -> None:
    text = markdown(report(found | {"quiet": quiet, "others_cores": 1.52}))
    assert ("Meanwhile other programs kept 1.5 of 2 cores busy: these speeds" in text) is not quiet


def test_the_section_remarks_on_quartiles_far_apart(found: dict) -> None:
    assert "the machine was not quiet" not in markdown(report(found))
    found["models"][CNN] = cost(wide=0.5)
    assert "Quartiles lie up to 50 % apart: the machine was not quiet." in markdown(report(found))
