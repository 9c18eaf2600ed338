"""A finished run looks at new radiographs: a worklist, the most suspicious first. No device for diagnosis.

    lungdet predict run=RUN images=FOLDER out=worklist.csv

The exit status is 0 where every image was predicted, 3 where some could not be read, 1 after any other mistake.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from lungdet.configuration.program import CONF, run_program
from lungdet.errors import InputError, plain_errors

SOME_UNREADABLE = 3
"""The exit status where `<out>.excluded.csv` lists images."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="predict")
def main(config: DictConfig) -> None:
    """Predict the images that the configuration names."""
    with plain_errors():
        excluded = predict(config)
    if excluded:
        sys.exit(SOME_UNREADABLE)


def start() -> None:
    """Predict as the command line says."""
    run_program(main, "predict")


def predict(config: DictConfig) -> int:
    """Load the run, have it predict, and say how many images could not be read."""
    from lungdet.page.wording import METHODS

    for key, value in (("run", "RUN"), ("images", "PATH"), ("out", "FILE.csv")):
        if OmegaConf.is_missing(config, key) or config[key] in (None, "", []):
            raise InputError(f"{key}: give {key}={value}")
    request = OmegaConf.to_container(config)
    images, out = (Path(request[key]).expanduser() for key in ("images", "out"))
    method, label, methods = request["overlays"], request["label"], ", ".join(METHODS)
    if method is not None and method not in [*METHODS]:  # a list has no hash
        raise InputError(f"overlays={method}: one of {methods} is needed; the pictures go into {out}.overlays")
    if label is not None and method is None:
        raise InputError(f"label={label}: says what overlays are about; give one of overlays={methods}, too")

    from lungdet.inference import explaining, worklist  # torch and Lightning: seconds, which no mistake above waits for
    from lungdet.inference.loading import load
    from lungdet.inference.overlays import Overlays

    overlays = None if method is None else Overlays(method, label)
    model = load(request["run"], bits=request["bits"], threshold=request["threshold"], trust=request["trust"])
    if overlays is not None:
        explaining.require(model.networks, overlays.label, overlays.method)
    return worklist.write(model, images, out, request["batch_size"], request["num_workers"], overlays)
