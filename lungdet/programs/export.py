"""A finished run leaves as one file: ONNX, TorchScript or torch.export, checked on its own test images.

    lungdet export run=RUN format=onnx out=model.onnx

No device for diagnosis.
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from lungdet.configuration.program import CONF, run_program
from lungdet.errors import InputError, plain_errors

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
def main(config: DictConfig) -> None:
    """Export the run that the configuration names."""
    with plain_errors():
        export(config)


def start() -> None:
    """Export as the command line says."""
    run_program(main, "export")


def export(config: DictConfig) -> None:
    """Load the run, write its file, and say how far that is from the run."""
    if OmegaConf.is_missing(config, "run") or config.run in (None, "", []):
        raise InputError("run: give run=RUN")

    from lungdet.inference import export  # torch and Lightning: seconds
    from lungdet.inference.formats import FORMATS
    from lungdet.inference.loading import load

    request = OmegaConf.to_container(config)
    model = load(request["run"], trust=request["trust"])
    out = request["out"]
    if out is None:
        if len(model.runs) > 1:
            raise InputError("out: of several runs give out=FILE, which is in none of their folders")
        suffix = FORMATS[request["format"]].suffix if request["format"] in FORMATS else ""
        out = model.runs[0].folder / f"model{suffix}"
    out = Path(out).expanduser()
    facts = export.export(model, out, request["format"], request["precision"])
    for line in export.sentences(facts, out):
        log.info(line)
