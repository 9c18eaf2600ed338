"""A file of weights becomes a timm network that takes one grey channel: every weight of it, or an error."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lungdet.errors import InputError, first_few

if TYPE_CHECKING:
    from timm.models import PretrainedCfg


def load_weights(name: str, file: str, origin: str | None) -> nn.Module:
    """The network without its classifier, its weights from a file of timm's, torchvision's or torchxrayvision's layout.

    Args:
        name: timm's name of the model.
        file: safetensors, or what `torch.save` wrote: weights by name, alone or as `state_dict` or `model`.
        origin: see `TimmBackbone`; weights of one channel need it, since nothing tells which values they expect.

    Raises:
        InputError: no such file; it needs unpickling, which would run whatever is in it; its weights are another
            model's; or they take one channel and no origin is said.
    """
    import timm

    weights, config = read_weights(file), timm.get_pretrained_cfg(name, allow_unregistered=False)
    stems = [f"{layer}.weight" for layer in _names(config.first_conv)]
    grey = any(stem in weights and weights[stem].shape[1] == 1 for stem in stems)
    if grey and origin is None:
        raise InputError(
            f"model.backbone.weights={file}: its first layer takes one channel, so it is none of timm's files, and "
            "which pixel values it expects is not known; say whose it is: model.backbone.origin=NAME, of those in "
            "lungdet/models/origins.py (imagenet: timm's own mean and deviation)"
        )
    for classes in _classes(weights, config):
        source = {"state_dict": {**weights}, "num_classes": classes, "label_offset": 0, "custom_load": False}
        source |= {"input_size": (1, *config.input_size[1:])} if grey else {}
        try:
            # With a classifier as in the file: else timm takes any file, and leaves at random what that lacks.
            network = timm.create_model(
                name, pretrained=True, in_chans=1, num_classes=classes, pretrained_cfg_overlay=source
            )
        except RuntimeError as error:
            misfit = error
            continue
        network.reset_classifier(0)
        network.pretrained_cfg["state_dict"] = None  # or they are kept twice
        return network
    raise InputError(
        f"model.backbone.weights={file}: not the weights of model.backbone.name={name} "
        f"({' '.join(str(misfit).split())[:300]})"
    ) from misfit


def read_weights(file: str) -> dict[str, Tensor]:
    """The weights in a file by name; nothing in it is run.

    Raises:
        InputError: no such file, it holds something else, or it needs unpickling.
    """
    from timm.models import load_state_dict

    key = f"model.backbone.weights={file}"
    if not Path(file).is_file():
        raise InputError(f"{key}: no such file")
    try:
        weights = load_state_dict(file, device="cpu", weights_only=True)
    except Exception as error:  # of safetensors, zip archives, pickles: whatever is wrong with it
        if objects := _objects(file, error):
            raise InputError(
                f"{key}: it holds Python objects ({objects}) and not weights alone. Opening it would "
                "run code, so it is left closed. If you trust it, write its weights alone to another file, where the "
                "package that it names is installed: python -c 'import torch; "
                f'model = torch.load("{file}", weights_only=False); torch.save(model.state_dict(), "weights.pth")\''
            ) from error
        raise InputError(f"{key}: no weights can be read from it ({type(error).__name__}: {error})") from error
    weights.pop("op_threshs", None)  # torchxrayvision's operating points
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{key}: it holds no weights by name, as `torch.save(model.state_dict(), FILE)` writes them")
    return weights


def _objects(file: str, error: Exception) -> str:
    """The classes and functions, beyond those of tensors, that unpickling a file would call; empty without any."""
    try:
        return first_few(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file)), 3)
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError):
        # No zip archive. Before 1.6 torch wrote pickles alone, in which nothing is looked up beforehand.
        with open(file, "rb") as stream:
            pickled = stream.read(1) == pickle.PROTO
        refused = isinstance(error.__cause__ or error, pickle.UnpicklingError)
        return "in the format of torch before 1.6" if pickled and refused else ""


def _classes(weights: Mapping[str, Tensor], config: "PretrainedCfg") -> list[int]:
    """How many classes the file's classifier may tell apart, 0 without one."""
    layers = [f"{layer}.weight" for layer in _names(config.classifier)]
    return [len(weights[layer]) for layer in layers if layer in weights][:1] or [0, config.num_classes]


def _names(layers: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Layers as timm names them, in one word, several or none."""
    return (layers,) if isinstance(layers, str) else tuple(layers or ())
