"""Log lines that a progress bar does not tear: printed through the console that draws the bar."""

import logging


class Lines(logging.StreamHandler):
    """One line a message on standard output, above any progress bar, never wrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        from rich import get_console

        get_console().print(self.format(record), markup=False, highlight=False, emoji=False, soft_wrap=True)
