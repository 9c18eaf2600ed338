"""The convolutional layers that every model shares: radiographs (N, 1, H, W) -> feature maps (N, C, h, w)."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lungdet.errors import InputError

log = logging.getLogger(__name__)


class ConvBackbone(nn.Sequential):
    """The study's backbone: blocks of one 3x3 convolution, batch norm, ReLU and 2x2 pooling.

    Args:
        widths: the channels of each block; each block halves height and width.

    Attributes:
        channels: C, of the feature map.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        blocks = [_block(before, after) for before, after in zip([1, *widths[:-1]], widths, strict=True)]
        super().__init__(*blocks)
        self.channels = widths[-1]


class TimmBackbone(nn.Module):
    """Any timm model with `forward_features`, taking one grey channel.

    Images come in [0, 1]; the mean and deviation that the weights expect are applied here, from the model's own
    configuration. Maps that are channels-last or a row of tokens (transformers) come out as (N, C, h, w).

    Args:
        name: timm's name of the model; `timm.list_models()` lists them.
        pretrained: load weights; from `weights` if given, else from the hub.
        weights: a local file with the model's weights.

    Raises:
        InputError: timm knows no such model, `weights` is not there, or weights are to come from the hub and the hub
            cannot be reached.
    """

    def __init__(self, name: str, pretrained: bool = False, weights: str | None = None) -> None:
        super().__init__()
        import timm  # four seconds: only when asked for

        if not timm.is_model(name):
            close = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
            raise InputError(f"model.backbone.name={name}: timm knows no such model; did you mean: {close}")
        options = {}
        if weights is not None:
            if not Path(weights).is_file():
                raise InputError(f"model.backbone.weights={weights}: no such file")
            options = {"pretrained_cfg_overlay": {"file": str(weights)}}
        elif pretrained:
            _require_hub(name)
        self.network = timm.create_model(
            name, pretrained=pretrained or weights is not None, in_chans=1, num_classes=0, **options
        )
        self.channels: int = self.network.num_features
        config = self.network.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).mean(), persistent=False)
        self.register_buffer("deviation", torch.tensor(config["std"]).mean(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) in [0, 1] -> (N, C, h, w)."""
        features = self.network.forward_features((image - self.mean) / self.deviation)
        if features.ndim == 3:  # (N, prefix + h * w, C): class and register tokens stand before the patches'
            patches = features[:, self.network.num_prefix_tokens :]
            grid = self.network.patch_embed.grid_size
            return patches.transpose(1, 2).unflatten(2, grid)
        if features.shape[1] != self.channels:  # (N, h, w, C)
            return features.permute(0, 3, 1, 2)
        return features


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),  # batch norm brings the offset
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


def _require_hub(name: str) -> None:
    """Ask for the weights' file once, without the minute of retries that timm would make.

    Raises:
        InputError: what to do instead.
    """
    import timm
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise InputError(f"model.backbone.name={name}: timm has no pretrained weights for it; set pretrained=false")
    for file in ("model.safetensors", "pytorch_model.bin"):
        if isinstance(try_to_load_from_cache(config.hf_hub_id, file), str):
            return
    try:
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, "model.safetensors"), timeout=5)
    except Exception as error:
        raise InputError(
            f"model.backbone.pretrained=true: the weights of {name} ({config.hf_hub_id}) are neither in the local "
            f"cache nor to be had from the hub ({type(error).__name__}). Either connect to it, or download them "
            "elsewhere and give the file as model.backbone.weights=FILE, or set model.backbone.pretrained=false"
        ) from error
