"""CNN and CNN-LSTM share a backbone, differ in the head, and mask what is unknown."""

from collections.abc import Callable
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
from sklearn.metrics import roc_auc_score
from torch import nn

from lungdet.errors import InputError
from lungdet.models.backbone import ConvBackbone, TimmBackbone, require_size
from lungdet.models.classifier import Classifier
from lungdet.models.cnn import CNN
from lungdet.models.cnn_lstm import CNNLSTM
from lungdet.models.hub import require_hub
from lungdet.models.metrics import measure

WIDTHS = (32, 64, 128, 256)


def cnn(**options) -> CNN:
    return CNN(ConvBackbone(WIDTHS), **{"hidden": 16, "dropout": 0.0, "learning_rate": 1e-3} | options)


def cnn_lstm(**options) -> CNNLSTM:
    defaults = {"hidden": 16, "dropout": 0.0, "layers": 2, "width": 24, "learning_rate": 1e-3}
    return CNNLSTM(ConvBackbone(WIDTHS), **defaults | options)


def ones(n: int) -> torch.Tensor:
    return torch.ones(n, dtype=torch.long)


def test_the_studys_backbone_has_four_blocks_of_one_3x3_convolution() -> None:
    backbone = ConvBackbone(WIDTHS)
    convolutions = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in convolutions] == [
        (1, 32, (3, 3)),
        (32, 64, (3, 3)),
        (64, 128, (3, 3)),
        (128, 256, (3, 3)),
    ]
    assert backbone(torch.rand(2, 1, 224, 224)).shape == (2, 256, 14, 14)


@pytest.mark.parametrize("model", [cnn(), *(cnn_lstm(sequence=name) for name in ("rows", "columns", "patches"))])
def test_every_parameter_gets_a_gradient(model: Classifier) -> None:
    logits = model(torch.rand(3, 1, 32, 48), ones(3))
    assert logits.shape == (3, 2)
    F.cross_entropy(logits, torch.tensor([0, 1, 1])).backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_the_backbone_of_both_models_starts_alike_from_the_same_seed() -> None:
    torch.manual_seed(0)
    one = cnn().backbone.state_dict()
    torch.manual_seed(0)
    other = cnn_lstm().backbone.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("sequence", "steps"), [("rows", 2), ("columns", 3), ("patches", 6)])
def test_steps_are_rows_columns_or_patches_of_the_grid(sequence: str, steps: int) -> None:
    features = torch.rand(5, 256, 2, 3)
    found, count = cnn_lstm(sequence=sequence).steps(features, ones(5))
    assert count.tolist() == [steps] * 5
    assert found.shape == (5, steps, 256)
    expected = {"rows": features[:, :, 1].mean(2), "columns": features[..., 1].mean(2), "patches": features[:, :, 0, 1]}
    assert torch.allclose(found[:, 1], expected[sequence])


def test_the_lstm_reads_top_to_bottom_and_order_matters() -> None:
    model = cnn_lstm().eval()
    image = torch.rand(1, 1, 64, 64)
    assert not torch.allclose(model(image, ones(1)), model(image.flip(2), ones(1)), atol=1e-6)


def test_of_a_series_the_last_image_is_read() -> None:
    images = torch.rand(5, 1, 32, 32)
    for model in (cnn().eval(), cnn_lstm().eval()):
        series = model(images, torch.tensor([2, 3]))
        assert torch.allclose(series, model(images[[1, 4]], ones(2)), atol=1e-6)


def test_an_unknown_sequence_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"model\.sequence=diagonals: one of rows, columns, patches"):
        cnn_lstm(sequence="diagonals")


def test_the_loss_is_cross_entropy_over_known_labels_only() -> None:
    logits = torch.randn(6, 2, requires_grad=True)
    target = torch.tensor([0, 1, float("nan"), 1, float("nan"), 0])
    known = torch.tensor([0, 1, 3, 5])
    assert torch.isclose(cnn()._loss(logits, target), F.cross_entropy(logits[known], target[known].long()))
    cnn()._loss(logits, target).backward()
    assert (logits.grad[[2, 4]] == 0).all()


def test_a_batch_too_small_for_batch_norm_is_told_in_a_sentence() -> None:
    batch = {"image": torch.zeros(1, 1, 8, 8), "length": ones(1), "when": None, "case": None, "target": torch.ones(1)}
    with pytest.raises(InputError, match=r"a batch of a single image: .* raise data\.batch_size"):
        cnn().training_step(batch, 0)


def test_a_batch_without_any_known_label_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 2, requires_grad=True)
    loss = cnn()._loss(logits, torch.full((2,), float("nan")))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("task", ["abnormal", "findings"])
def test_labels_are_smoothed_in_training_alone_and_what_is_unknown_stays_so(task: str) -> None:
    model, nan = cnn(task=task, label_smoothing=0.2), float("nan")
    logits = torch.randn(3, model.outputs, requires_grad=True)
    target = torch.tensor([1.0, nan, 0])[:, None].expand(-1, 15).clone()
    smooth = torch.tensor([0.9, 0.1])[:, None].expand(-1, 15)
    expected = F.binary_cross_entropy_with_logits(logits[[0, 2]], smooth) if task == "findings" else None
    if task == "abnormal":
        target, odds = target[:, 0], (logits[:, 1] - logits[:, 0])[[0, 2]]
        expected = F.binary_cross_entropy_with_logits(odds, smooth[:, 0])
    model.logits, model._mean_of_processes = lambda _: logits, lambda weight: weight
    loss = model.training_step({"target": target}, 0)
    assert torch.isclose(loss, expected)
    loss.backward()
    assert (logits.grad[1] == 0).all()
    assert torch.equal(model._loss(logits, target), cnn(task=task)._loss(logits, target))
    with pytest.raises(InputError, match=r"model\.label_smoothing=1"):
        cnn(label_smoothing=1)


def test_class_weights_weigh_as_torchs_cross_entropy_does() -> None:
    logits, target = torch.randn(8, 2), torch.tensor([0.0, 1, 1, 0, 1, 1, 1, 1])
    expected = F.cross_entropy(logits, target.long(), weight=torch.tensor([3.0, 0.5]))
    assert torch.isclose(cnn(class_weights=[3.0, 0.5])._loss(logits, target), expected)


@pytest.mark.parametrize("weights", ["balance", [1.0], [1.0, -2.0]])
def test_class_weights_that_are_none_are_refused(weights) -> None:
    with pytest.raises(InputError, match=r"model\.class_weights"):
        cnn(class_weights=weights)


# A convolutional network, a transformer with a class token, one with channels last.
@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 64), ("vit_tiny_patch16_224", 224), ("swin_tiny_patch4_window7_224", 224)]
)
def test_timm_backbones_give_channels_first_maps_of_one_grey_channel(name: str, side: int) -> None:
    backbone = TimmBackbone(name)
    features = backbone(torch.rand(1, 1, side, side))
    assert features.shape[:2] == (1, backbone.channels)
    assert features.ndim == 4
    model = CNNLSTM(backbone, hidden=8, dropout=0.0, layers=1, width=8, learning_rate=1e-3)
    assert model(torch.rand(1, 1, side, side), ones(1)).shape == (1, 2)


def test_a_transformers_patches_stay_where_they_are_in_the_image() -> None:
    backbone = TimmBackbone("vit_tiny_patch16_224").eval()
    tokens = []
    backbone.network.norm.register_forward_hook(lambda _, __, output: tokens.append(output))
    features = backbone(torch.rand(1, 1, 224, 224))
    assert torch.equal(features[0, :, 2, 5], tokens[0][0, 1 + 2 * 14 + 5])


# A mixer, a pyramid, and a transformer without a fixed grid: rows of tokens that nothing but their number explains.
@pytest.mark.parametrize(
    ("name", "side", "grid"),
    [
        ("mixer_s32_224", 224, (7, 7)),
        ("levit_128s", 224, (4, 4)),
        ("xcit_nano_12_p16_224", 224, (14, 14)),
        ("xcit_nano_12_p16_224", 96, (6, 6)),
    ],
)
def test_a_row_of_tokens_becomes_a_square_map(name: str, side: int, grid: tuple[int, int]) -> None:
    backbone = TimmBackbone(name).eval()
    image = torch.rand(2, 1, side, side)
    features = backbone(image)
    assert features.shape == (2, backbone.channels, *grid)
    tokens = backbone.network.forward_features((image - backbone.mean) / backbone.deviation)
    assert torch.allclose(features.flatten(2).mT, tokens[:, -grid[0] * grid[1] :], atol=1e-5)


# A class token that timm does not count, several scales, and one token for all patches.
@pytest.mark.parametrize("name", ["volo_d1_224", "crossvit_tiny_240", "pit_ti_224"])
def test_features_that_are_no_map_are_refused_by_the_models_name(name: str) -> None:
    backbone = TimmBackbone(name).eval()
    side = backbone.network.pretrained_cfg["input_size"][1]
    with pytest.raises(InputError, match=rf"model\.backbone\.name={name}: its features are no map"):
        backbone(torch.rand(1, 1, side, side))


def test_an_oblong_image_is_never_taken_for_a_square_one() -> None:
    with pytest.raises(InputError, match="no map"):
        TimmBackbone("xcit_nano_12_p16_224").eval()(torch.rand(1, 1, 64, 256))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "levit_128s"])
def test_images_of_a_size_that_a_model_was_not_made_for_are_refused(name: str) -> None:
    expected = rf"model\.backbone\.name={name}: made for images of 224 x 224.* 96 x 96; set data\.image_size=224"
    with pytest.raises(InputError, match=expected):
        TimmBackbone(name).eval()(torch.rand(1, 1, 96, 96))


def test_a_failure_that_is_not_the_sizes_keeps_its_own_message(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = TimmBackbone("xcit_nano_12_p16_224")

    def fail(_: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(backbone.network, "forward_features", fail)
    with pytest.raises(torch.OutOfMemoryError):
        backbone(torch.rand(1, 1, 96, 96))


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_timm_backbone_is_exported_with_its_map(strict: bool) -> None:
    backbone, image = TimmBackbone("mixer_s32_224").eval(), torch.rand(2, 1, 224, 224)
    backbone.network.blocks = backbone.network.blocks[:1]  # all are alike, and each takes its time
    batch = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(backbone, (image,), dynamic_shapes=batch, strict=strict).module()
    more = torch.rand(3, 1, 224, 224)
    assert torch.allclose(program(more), backbone(more), atol=1e-4)


def test_a_missing_weights_file_and_an_unknown_name_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"model.backbone.weights=nowhere.pth"):
        TimmBackbone("resnet18", weights="nowhere.pth")
    with pytest.raises(InputError, match=r"resnet81: timm knows no such model; did you mean: .*resnet"):
        TimmBackbone("resnet81")


def test_pretrained_weights_without_network_fail_at_once_and_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"the hub cannot be reached.*model.backbone.weights=FILE"):
        TimmBackbone("resnet18", pretrained=True)


def _hub_with(monkeypatch: pytest.MonkeyPatch, *files: str, status: int = 404) -> None:
    """A hub that answers for these files, and with `status` for any other."""

    def answer(url: str, **_: object) -> None:
        if not url.endswith(files or "/"):
            response = SimpleNamespace(status_code=status, headers={}, request=None)
            kind = RemoteEntryNotFoundError if status == 404 else HfHubHTTPError
            raise kind(f"{status}", response=response)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)


def test_weights_that_the_hub_has_in_torchs_own_format_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("model.safetensors", "pytorch_model.bin"):
        _hub_with(monkeypatch, file)
        require_hub("resnet18")


@pytest.mark.parametrize(("status", "told"), [(404, "the hub was reached, but gives no"), (503, "cannot be reached")])
def test_a_hub_without_the_file_is_told_from_one_that_does_not_answer(
    status: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hub_with(monkeypatch, status=status)
    with pytest.raises(InputError, match=rf"{told}.*model.backbone.weights=FILE"):
        TimmBackbone("resnet18", pretrained=True)


def test_compute_precision_of_the_loss_is_fp32() -> None:
    loss = cnn()._loss(torch.randn(4, 2, dtype=torch.bfloat16), torch.tensor([0.0, 1, 0, 1]))
    assert loss.dtype == torch.float32


def test_findings_have_a_logit_each_and_their_loss_masks_what_is_unknown() -> None:
    model = cnn_lstm(task="findings")
    logits = model(torch.rand(4, 1, 32, 32), ones(4))
    assert logits.shape == (4, 15)
    target = torch.full((4, 15), float("nan"))
    target[:, 14] = torch.tensor([0.0, 1, 1, 0])
    target[0, 3] = 1.0
    known = torch.cat([logits[:, 14], logits[:1, 3]])
    labels = torch.tensor([0.0, 1, 1, 0, 1])
    assert torch.isclose(model._loss(logits, target), F.binary_cross_entropy_with_logits(known, labels))


def test_a_finding_without_both_classes_or_with_a_logit_that_is_no_number_is_nan() -> None:
    nothing = measure(torch.tensor([0.0, 0, float("nan")]), torch.zeros(3))
    assert all(value.isnan() for value in nothing.values())
    diverged = measure(torch.tensor([0.0, 1]), torch.tensor([-1.0, float("nan")]))
    assert all(value.isnan() for value in diverged.values())
    never = measure(torch.tensor([0.0, 1]), torch.tensor([-2.0, -1]))
    assert never["precision"].isnan()
    assert never["recall"] == 0
    some = measure(torch.tensor([0.0, 1, float("nan")]), torch.tensor([-1.0, 2, 0]))
    assert some["auroc"] == some["accuracy"] == 1


@pytest.mark.parametrize(
    ("side", "build"), [(15, lambda: ConvBackbone([2] * 4)), (64, lambda: TimmBackbone("inception_v3"))]
)
def test_images_too_small_for_a_backbone_are_refused_in_a_sentence(side: int, build: Callable[[], nn.Module]) -> None:
    backbone = build()
    with pytest.raises(InputError, match=f"data.image_size={side}: model.backbone takes no images"):
        require_size(backbone, side)
    assert backbone.training


def test_images_that_all_are_surely_abnormal_are_ranked_while_training() -> None:
    logit, target = torch.tensor([17.0, 18, 30, 40, -20, -30]), torch.tensor([0.0, 1, 0, 1, 1, 0])
    values = measure(target, logit)
    assert values["auroc"] == pytest.approx(roc_auc_score(target, logit))
    assert values["accuracy"] == 0.5


def test_class_weights_for_findings_and_an_unknown_task_are_refused() -> None:
    with pytest.raises(InputError, match=r"model\.class_weights=balanced"):
        cnn(task="findings", class_weights="balanced")
    with pytest.raises(InputError, match="task=everything: one of abnormal, findings"):
        cnn(task="everything")
