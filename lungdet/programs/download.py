"""Fetch a public dataset into the folder that data.root names.

    lungdet download montgomery|shenzhen|chestxray14 root=DIR [key=value]

One dataset at a time; run again, it goes on with what is missing. Addresses and other settings: conf/download.yaml and
conf/download/.
"""

import sys

import hydra
from omegaconf import DictConfig

from lungdet.configuration.program import CONF, one_at_a_time, run_program
from lungdet.errors import plain_errors


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="download")
def main(config: DictConfig) -> None:
    """Fetch the dataset, or say in one line what stands in the way."""
    with plain_errors():
        from lungdet.data.download.downloading import download

        download(config)


def start() -> None:
    """Download as the command line says: the dataset's name, which comes first, is the choice of Hydra's group."""
    if len(sys.argv) > 1 and sys.argv[1].isalnum():
        sys.argv[1] = f"download={sys.argv[1]}"
    elif len(sys.argv) < 2:
        sys.exit(__doc__)
    run_program(one_at_a_time(main), "download")
