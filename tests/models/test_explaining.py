"""Maps point at what the network reacts to, for every model and method; an LSTM's steps weigh what they change."""

import pytest
import torch
from torch import Tensor, nn

from lungdet.errors import InputError
from lungdet.models import explaining
from lungdet.models.backbone import ConvBackbone, TimmBackbone
from lungdet.models.classifier import Classifier
from lungdet.models.cnn import CNN
from lungdet.models.cnn_lstm import CNNLSTM
from lungdet.models.length_only import LengthOnly
from lungdet.page.wording import METHODS

SPOT = (slice(8, 16), slice(40, 48))
"""Where each image is bright."""


def batch(*length: int) -> dict[str, Tensor]:
    """Dark images of 64 pixels, a bright spot in each case's last one."""
    images, last = torch.full((sum(length), 1, 64, 64), 0.1), torch.tensor(length).cumsum(0) - 1
    images[last, 0, *SPOT] = 1
    case = torch.arange(len(length))
    return {"image": images, "length": torch.tensor(length), "when": torch.zeros(sum(length), 2), "case": case}


class Brightness(nn.Module):
    """A map of brightness beyond a half, on a grid of 16."""

    channels = 2

    def forward(self, image: Tensor) -> Tensor:
        bright = nn.functional.avg_pool2d((image - 0.5).relu(), 4)
        return torch.cat([bright, 1 - bright], dim=1)


def reacting(kind: type[Classifier], sign: float = 1, **options) -> Classifier:
    """A model whose log-odds rise (or fall) with the brightness in its map."""
    options = {"hidden": 4, "dropout": 0.5, "learning_rate": 1e-3, **options}
    torch.manual_seed(0)
    model = kind(Brightness(), **options)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
        first, last = (layer for layer in model.head if isinstance(layer, nn.Linear))
        first.weight[0, 0], first.bias[0], last.weight[1, 0] = sign, 2, 1
        if isinstance(model, CNNLSTM):  # a unit that adds up what is bright
            for parameter in model.lstm.parameters():
                parameter.zero_()
            width = model.lstm.hidden_size
            model.lstm.weight_ih_l0[2 * width, 0] = 1
            model.lstm.bias_ih_l0[: 2 * width] = 5
            model.lstm.bias_ih_l0[3 * width :] = 5
    return model


def test_every_method_has_a_name_for_people() -> None:
    assert explaining.METHODS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", explaining.METHODS)
@pytest.mark.parametrize("sequence", [None, "rows", "columns", "patches", "visits"])
def test_the_map_of_a_network_that_reacts_to_a_bright_spot_lies_on_the_spot(sequence: str | None, method: str) -> None:
    length = (1, 3, 2) if sequence == "visits" else (1, 1, 1)
    options = {"layers": 1, "width": 2, "sequence": sequence, "visits": 3}
    model = reacting(CNN) if sequence is None else reacting(CNNLSTM, **options)
    heat = explaining.maps(model, batch(*length), torch.zeros(3, dtype=torch.long), method)
    assert heat.shape == (3, 64, 64)
    assert heat.min() >= 0
    around = torch.zeros(64, 64, dtype=torch.bool)
    around[4:20, 36:52] = True
    assert (heat[:, around].sum(1) / heat.sum((1, 2)) > 0.75).all()
    assert model.training


def test_what_speaks_against_a_label_is_no_heat_and_each_case_is_asked_about_its_own_label() -> None:
    for method in explaining.METHODS:
        against = explaining.maps(reacting(CNN, sign=-1), batch(1), torch.zeros(1, dtype=torch.long), method)
        assert against.min() == against.max() == 0
    model = reacting(CNN, task="findings")  # the second finding alone
    heat = explaining.maps(model, batch(1, 1), torch.tensor([0, 1]))
    assert heat.amax((1, 2)).tolist() == [0, pytest.approx(heat[1].max().item())]
    assert heat[1].max() > 0


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_backbones_of_timm_give_maps(name: str) -> None:
    torch.manual_seed(0)
    images = batch(1, 1) | {"image": torch.rand(2, 1, 160, 160)}
    model = CNNLSTM(TimmBackbone(name), hidden=4, dropout=0.0, layers=1, width=4, learning_rate=1e-3)
    for method in ("gradcam", "hirescam"):
        heat = explaining.maps(model, images, torch.zeros(2, dtype=torch.long), method)
        assert heat.shape == (2, 160, 160)
    with torch.no_grad():
        model.head[-1].weight.neg_()
    against = explaining.maps(model, images, torch.zeros(2, dtype=torch.long), method)
    assert (heat + against).amax() > 0


def test_a_frozen_studys_backbone_gives_a_map_before_its_last_pooling() -> None:
    backbone = ConvBackbone((4, 8), frozen=True)
    assert (
        backbone.map_layer()(torch.zeros(1, 8, 32, 32)).shape[-1] == 2 * backbone(torch.zeros(1, 1, 64, 64)).shape[-1]
    )
    torch.manual_seed(1)
    model = CNN(backbone, hidden=8, dropout=0.0, learning_rate=1e-3)
    assert explaining.maps(model, batch(1), torch.zeros(1, dtype=torch.long)).isfinite().all()


def test_steps_weigh_what_the_log_odds_lose_without_them() -> None:
    model, images = reacting(CNNLSTM, layers=1, width=2, sequence="rows"), batch(1, 1)
    weights = explaining.step_weights(model, images, torch.zeros(2, dtype=torch.long))
    assert weights.shape == (2, 16)
    assert set(weights[0].abs().topk(2).indices.tolist()) == {2, 3}  # the rows of the spot

    def without(_: nn.Module, __: tuple, outcome: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        steps, count = outcome[0].clone(), outcome[1]
        steps[:, 3] = steps.mean(1)
        return steps, count

    # The network as it predicts, which `step_weights` takes apart.
    whole = model.eval().log_odds(model(**images))
    with model.steps.register_forward_hook(without):
        lost = whole - model.log_odds(model(**images))
    torch.testing.assert_close(weights[:, 3], lost[:, 0].detach())
    assert explaining.step_weights(reacting(CNN), images, torch.zeros(2, dtype=torch.long)) is None


def test_steps_beyond_a_series_weigh_nothing() -> None:
    model = reacting(CNNLSTM, layers=1, width=2, sequence="visits", visits=3)
    weights = explaining.step_weights(model, batch(1, 3), torch.zeros(2, dtype=torch.long))
    assert weights[0].tolist() == [0, 0, 0]  # a single visit: nothing to compare it with
    assert weights[1].abs().argmax() == 2


def test_what_gives_no_map_is_refused() -> None:
    with pytest.raises(InputError, match="method=camera: one of gradcam, hirescam"):
        explaining.maps(reacting(CNN), batch(1), torch.zeros(1), "camera")
    with pytest.raises(InputError, match="LengthOnly sees no image"):
        explaining.maps(LengthOnly(None, hidden=4, dropout=0.0, learning_rate=1e-3), batch(1), torch.zeros(1))


def test_cudnn_is_off_where_a_gradient_passes_an_lstm_and_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation cuDNN's backward pass through an LSTM fails; a convolution's does not, and is slow without it."""
    used = []
    forward = Brightness.forward
    monkeypatch.setattr(
        Brightness, "forward", lambda self, image: used.append(torch.backends.cudnn.enabled) or forward(self, image)
    )
    for model in (reacting(CNN), reacting(CNNLSTM, layers=1, width=2)):
        explaining.maps(model, batch(1), torch.zeros(1, dtype=torch.long))
    assert used == [True, False]
    assert torch.backends.cudnn.enabled
