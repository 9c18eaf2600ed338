"""The convolutional layers that every model shares: radiographs (N, 1, H, W) -> feature maps (N, C, h, w)."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lungdet.errors import InputError
from lungdet.models import origins
from lungdet.models.hub import require_hub
from lungdet.models.weights import load_weights


class Backbone(nn.Module):
    """What both backbones have: they start from another run's, and learn late, slowly, layer by layer, or not at all.

    Attributes:
        channels: C, of the feature map.
        frozen: whether training leaves it alone, running statistics of batch norm included.
        unfreeze_at: the epochs after which it learns, too; None: from the first on, or never.
    """

    channels: int
    frozen: bool
    unfreeze_at: int | None

    def train(self, mode: bool = True) -> Self:
        """As ever, but for a frozen one, which stays as in evaluation."""
        return super().train(mode and not self.frozen)

    def freeze(self, frozen: bool) -> None:
        """Leave it alone from now on, or no longer."""
        self.frozen = frozen
        self.requires_grad_(not frozen).train()

    def layers(self) -> list[list[nn.Parameter]]:
        """Its parameters layer by layer, the one that sees the image first."""
        raise NotImplementedError

    def map_layer(self) -> nn.Module:
        """The layer whose output is the finest map of what the head goes by: (S, 1, H, W) -> (S, C, h, w)."""
        return self

    def rate_factors(self) -> dict[nn.Parameter, float]:
        """By parameter, what the model's learning rate is multiplied by."""
        if self._layer_decay == 1:
            return dict.fromkeys(self.parameters(), self._rate_factor)
        layers = self.layers()[::-1]
        return {
            parameter: self._rate_factor * self._layer_decay**above
            for above, layer in enumerate(layers, 1)
            for parameter in layer
        }

    def start(
        self,
        init_from: str | None = None,
        frozen: bool = False,
        unfreeze_at: int | None = None,
        rate_factor: float = 1.0,
        layer_decay: float = 1.0,
    ) -> None:
        """To be called once all layers are there.

        Args:
            init_from: the run folder whose backbone this one starts from: training reads it, and gives None here.
            frozen: it is left as it is.
            unfreeze_at: it is left so until this many epochs are trained.
            rate_factor: its learning rate is the model's times this.
            layer_decay: each layer learns as fast as the next one times this, the last as the head times this.

        Raises:
            ValueError: weights of another run are asked for, which who trains has to load: none are found here.
            InputError: a number is none of its kind.
        """
        if init_from is not None:
            raise ValueError(f"init_from={init_from}: its weights are loaded by lungdet.training.pretraining.load")
        if unfreeze_at is not None and (type(unfreeze_at) is not int or unfreeze_at < 1):
            raise InputError(f"model.backbone.unfreeze_at={unfreeze_at}: null or at least one epoch is needed")
        if frozen and unfreeze_at is not None:
            raise InputError(f"model.backbone.unfreeze_at={unfreeze_at} and frozen=true: say one of them")
        for key, value, highest in (("rate_factor", rate_factor, math.inf), ("layer_decay", layer_decay, 1)):
            if not 0 < value <= highest:
                raise InputError(f"model.backbone.{key}={value}: a number above 0 is needed, of layer_decay up to 1")
        self.unfreeze_at, self._rate_factor, self._layer_decay = unfreeze_at, rate_factor, layer_decay
        self.freeze(frozen or unfreeze_at is not None)
        if unfreeze_at is not None:
            self.requires_grad_(True)  # for the optimizer and DDP, which know it from the start

    KEYS = (start,)
    """What both take as `**learning`, see `lungdet.kinds.signature`."""


class ConvBackbone(Backbone, nn.Sequential):
    """The study's backbone: blocks of one 3x3 convolution, batch norm, ReLU and 2x2 pooling.

    Args:
        widths: the channels of each block; each block halves height and width.
        learning: see `Backbone.start`.

    Raises:
        InputError: no block, or one without a channel.
    """

    def __init__(self, widths: Sequence[int], **learning: Any) -> None:
        if not widths or min(widths) < 1:
            raise InputError(f"model.backbone.widths={list(widths)}: at least one block, each of 1 channel or more")
        blocks = [_block(before, after) for before, after in zip([1, *widths[:-1]], widths, strict=True)]
        super().__init__(*blocks)
        self.channels = widths[-1]
        self.start(**learning)

    def map_layer(self) -> nn.Module:
        """What the last block pools, twice as fine as what it gives."""
        return self[-1][-2]

    def layers(self) -> list[list[nn.Parameter]]:
        """Of each block."""
        return [list(block.parameters()) for block in self]


class TimmBackbone(Backbone):
    """A timm model whose `forward_features` are a map, taking one grey channel.

    Images come in [0, 1]; the mean and deviation that the weights expect are applied here, from the model's own
    configuration or, where `origin` says otherwise, from that. Maps that are channels-last or a row of tokens
    (transformers, mixers) come out as (N, C, h, w).

    Args:
        name: timm's name of the model; `timm.list_models()` lists them.
        pretrained: load weights; from `weights` if given, else from the hub.
        weights: a local file with the model's weights; of three channels they are summed to one.
        origin: whose weights they are, a name of `lungdet.models.origins.ORIGINS`; None: unknown.
        seen: datasets that they learnt from beyond what `origin` says; training reads it (`training.published`).
        learning: see `Backbone.start`.

    Raises:
        InputError: timm knows no such model, no such origin is known, `weights` is not there or holds others (see
            `load_weights`), or weights are to come from the hub and the hub cannot be reached or lacks them. In
            `forward`: the model takes images of another size, or its features are no map.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        weights: str | None = None,
        origin: str | None = None,
        seen: Sequence[str] | None = None,
        **learning: Any,
    ) -> None:
        super().__init__()
        import timm  # four seconds: only when asked for

        if not timm.is_model(name):
            close = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
            raise InputError(f"model.backbone.name={name}: timm knows no such model; did you mean: {close}")
        self.name, self.range = name, None if origin is None else origins.named(origin).range
        if weights is not None:
            self.network = load_weights(name, weights, origin)
        else:
            if pretrained:
                require_hub(name)
            self.network = timm.create_model(name, pretrained=pretrained, in_chans=1, num_classes=0)
        self.channels = self.network.num_features
        config = self.network.pretrained_cfg
        mean, deviation = torch.tensor(config["mean"]).mean(), torch.tensor(config["std"]).mean()
        if self.range is not None:
            low, high = self.range
            mean, deviation = torch.tensor(low / (low - high)), torch.tensor(1 / (high - low))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        self.start(**learning)

    def layers(self) -> list[list[nn.Parameter]]:
        """As timm groups them for fine-tuning.

        Raises:
            InputError: it does not say how.
        """
        from timm.models import group_parameters

        if not hasattr(self.network, "group_matcher"):
            raise InputError(f"model.backbone.layer_decay: timm tells no layers of {self.name}; set it to 1")
        places = group_parameters(self.network, self.network.group_matcher(), reverse=True)
        layers: dict[int, list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            layers.setdefault(places[name], []).append(parameter)
        return [layers[place] for place in sorted(layers)]

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) in [0, 1] -> (N, C, h, w)."""
        try:
            features = self.network.forward_features((image - self.mean) / self.deviation)
        except (AssertionError, RuntimeError) as error:
            # Asked only now: many models that timm calls fixed take other sizes too.
            self._refuse_size(image, error)
            raise
        if not isinstance(features, Tensor):
            raise self._no_map(f"a {type(features).__name__}")
        if features.ndim == 3 and features.shape[2] == self.channels:  # (N, prefix + h * w, C)
            features = self._map(features, image)
        elif features.ndim == 4 and features.shape[1] != self.channels:  # (N, h, w, C)
            features = features.permute(0, 3, 1, 2)
        if features.ndim != 4 or features.shape[1] != self.channels:
            raise self._no_map(f"of shape {tuple(features.shape)}")
        return features

    def _map(self, tokens: Tensor, image: Tensor) -> Tensor:
        """(N, prefix + h * w, C) -> (N, C, h, w), or the tokens as they are where no grid can be told.

        Class and register tokens stand before the patches'.
        """
        patches = tokens[:, getattr(self.network, "num_prefix_tokens", 0) :]
        count = patches.shape[1]
        grid = getattr(getattr(self.network, "patch_embed", None), "grid_size", None)
        if not grid or math.prod(grid) != count:  # the grid of the first layer, or of images of another size
            side = math.isqrt(count)
            if side * side != count or image.shape[2] != image.shape[3]:
                return tokens
            grid = (side, side)
        if count == 1:  # what some models pool all patches into
            return tokens
        return patches.transpose(1, 2).unflatten(2, tuple(grid))

    def _no_map(self, features: str) -> InputError:
        return InputError(
            f"model.backbone.name={self.name}: its features are no map but {features}, and a map (N, C, h, w) is "
            "needed; choose another model"
        )

    def _refuse_size(self, image: Tensor, error: Exception) -> None:
        config, size = self.network.pretrained_cfg, tuple(image.shape[2:])
        expected = tuple(config["input_size"][1:])
        if config.get("fixed_input_size") and size != expected and not isinstance(error, torch.OutOfMemoryError):
            raise InputError(
                f"model.backbone.name={self.name}: made for images of {expected[0]} x {expected[1]} pixels, and these "
                f"have {size[0]} x {size[1]}; set data.image_size={expected[0]} or choose a model that takes any size"
            ) from error


def require_size(backbone: nn.Module, side: int) -> None:
    """Passes only images of a size that every layer takes.

    Args:
        backbone: of any kind.
        side: of the square images, pixels.

    Raises:
        InputError: another is needed; or as the backbone's own `forward`.
    """
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 1, side, side))
    except RuntimeError as error:
        raise InputError(
            f"data.image_size={side}: model.backbone takes no images of this size, as a rule since they are too small "
            f"({error})"
        ) from error
    finally:
        backbone.train(training)


def untrained(model: DictConfig) -> DictConfig:
    """The same model's configuration, its weights fetched from nowhere: for one that gets its own, or needs none."""
    model = model.copy()
    for key, empty in (("pretrained", False), ("weights", None), ("init_from", None)):
        if OmegaConf.select(model, f"backbone.{key}"):
            OmegaConf.update(model, f"backbone.{key}", empty)
    return model


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),  # batch norm brings the offset
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
