"""By dataset: where several are pooled, each model's metrics on each of them."""

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.sections.contract import Section, Study, thresholds_of
from lungdet.evaluation.sections.metrics_table import metrics_table
from lungdet.evaluation.statistics.measure import scored
from lungdet.page.document import Block, Details, Text
from lungdet.page.marked import marked
from lungdet.page.wording import counted, label


def measure(study: Study) -> dict:
    """Each model's metrics on each dataset of the test part."""
    names = sorted(study.first.test["dataset"].unique())

    def of_model(model: Model) -> dict:
        tables, *asked = study.tested(model)
        return {name: scored([table[table["dataset"] == name] for table in tables], *asked).block for name in names}

    return study.of_each("datasets", of_model)


def tell(summary: dict) -> list[Block]:
    """The AUROC on each dataset, and each one's table."""
    datasets, (key, at) = summary["data"]["test_datasets"], next(iter(thresholds_of(summary).items()))
    if len(datasets) < 2:
        return []
    models = {label(model): block["datasets"] for model, block in summary["models"].items()}
    tables = [
        block
        for name, counts in datasets.items()
        for block in (Text(f"{name}: {counted(counts, summary['data'])}."), metrics_table(_on(summary, name), key))
    ]
    picture = marked("datasets", "AUROC by dataset", models, "With 95 % intervals. Dotted: chance.")
    return [picture, Details(f"Each dataset's table, at {at}", tables)]


SECTION = Section("Dataset by dataset", measure=measure, tell=tell, claim=(30,))


def _on(summary: dict, dataset: str) -> dict:
    """The summary of one dataset's images, on which nothing is published."""
    blocks = {
        key: {name: block["datasets"][dataset] for name, block in summary[key].items()}
        for key in ("models", "baselines")
    }
    return summary | blocks | {"published": {}}
