"""Finished runs as one graph that can leave Python: grey images in, log-odds and calibrated probabilities out.

Legend: N cases, S images (S = N without series), H x W pixels, L labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from lungdet.errors import InputError
from lungdet.inference.model import Model
from lungdet.inference.squares import Squares
from lungdet.models.classifier import Classifier

OUTPUTS = ("log_odds", "calibrated")


class Graph(nn.Module):
    """Images of one size -> what `lungdet predict` writes of them, in fp32 on whatever device it is run.

    Args:
        model: of one run, or of several whose probabilities are averaged.

    Attributes:
        inputs: the names of what `forward` takes: `image`, and of runs that read visits `length` and, where they are
            told the time between visits, `when`.

    Raises:
        InputError: a run is a control, which is no use to anybody else.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        for run, network in zip(model.runs, model.networks, strict=True):
            if network.backbone is None:
                raise InputError(f"run={run.folder}: this control sees no pixel, so there is nothing to hand over")
            if getattr(getattr(network, "steps", None), "shuffle", False):
                raise InputError(
                    f"run={run.folder}: this control reads steps in an order that an image's name decides, which a "
                    "file that is handed over does not know; export the run whose order is not shuffled"
                )
        gap = any(network.gap is not None for network in model.networks)
        self.inputs = ("image", *(("length",) if model.series else ()), *(("when",) if gap else ()))
        self.squares = Squares(model.settings)
        self.networks = nn.ModuleList(map(Layers, model.networks))
        self.register_buffer("temperature", torch.tensor([model.temperature[label] for label in model.labels]))
        self.to("cpu", memory_format=torch.contiguous_format).eval().requires_grad_(False)

    def forward(self, image: Tensor, length: Tensor | None = None, when: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-odds (N, L), and probabilities after temperature scaling (N, L), NaN where no temperature is known.

        Args:
            image: (S, 1, H, W) uint8, black 0 and white 255, case by case in the order of visits.
            length: (N,) int64, how many images are a case's; None: each is a case.
            when: (S, 2) float32, the patient's age and the number of the visit, NaN where unknown.
        """
        square = self.squares(image)
        if length is None:
            length = torch.ones_like(square[:, 0, 0, 0], dtype=torch.int64)
        log_odds = [layers(square, length, when) for layers in self.networks]
        mean = log_odds[0] if len(log_odds) == 1 else _mean(torch.stack(log_odds))
        return mean, torch.sigmoid(mean / self.temperature)


class Layers(nn.Module):
    """A network without what trains it: `torch.jit` looks through all attributes, and Lightning's may not be read.

    Args:
        network: whose layers they are.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        for name, layer in network.named_children():
            if not isinstance(layer, Metric):
                self.add_module(name, layer)
        self._log_odds = lambda *inputs: network.log_odds(network.forward(*inputs))

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None) -> Tensor:
        """(S, 1, size, size), (N,), (S, 2) -> log-odds (N, L)."""
        return self._log_odds(image, length, when)


def _mean(log_odds: Tensor) -> Tensor:
    """(runs, N, L) -> (N, L): the log-odds of the mean probability, as `statistics.metrics.ensemble` has them."""
    return torch.logsumexp(F.logsigmoid(log_odds), 0) - torch.logsumexp(F.logsigmoid(-log_odds), 0)
