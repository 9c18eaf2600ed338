"""Which software a run's numbers come from: versions of packages, and the revision of the code.

Asked once a process: a multirun's later jobs compute with what its first one has loaded, whatever is changed meanwhile.
"""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("lungdet", "torch", "lightning", "torchmetrics", "albumentations", "timm", "numpy", "pandas", "pillow")
"""Those that bear on a run's numbers."""


@cache
def versions() -> dict[str, str]:
    """Python's version and the packages'."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


@cache
def revision() -> str | None:
    """The checkout's git revision, `+` if it was changed; None outside of git."""
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
