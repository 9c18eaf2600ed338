"""Where in an image, and in which step of a sequence, a network finds what speaks for a label.

Attributions are captum's. A map is no evidence that the network looked at disease; whether it points there is measured
(`lungdet.evaluation.explanations`).

Legend: N cases, S images, T steps, L labels, H x W pixels, C channels, h x w grid.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from lungdet.errors import InputError
from lungdet.models.backbone import Backbone
from lungdet.models.classifier import Classifier
from lungdet.models.cnn_lstm import CNNLSTM

Batch = Mapping[str, Tensor]

STEPS = 32
"""Of the path that integrated gradients are summed along."""
TOGETHER = 128
"""Images of such paths that are computed at a time."""
WINDOW, STRIDE = 6, 12
"""Occlusion covers a square of a sixth of the side, and moves it by a twelfth."""
BLUR = 0.02
"""Of integrated gradients, which are pixel by pixel: the deviation, as a share of the side."""


def maps(model: Classifier, batch: Batch, label: Tensor, method: str = "gradcam") -> Tensor:
    """Heat maps (N, H, W) of what in each case's last image speaks for a label; never below 0, and 0 says nothing.

    Computed in fp32 and without dropout. A method takes so many times a prediction's time, about: `gradcam` and
    `hirescam` 3, `integrated_gradients` 100, `occlusion` 150.

    Args:
        model: any that sees images.
        batch: as `lungdet.data.serving.batches.Batches` yields it, on the model's device.
        label: (N,), which of the model's labels is asked about, case by case.
        method: of `METHODS`.

    Raises:
        InputError: see `require`.
    """
    require(model, method)
    side = batch["image"].shape[-2:]
    with _explained(model):
        heat = METHODS[method](model, batch, label)
    heat = F.interpolate(heat.detach().float(), side, mode="bilinear", align_corners=False)[:, 0].clamp_min(0)
    return heat.nan_to_num(0)


def step_weights(model: Classifier, batch: Batch, label: Tensor) -> Tensor | None:
    """What each step of the sequence speaks for a label (N, T), in log-odds; None of a model without an LSTM.

    It is by how much the log-odds fall if the step is replaced by the mean of the case's steps: negative where the
    step speaks against the label, 0 for padding, and for a series of a single visit. One reading of the LSTM a step.
    """
    if not isinstance(model, CNNLSTM):
        return None
    from captum.attr import FeatureAblation

    def log_odds(steps: Tensor, count: Tensor) -> Tensor:
        outputs, _ = model.lstm(steps)
        return model.log_odds(model.classify(model.pooling(outputs, count)))

    with _explained(model), torch.no_grad():
        features = model.backbone(model.steps.images(batch["image"], batch["length"]))  # once, not for each step
        steps, count = model.steps(features, batch["length"], batch["when"], batch["case"])
        places = torch.arange(steps.shape[1], device=steps.device)
        real = places < count[:, None]
        mean = (steps * real[..., None]).sum(1, keepdim=True) / count[:, None, None]
        mask = places[None, :, None].expand(1, *steps.shape[1:])
        lost = FeatureAblation(log_odds).attribute(
            steps, mean.expand_as(steps), label, (count,), feature_mask=mask, perturbations_per_eval=1
        )
    return lost[..., 0]


def require(model: Classifier, method: str) -> None:
    """Passes only a model and a method that give maps.

    Raises:
        InputError: no such method, the model sees no image, or captum is not installed.
    """
    if method not in METHODS:
        raise InputError(f"method={method}: one of {', '.join(METHODS)} is needed")
    if model.backbone is None:
        raise InputError(f"{type(model).__name__} sees no image, so there is no map of what it looks at")
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise InputError(f"explaining needs captum ({error}): pip install 'lungdet[explain]'") from error


def _gradcam(model: Classifier, batch: Batch, label: Tensor) -> Tensor:
    """Selvaraju et al. 2017: channels weighted by their mean gradient, (N, 1, h, w)."""
    from captum.attr import LayerGradCam

    last, rest = _last(batch)
    cam = LayerGradCam(_log_odds(model), _layer(model))
    return _of_last(cam.attribute(last, label, rest, relu_attributions=True), batch)


def _hirescam(model: Classifier, batch: Batch, label: Tensor) -> Tensor:
    """Draelos and Carin 2020: gradient times activation, place by place, summed over channels, (N, 1, h, w)."""
    from captum.attr import LayerGradientXActivation

    last, rest = _last(batch)
    product = LayerGradientXActivation(_log_odds(model), _layer(model))
    return _of_last(product.attribute(last, label, rest).sum(1, keepdim=True).relu(), batch)


def _integrated_gradients(model: Classifier, batch: Batch, label: Tensor) -> Tensor:
    """Sundararajan et al. 2017, from the image's mean grey, what speaks for the label, blurred, (N, 1, H, W)."""
    from captum.attr import IntegratedGradients

    last, rest = _last(batch)
    together = max(TOGETHER, len(label))  # of all cases, one step of their paths at least
    integrated = IntegratedGradients(_log_odds(model)).attribute(
        last, _mean_grey(last), label, rest, n_steps=STEPS, internal_batch_size=together
    )
    side = batch["image"].shape[-1]
    deviation = max(BLUR * side, 0.5)
    kernel = min(2 * round(3 * deviation) + 1, 2 * (side // 2) - 1)
    return gaussian_blur(integrated.float().relu(), [kernel, kernel], [deviation, deviation])


def _occlusion(model: Classifier, batch: Batch, label: Tensor) -> Tensor:
    """Zeiler and Fergus 2014: what the log-odds lose where a square is the image's mean grey, (N, 1, H, W)."""
    from captum.attr import Occlusion

    last, rest = _last(batch)
    window, stride = (max(1, last.shape[-1] // parts) for parts in (WINDOW, STRIDE))
    occlusion = Occlusion(_log_odds(model))
    return occlusion.attribute(last, (1, window, window), (1, stride, stride), _mean_grey(last), label, rest)


METHODS: dict[str, Callable[[Classifier, Batch, Tensor], Tensor]] = {
    "gradcam": _gradcam,
    "hirescam": _hirescam,
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
}


@contextmanager
def _explained(model: Classifier) -> Iterator[None]:
    """Within the block the model is as in evaluation, and gradients pass through its LSTM."""
    training = model.training
    model.eval()
    # cuDNN keeps what its backward pass through an LSTM needs in training alone.
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    try:
        with torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext(), torch.enable_grad():
            yield
    finally:
        model.train(training)


def _layer(model: Classifier) -> nn.Module:
    """The layer whose map is weighed; of a backbone that is not ours, all of it."""
    return model.backbone.map_layer() if isinstance(model.backbone, Backbone) else model.backbone


def _log_odds(model: Classifier) -> Callable[..., Tensor]:
    """(N, 1, H, W), each case's last image, and the whole series -> log-odds (N, L)."""

    def of(last: Tensor, image: Tensor, length: Tensor, when: Tensor, case: Tensor) -> Tensor:
        image = image.index_copy(0, length.cumsum(0) - 1, last)
        return model.log_odds(model(image, length, when, case))

    return of


def _last(batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Each case's last image (N, 1, H, W), which is explained, and what else `_log_odds` takes."""
    rest = tuple(batch[name] for name in ("image", "length", "when", "case"))
    return batch["image"][batch["length"].cumsum(0) - 1], rest


def _of_last(heat: Tensor, batch: Batch) -> Tensor:
    """Of a map an image (S, 1, h, w), or a case already, those of the last images (N, 1, h, w)."""
    length = batch["length"]
    return heat if len(heat) == len(length) else heat[length.cumsum(0) - 1]


def _mean_grey(image: Tensor) -> Tensor:
    return image.mean((1, 2, 3), keepdim=True).expand_as(image)
