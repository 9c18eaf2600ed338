"""Explainer: opens a run's network and the images that it was tested on, which give heat maps, one run at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from lungdet.instantiation import instantiate
from lungdet.runs.folder import Run
from lungdet.runs.identity import require_data

if TYPE_CHECKING:  # torch: seconds, for who asks for maps alone
    import torch
    from omegaconf import DictConfig

    from lungdet.data.datamodule import RadiographDataModule
    from lungdet.data.regions import Regions
    from lungdet.models.classifier import Classifier


class Opened(NamedTuple):
    """A run's network, the same with random weights, and images prepared as the run's own.

    Attributes:
        network: with the run's best weights.
        randomised: the same with random weights.
        data: with its store.
        device: where is computed.
    """

    network: "Classifier"
    randomised: "Classifier"
    data: "RadiographDataModule"
    device: "torch.device"

    def regions(self, images: Sequence[str]) -> dict[str, "Regions"]:
        """Where disease is known to be, by image id.

        Raises:
            DatasetError: it cannot be read.
        """
        manifest = self.data.store.manifest
        return self.data.regions(manifest[manifest["image_id"].isin(images)])

    def maps(self, images: Sequence[str], labels: Sequence[str], method: str, random: bool = False) -> np.ndarray:
        """Heat maps (N, H, W) of images, each about its label; see `lungdet.models.explaining.maps`.

        Args:
            images: (N,) image ids; one may stand there several times.
            labels: (N,).
            method: of the explainer's.
            random: of the network with random weights.
        """
        import torch

        from lungdet.models import explaining

        model, store = self.randomised if random else self.network, self.data.store
        indices = torch.tensor([model.labels.index(label) for label in labels])
        rows = pd.Index(store.manifest["image_id"]).get_indexer(pd.Index(images))
        heat, start = np.empty((len(images), *store.images.shape[1:]), np.float32), 0
        model.to(self.device)
        for batch in self.data.loader(rows, training=False):
            part = slice(start, start := start + len(batch["row"]))
            heat[part] = explaining.maps(model, batch, indices[part].to(self.device), method).cpu().numpy()
        model.cpu()
        return heat


class Explainer:
    """Heat maps of the images that runs were tested on.

    Args:
        methods: of `lungdet.models.explaining.METHODS`.
        trust: packages beyond lungdet whose classes a run may name.
        other: of a run the `data` group of other data that it was tested on; None: its own.
    """

    def __init__(
        self, methods: Sequence[str], trust: Sequence[str] = (), other: "Callable[[Run], DictConfig] | None" = None
    ) -> None:
        self.methods, self.trust, self.other = tuple(methods), trust, other

    @contextmanager
    def opened(self, run: Run) -> Iterator[Opened]:
        """The run's network and images, within the block: no two runs' networks are to be in memory at a time.

        Raises:
            RunError: the images are no longer those that the run was trained and tested on.
            InputError: the network or the images cannot be read, or a method is not for such a network.
        """
        from lungdet.models import explaining
        from lungdet.runs.network import network, predicting, randomised

        model = network(run, self.trust)
        for method in self.methods:
            explaining.require(model, method)
        config = run.config.data if self.other is None else self.other(run)
        data = instantiate("data", config, self.trust, visits=model.visits)
        data.prepare_data()
        if self.other is None:
            data.setup()
            require_data(run, data.identity, data.split.hash)
        with predicting(run, model) as trainer:
            data.trainer = trainer  # on whose device the batches are to lie
            yield Opened(model, randomised(run, self.trust), data, trainer.strategy.root_device)
