"""Reports are written without figures, whose drawing takes more than half of the time of all else."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from lungdet.page import drawing, figures


def blank(figure: Figure, name: str) -> str:
    """Stands for the figure's SVG element."""
    plt.close(figure)
    return "<svg></svg>"


@pytest.fixture(scope="module", autouse=True)
def _blank_figures() -> Iterator[None]:
    """All that a test sees of a figure is its place and its words, unless it asks for `drawn`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "svg", blank)
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, for a test that looks at them."""
    monkeypatch.setattr(figures, "svg", drawing.svg)
