"""What in new radiographs speaks for a label: heat maps of finished runs, and the weight of each step for an LSTM."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lungdet.data.serving.batches import Batches
from lungdet.errors import InputError
from lungdet.evaluation.statistics.metrics import ensemble
from lungdet.inference.decoding import Decoded
from lungdet.models import explaining
from lungdet.models.classifier import Classifier
from lungdet.page.overlay import overlay
from lungdet.runs.folder import Run
from lungdet.runs.network import predicting


class Explanation(NamedTuple):
    """What in N images speaks for a label. A map is no evidence that the network looked at disease.

    Attributes:
        image: (N,), the path or the array's number.
        label: (N,), which label each is about.
        pixels: (N, H, W) uint8, the images as the network sees them.
        maps: (N, H, W), at least 0, the highest place of each being 1, or 0 everywhere where nothing speaks for it.
        weights: (N, T), what each step of the sequence adds to the log-odds, see `lungdet.models.explaining`; None
            without an LSTM, and of the mean of several runs.
        sequence: what a step is.
        excluded: why others cannot be read, by image.
    """

    image: np.ndarray
    label: np.ndarray
    pixels: np.ndarray
    maps: np.ndarray
    weights: np.ndarray | None
    sequence: str | None
    excluded: Mapping[object, str]

    def overlay(self, number: int) -> np.ndarray:
        """The picture (h, w, 3) uint8 of one of them, see `lungdet.page.overlay`."""
        weights = None if self.weights is None else self.weights[number]
        return overlay(self.pixels[number], self.maps[number], weights, self.sequence)

    def of(self, rows: np.ndarray) -> "Explanation":
        """These of them, in this order."""
        weights = None if self.weights is None else self.weights[rows]
        columns = [column[rows] for column in (self.image, self.label, self.pixels, self.maps)]
        return Explanation(*columns, weights, self.sequence, self.excluded)


def explained(
    members: Sequence[tuple[Run, Classifier]], pieces: Iterable[Decoded], label: str | None, method: str, size: int
) -> Iterator[Explanation]:
    """Each piece explained.

    Args:
        members: runs with their networks; of several the mean map.
        pieces: see `lungdet.inference.decoding`.
        label: which label is asked about; None asks of each image about its most probable one.
        method: of `lungdet.models.explaining.METHODS`.
        size: images of a batch.

    Raises:
        InputError: see `require`.
    """
    require([network for _, network in members], label, method)
    index = None if label is None else members[0][1].labels.index(label)
    with ExitStack() as stack:
        networks = []
        for run, network in members:
            device = stack.enter_context(predicting(run, network)).strategy.root_device
            networks.append(network.to(device))
            stack.callback(network.cpu)
        for piece in pieces:
            yield _of_piece(networks, device, piece, index, method, size)


def require(networks: Sequence[Classifier], label: str | None, method: str) -> None:
    """Passes only what can be explained.

    Raises:
        InputError: no such label or method, a network that sees no image, or captum is not installed.
    """
    for network in networks:
        explaining.require(network, method)
        if label is not None and label not in network.labels:
            raise InputError(f"label={label}: these runs predict {', '.join(network.labels)}")


def join(parts: Sequence[Explanation]) -> Explanation:
    """Pieces as one."""
    whole = [np.concatenate([part[i] for part in parts]) for i in range(4)]
    weights = [part.weights for part in parts if part.weights is not None]  # none where no image can be read
    excluded = {name: reason for part in parts for name, reason in part.excluded.items()}
    return Explanation(*whole, np.concatenate(weights) if weights else None, parts[0].sequence, excluded)


def _of_piece(
    networks: Sequence[Classifier], device: torch.device, piece: Decoded, index: int | None, method: str, size: int
) -> Explanation:
    labels, count = networks[0].labels, len(piece.cases)
    if index is None and len(labels) > 1 and count:
        index = ensemble(np.stack([_logits(network, piece.batches(network, size, device)) for network in networks]))
        index = index.argmax(axis=1)
    index = np.broadcast_to(0 if index is None else index, count)
    maps, weights = np.zeros((len(networks), *piece.images.shape), np.float32), []
    for heat, network in zip(maps, networks, strict=True):
        for batch in piece.batches(network, size, device) if count else ():
            rows = batch["row"].cpu().numpy()
            label = torch.as_tensor(index[rows].copy(), device=device)
            heat[rows] = _to_one(explaining.maps(network, batch, label, method)).cpu().numpy()
            weights.append(explaining.step_weights(network, batch, label) if len(networks) == 1 else None)
    named = np.array(labels, dtype=object)[index]
    steps = torch.cat(weights).cpu().numpy() if weights and weights[0] is not None else None
    names = piece.cases["image_id"].to_numpy(dtype=object)
    return Explanation(names, named, piece.images, maps.mean(axis=0), steps, networks[0].sequence, piece.reasons)


def _logits(network: Classifier, batches: Batches) -> np.ndarray:
    """Log-odds (N, L)."""
    with torch.inference_mode():
        return np.concatenate([network.eval().log_odds(network.logits(batch)).cpu().numpy() for batch in batches])


def _to_one(heat: Tensor) -> Tensor:
    """Maps (N, H, W), each divided by its highest value."""
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)
