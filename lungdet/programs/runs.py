"""What the runs in a folder have come to, while they run or afterwards.

lungdet runs FOLDER        a run, a multirun's folder, or any above them; by default outputs
"""

import sys
from pathlib import Path

from lungdet.errors import InputError, plain_errors


def start() -> None:
    """List as the command line says."""
    words = sys.argv[1:]
    if {"-h", "--help"} & {*words}:
        print(__doc__.rstrip())
        return
    with plain_errors():
        if len(words) > 1 or any(word.startswith("-") for word in words):
            raise InputError(f"{' '.join(words)}: one folder is needed, and nothing else")
        from lungdet.runs.listing import show

        show(Path(words[0] if words else "outputs"))
