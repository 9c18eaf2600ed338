"""Further metrics: precision-recall curves and confusion matrices, and every metric that is not the study's."""

from lungdet.evaluation.sections import confusion, curves
from lungdet.evaluation.sections.contract import Section, Study, thresholds_of
from lungdet.evaluation.sections.metrics_table import metrics_table
from lungdet.evaluation.statistics.measure import THRESHOLDED
from lungdet.evaluation.statistics.metrics import FURTHER
from lungdet.page import figures
from lungdet.page.document import Block, Columns, Details, Text


def show(summary: dict, study: Study) -> list[Block]:
    """Precision-recall curves and confusion matrices, every further metric folded beneath."""
    few = summary["task"] == "abnormal" and len(study.models) <= figures.MOST_LINES
    pictures = [[curves.picture(summary, study, "pr")], confusion.matrices(summary)] if few else []
    called = tuple(metric for metric in FURTHER if metric in THRESHOLDED)
    of_probabilities = tuple(metric for metric in FURTHER if metric not in THRESHOLDED)
    blocks: list[Block] = []
    for key, at in thresholds_of(summary).items():
        blocks += [Text(f"At {at}, shares in per cent:"), metrics_table(summary, key, called)]
        blocks.append(confusion.matrix(summary, key))
    blocks.append(Text("Of the probabilities; of Brier score, log loss and calibration error the smaller is better:"))
    blocks.append(metrics_table(summary, "test", of_probabilities))
    return [*([Columns([column for column in pictures if column])] if pictures else []), Details("The numbers", blocks)]


SECTION = Section("Further metrics", show=show, claim=(28, 37, 38))
