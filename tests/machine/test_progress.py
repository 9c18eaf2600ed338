"""Long work says how far it is, where there is no terminal to draw a bar in."""

import logging

import pytest

from lungdet.machine import progress


def test_progress_is_a_line_a_minute_in_a_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with caplog.at_level(logging.INFO), progress.progress("preparing images", 1200, done=1000) as advance:
        for _ in range(130):
            now += 1
            advance()
    assert caplog.messages == ["preparing images: 1,060 of 1,200", "preparing images: 1,120 of 1,200"]
