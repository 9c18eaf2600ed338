"""Prepare a dataset's images without training on them.

    lungdet prepare data=shenzhen data.root=DIR

takes the same `data` keys as training, which finds the store then made.
"""

import sys
import time

import hydra
from omegaconf import DictConfig

from lungdet.configuration.program import CONF, run_program
from lungdet.errors import plain_errors

# No run folder, no log file: what this leaves behind is the store.
QUIET = (
    "hydra.mode=RUN", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout",
    '+hydra.callbacks.check.single="one dataset at a time; data=combined takes several"',
)  # fmt: skip


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(config: DictConfig) -> None:
    """Make the configured dataset's store, or find it, and print what is in it."""
    from lungdet.instantiation import instantiate

    began = time.perf_counter()
    with plain_errors():
        data = instantiate("data", config.data, config.trust)
        data.prepare_data()
    store, seconds = data.store, time.perf_counter() - began
    size = sum(file.stat().st_size for file in store.folder.iterdir())
    counts = store.manifest["dataset"].value_counts().sort_index()
    lines = {
        "store": store.folder,
        "images": f"{len(store.manifest):,} ({', '.join(f'{count:,} {name}' for name, count in counts.items())})",
        "square": f"{store.images.shape[1]} x {store.images.shape[2]}, {data.settings.resize}",
        "16-bit files": ", ".join(f"{name} read as {bits} bit" for name, bits in store.bits.items()) or "none",
        "on disk": f"{size / 1e6:,.1f} MB",
        "time": f"{seconds:.1f} s",
        "left out": f"{len(store.excluded):,}",
    }
    for name, value in lines.items():
        print(f"{name:13} {value}")
    for row in store.excluded.head(20).itertuples():
        print(f"{'':13} {row.path}: {row.reason}")
    if len(store.excluded) > 20:
        print(f"{'':13} .. all in {store.folder / 'excluded.csv'}")


def start() -> None:
    """Prepare as the command line says, with this program's own settings of Hydra before the user's."""
    sys.argv[1:1] = QUIET
    run_program(main, "train")
