"""Fetch a public dataset into the folder that data.root names. What is fetched from where: conf/download/."""

import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from lungdet.configuration.program import CONF, run_program
from lungdet.errors import plain_errors


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="download")
def main(config: DictConfig) -> None:
    """Fetch the dataset, or say in one line what stands in the way."""
    with plain_errors():
        from lungdet.data.download.downloading import download

        download(config)


def start() -> None:
    """Download as the command line says: the dataset's name, which comes first, is the choice of Hydra's group."""
    if {*sys.argv[1:]} <= {"-h", "--help"}:
        print(OmegaConf.load(CONF / "download.yaml").hydra.help.header)
        return
    if sys.argv[1].isalnum():
        sys.argv[1] = f"download={sys.argv[1]}"
    run_program(main, "download")
