"""What sections measure of run folders, without a report: the summary alone, and a section as it is read."""

import pytest

from lungdet.evaluation import sections, summary
from lungdet.evaluation.gathering.models import group
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import calibrated, referral, sensitivity, subgroups
from lungdet.page import document
from lungdet.page.html import html
from lungdet.page.markdown import markdown


def replicates(folder):
    return group(collect([folder])[0])[0]


APART = (calibrated.SECTION, referral.SECTION, sensitivity.SECTION, subgroups.SECTION)
"""Take most of the time that a summary takes, and nothing else is made of them."""


def studied(folder, draws=200):
    """What sections measure of a folder of runs."""
    results, skipped = collect([folder])
    models, left_out = group(results)
    return summary.study_of(models, skipped + left_out, None, None, folder / "report", draws)


def summarised(folder, draws=200):
    """The summary of a folder of runs, without the sections that stand apart."""
    study = studied(folder, draws)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "SECTIONS", [section for section in sections.SECTIONS if section not in APART])
        return summary.summarise(study)


def rendered(blocks):
    """Markdown and HTML of a section, to be searched."""
    written = document.Document("title", "answer", [document.Section("section", blocks)])
    assert "<h2" in html(written)
    return markdown(written)
