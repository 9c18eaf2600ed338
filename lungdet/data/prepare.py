"""Prepare a dataset's images without training on them.

    python -m lungdet.data.prepare data=shenzhen data.root=DIR

takes the same `data` keys as train.py, which finds the store then made.
"""

import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from lungdet.errors import plain_errors, run_program

CONF = Path(__file__).parents[2] / "conf"

# No run folder, no log file: what this leaves behind is the store.
QUIET = ("hydra.mode=RUN", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(config: DictConfig) -> None:
    """Make the configured dataset's store, or find it, and print what is in it."""
    from lungdet.instantiation import instantiate

    began = time.perf_counter()
    with plain_errors("lungdet.data.prepare"):
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


def command() -> None:
    """Run `main` with this program's own Hydra settings before the user's."""
    if not (CONF / "train.yaml").is_file():
        sys.exit(f"{CONF} is missing: this program reads the checkout's conf/; run it there, after pip install -e .")
    if {"-m", "--multirun"} & set(sys.argv):
        sys.exit("one dataset at a time is prepared; data=combined takes several at once")
    sys.argv[1:1] = QUIET
    run_program("lungdet.data.prepare", main)


if __name__ == "__main__":
    command()
