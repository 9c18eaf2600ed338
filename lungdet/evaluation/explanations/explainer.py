"""Explainer: the networks of runs and the images that they were tested on, which give heat maps when asked."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from lungdet.instantiation import instantiate
from lungdet.runs.folder import Run
from lungdet.runs.identity import require_data

if TYPE_CHECKING:  # torch: seconds, for who asks for maps alone
    import torch

    from lungdet.data.datamodule import RadiographDataModule
    from lungdet.data.regions import Regions
    from lungdet.models.classifier import Classifier


class Explainer:
    """Heat maps of runs' own test images.

    Args:
        methods: of `lungdet.models.explaining.METHODS`.
        trust: packages beyond lungdet whose classes a run may name.
    """

    def __init__(self, methods: Sequence[str], trust: Sequence[str] = ()) -> None:
        self.methods, self.trust = tuple(methods), trust
        self._opened = cache(self._open)

    def regions(self, run: Run, images: Sequence[str]) -> dict[str, "Regions"]:
        """Where disease is known to be, by image id.

        Raises:
            RunError: the images are no longer those that the run was trained and tested on.
            DatasetError: they cannot be read.
        """
        data = self._opened(run).data
        return data.regions(data.manifest[data.manifest["image_id"].isin(images)])

    def pixels(self, run: Run, images: Sequence[str]) -> np.ndarray:
        """The images as the run's network sees them, (N, H, W) uint8."""
        data = self._opened(run).data
        return np.asarray(data.store.images[self._rows(data, images)])

    def maps(
        self, run: Run, images: Sequence[str], labels: Sequence[str], method: str, random: bool = False
    ) -> np.ndarray:
        """Heat maps (N, H, W) of images, each about its label; see `lungdet.models.explaining.maps`.

        Args:
            run: one of which `regions` was asked, or can be.
            images: (N,) image ids; one may stand there several times.
            labels: (N,).
            method: of `methods`.
            random: of the same network with random weights.
        """
        import torch

        from lungdet.models import explaining

        opened = self._opened(run)
        model = opened.randomised if random else opened.network
        indices = torch.tensor([model.labels.index(label) for label in labels])
        heat, start = np.empty((len(images), *opened.data.store.images.shape[1:]), np.float32), 0
        model.to(opened.device)
        for batch in opened.data.loader(self._rows(opened.data, images), training=False):
            part = slice(start, start := start + len(batch["row"]))
            heat[part] = explaining.maps(model, batch, indices[part].to(opened.device), method).cpu().numpy()
        model.cpu()
        return heat

    def _rows(self, data: "RadiographDataModule", images: Sequence[str]) -> np.ndarray:
        return pd.Index(data.manifest["image_id"]).get_indexer(pd.Index(images))

    def _open(self, run: Run) -> "_Opened":
        from lungdet.models import explaining
        from lungdet.runs.network import network, predicting, randomised

        model = network(run, self.trust)
        for method in self.methods:
            explaining.require(model, method)
        data = instantiate("data", run.config.data, self.trust, visits=model.visits)
        data.prepare_data()
        data.setup()
        require_data(run, data.identity, data.split.hash)
        with predicting(run, model) as trainer:
            data.trainer = trainer  # on whose device the batches are to lie
            return _Opened(model, randomised(run, self.trust), data, trainer.strategy.root_device)


class _Opened(NamedTuple):
    network: "Classifier"
    randomised: "Classifier"
    data: "RadiographDataModule"
    device: "torch.device"
