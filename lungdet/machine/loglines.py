"""Log lines that a progress bar does not tear, printed through the console that draws the bar; and not all of them."""

import logging
import os
import warnings


class Lines(logging.StreamHandler):
    """One line a message on standard output, above any progress bar, never wrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        from rich import get_console

        get_console().print(self.format(record), markup=False, highlight=False, emoji=False, soft_wrap=True)


def quieten() -> None:
    """Keep Lightning's announcements and its own deprecations out of the log: what matters is in our lines."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)  # an experiment that it begins
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    warnings.filterwarnings("ignore", "Found .* module.* in eval mode")  # a frozen backbone
    warnings.filterwarnings("ignore", "It is recommended to use .*sync_dist")  # ours are of all ranks already
    warnings.filterwarnings("ignore", ".*all_gather is deprecated")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # a resumed run
    warnings.filterwarnings("ignore", "Be aware that when using .ckpt_path")  # an interrupted search
