"""Models that read series of visits: causal, every image once, order known or destroyed; controls that match."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from lungdet.data.serving.batches import Batches
from lungdet.data.serving.loading import InOrder, Radiographs
from lungdet.errors import InputError
from lungdet.models.backbone import ConvBackbone, TimmBackbone
from lungdet.models.classifier import Classifier
from lungdet.models.cnn import CNN
from lungdet.models.cnn_lstm import CNNLSTM
from lungdet.models.cnn_mlp import CNNMLP
from lungdet.models.length_only import LengthOnly
from lungdet.models.pool import Pool
from lungdet.models.sequence import GAPS, Pooling, Steps

WIDTHS = (8, 16)
VISITS = 6
HEAD = {"hidden": 16, "dropout": 0.0, "learning_rate": 1e-3}
LSTM = {"layers": 2, "width": 24}
SEQUENCES = ("rows", "columns", "patches", "visits")

MODELS = {
    "cnn": lambda **o: CNN(ConvBackbone(WIDTHS), **HEAD | o),
    "cnn_lstm": lambda **o: CNNLSTM(ConvBackbone(WIDTHS), **HEAD | LSTM | o),
    "cnn_lstm mean": lambda **o: CNNLSTM(ConvBackbone(WIDTHS), pooling="mean", **HEAD | LSTM | o),
    "cnn_lstm attention": lambda **o: CNNLSTM(ConvBackbone(WIDTHS), pooling="attention", **HEAD | LSTM | o),
    "cnn_lstm shuffled": lambda **o: CNNLSTM(ConvBackbone(WIDTHS), shuffle=True, **HEAD | LSTM | o),
    "cnn_mlp": lambda **o: CNNMLP(ConvBackbone(WIDTHS), **HEAD | LSTM | o),
    "pool": lambda **o: Pool(ConvBackbone(WIDTHS), **HEAD | o),
    "pool attention": lambda **o: Pool(ConvBackbone(WIDTHS), pooling="attention", **HEAD | o),
    "length_only": lambda **o: LengthOnly(None, **HEAD | o),
}

EXPORTED = [("cnn", "visits"), ("cnn_lstm", "visits"), ("cnn_lstm shuffled", "columns"), ("cnn_mlp", "rows"),
            ("pool attention", "patches"), ("length_only", "visits")]  # fmt: skip
"""Each kind of head and of sequence once; all of them take half a minute, with `make test-slow`."""


def made(name: str, **options) -> Classifier:
    torch.manual_seed(0)
    return MODELS[name](**{"sequence": "visits", "visits": VISITS} | options).eval()


def series(*lengths: int, size: int = 32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, lengths, ages and visits, and case numbers of so many series."""
    torch.manual_seed(1)
    images = sum(lengths)
    visit = torch.cat([torch.arange(length) for length in lengths]).float()
    when = torch.stack([50 + visit // 2, visit], dim=1)
    return torch.rand(images, 1, size, size), torch.tensor(lengths), when, torch.arange(len(lengths)) + 7


@pytest.mark.parametrize("gap", [None, *GAPS])
@pytest.mark.parametrize("name", ["cnn_lstm", "cnn_lstm mean", "cnn_lstm attention", "cnn_mlp", "pool attention"])
def test_a_case_is_told_alike_beside_longer_and_shorter_ones(name: str, gap: str | None) -> None:
    model = made(name, gap=gap)
    image, length, when, case = series(3, 6, 1, 2)
    together = model(image, length, when, case)
    starts = length.cumsum(0) - length
    for i, (start, n) in enumerate(zip(starts.tolist(), length.tolist(), strict=True)):
        some = slice(start, start + n)
        alone = model(image[some], length[i : i + 1], when[some], case[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_no_prediction_depends_on_a_later_image_from_the_store_to_the_logits(name: str, tmp_path: Path) -> None:
    """A patient's five visits as five cases of one batch: the last image is changed, then it is not there."""
    manifest = pd.DataFrame(
        {"image_id": [*"abcde"], "patient_id": "p", "visit": range(5), "age": 50.0, "abnormal": [0, 1, 0, 1, 0]}
    )
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    changed = pixels.copy()
    changed[4] = 255 - changed[4]
    model = made(name, gap="visit")

    def told(images: np.ndarray) -> Tensor:
        np.save(tmp_path / "images.npy", images)
        data = Radiographs(tmp_path / "images.npy", manifest[: len(images)], ["abnormal"], visits=VISITS)
        (batch,) = Batches(data, InOrder(np.arange(len(images)), len(images), shuffle=False))
        return model.logits(batch)

    before, after, without = told(pixels), told(changed), told(pixels[:4])
    assert torch.equal(before[:4], after[:4])
    assert torch.allclose(before[:4], without, atol=1e-6)
    assert name == "length_only" or not torch.equal(before[4], after[4])


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("length_only", "cnn")])
def test_earlier_images_matter_to_what_reads_visits(name: str) -> None:
    model = made(name)
    image, length, when, case = series(3, 4)
    before = model(image, length, when, case)
    image[0] = 0
    after = model(image, length, when, case)
    assert not torch.allclose(before[0], after[0], atol=1e-6)
    assert torch.allclose(before[1], after[1], atol=1e-6)


def test_the_cnn_looks_at_the_last_image_of_a_series_alone() -> None:
    model = made("cnn")
    image, length, *_ = series(3, 4)
    before = model(image, length)
    image[[0, 1, 3, 4, 5]] = 0
    assert torch.equal(before, model(image, length))


@pytest.mark.parametrize("name", ["cnn_lstm", "cnn_lstm mean"])
def test_order_matters_to_the_lstm_and_not_to_its_shuffled_self_or_the_controls(name: str) -> None:
    image, length, when, _ = series(5)
    reversed_earlier = torch.cat([image[:4].flip(0), image[4:]])
    read = made(name)
    assert not torch.allclose(read(20 * image, length), read(20 * reversed_earlier, length), atol=1e-5)
    for control in ("cnn_mlp", "pool", "pool attention", "length_only"):
        model = made(control)
        assert torch.allclose(model(image, length, when), model(reversed_earlier, length, when), atol=1e-6)


def test_a_shuffled_series_keeps_its_last_image_and_its_draw_is_the_cases() -> None:
    steps = Steps(1, "visits", 5, None, shuffle=True)
    features = torch.arange(5.0).reshape(5, 1, 1, 1)
    orders = set()
    for case in range(400):
        order = tuple(steps(features, torch.tensor([5]), None, torch.tensor([case]))[0].flatten().tolist())
        assert order == tuple(steps(features, torch.tensor([5]), None, torch.tensor([case]))[0].flatten().tolist())
        assert order[-1] == 4
        assert set(order) == {0, 1, 2, 3, 4}
        orders.add(order)
    assert len(orders) == 24  # every order of four
    padded, _ = steps(features, torch.tensor([2, 3]), None, torch.tensor([3, 3]))
    assert padded[0].flatten().tolist() == [0, 1, 0, 0, 0]
    assert padded[1, 2:].flatten().tolist() == [4, 0, 0]


def test_of_a_map_all_steps_are_shuffled_each_image_its_own_way() -> None:
    steps = Steps(1, "rows", 1, None, shuffle=True)
    features = torch.arange(6.0).reshape(1, 1, 6, 1).expand(300, 1, 6, 1)
    found, _ = steps(features, torch.ones(300, dtype=torch.long), None, torch.arange(300))
    assert len({tuple(order.tolist()) for order in found[..., 0]}) > 200
    share = (found[..., 0] == torch.arange(6)).float().mean(0)
    assert ((share - 1 / 6).abs() < 0.08).all()  # no step has a place of its own


def test_gaps_are_years_or_visits_since_the_image_before_and_unknown_ones_say_so() -> None:
    steps = Steps(1, "visits", 3, "age")
    when = torch.tensor([[50.0, 0], [53, 4], [float("nan"), 6], [61, 0], [61, 1]])
    found, _ = steps(torch.zeros(5, 1, 1, 1), torch.tensor([3, 2]), when)
    assert torch.allclose(found[0, :, 1].expm1(), torch.tensor([0.0, 3, 0]))
    assert found[0, :, 2].tolist() == [1, 1, 0]
    assert torch.allclose(found[1, :, 1].expm1(), torch.tensor([0.0, 0, 0]))
    assert found[1, :, 2].tolist() == [1, 1, 0]  # the last is padding
    by_visit, _ = Steps(1, "visits", 3, "visit")(torch.zeros(5, 1, 1, 1), torch.tensor([3, 2]), when)
    assert torch.allclose(by_visit[0, :, 1].expm1(), torch.tensor([0.0, 4, 2]))


def test_gaps_stay_where_they_are_when_a_series_is_shuffled() -> None:
    _, length, when, case = series(5)
    when[:, 1] = torch.tensor([0.0, 1, 5, 6, 20])
    features = torch.rand(5, 1, 1, 1)
    plain, _ = Steps(1, "visits", 5, "visit")(features, length, when, case)
    shuffled, _ = Steps(1, "visits", 5, "visit", shuffle=True)(features, length, when, case)
    assert torch.equal(plain[..., 1:], shuffled[..., 1:])
    assert not torch.equal(plain[..., 0], shuffled[..., 0])


def test_poolings_leave_padding_out() -> None:
    steps = torch.tensor([[[1.0], [3.0], [100.0]]])
    count = torch.tensor([2])
    assert Pooling("last", 1)(steps, count).item() == 3
    assert Pooling("mean", 1)(steps, count).item() == 2
    attention = Pooling("attention", 1)
    with torch.no_grad():
        attention.score.weight.fill_(1.0)
    low, high = 1 / (1 + torch.e**2), torch.e**2 / (1 + torch.e**2)
    assert attention(steps, count).item() == pytest.approx(low * 1 + high * 3)


def test_a_map_is_read_both_ways_and_visits_never_are() -> None:
    model = made("cnn_lstm", sequence="rows", bidirectional=True)
    image, length = torch.rand(2, 1, 32, 32), torch.ones(2, dtype=torch.long)
    features = model.steps(model.backbone(image), length)[0]
    outputs, _ = model.lstm(features)
    ends = torch.cat([outputs[:, -1, :24], outputs[:, 0, 24:]], dim=1)
    assert torch.allclose(model(image, length), model.classify(ends), atol=1e-6)
    with pytest.raises(InputError, match=r"model\.bidirectional=true: a series of visits is read in time order"):
        made("cnn_lstm", bidirectional=True)


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_of_every_model_gets_a_gradient(name: str, sequence: str) -> None:
    model = made(name, sequence=sequence, gap="visit" if sequence == "visits" else None, task="findings").train()
    F.cross_entropy(model(*series(3, 1, 2)), torch.tensor([0, 1, 1])).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        pytest.param(name, sequence, marks=[] if (name, sequence) in EXPORTED else pytest.mark.slow)
        for name in MODELS
        for sequence in SEQUENCES
    ],
)
def test_forward_is_exported_for_any_number_of_cases_and_images(name: str, sequence: str) -> None:
    model = made(name, sequence=sequence)
    image, length, *_ = series(2, 3, 1, size=16)  # 16 patches, and each step takes its time
    sizes = ({0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC})
    program = torch.export.export(model, (image, length), dynamic_shapes=sizes).module()
    more, longer, *_ = series(1, 5, 2, 6, size=16)
    assert torch.allclose(program(more, longer), model(more, longer), atol=1e-6)


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_tells_what_fp32_tells(name: str, sequence: str) -> None:
    model = made(name, sequence=sequence)
    inputs = series(2, 3, 1)
    with Fabric(accelerator="cpu", precision="bf16-mixed").autocast():
        mixed = model(*inputs)
    assert mixed.dtype == torch.float32
    assert torch.allclose(mixed, model(*inputs), atol=0.02)


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_a_timm_backbone_gives_steps_too(sequence: str) -> None:
    model = CNNLSTM(TimmBackbone("resnet10t"), sequence=sequence, visits=3, **HEAD | LSTM).eval()
    assert model(*series(2, 3, size=64)).shape == (2, 2)


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("lstm", [LSTM, {"layers": 1, "width": 128}, {"layers": 2, "width": 128}])
def test_the_mlp_has_the_lstm_heads_parameters(lstm: dict[str, int], sequence: str) -> None:
    gap = "age" if sequence == "visits" else None
    options = {"sequence": sequence, "gap": gap, "visits": 4, **HEAD}
    one, other = CNNLSTM(ConvBackbone((32, 256)), **options, **lstm), CNNMLP(ConvBackbone((32, 256)), **options, **lstm)

    def head(model: Classifier) -> int:
        return sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.backbone.parameters())

    assert head(other) == pytest.approx(head(one), rel=0.02)


def test_the_length_control_sees_no_pixel() -> None:
    model = made("length_only")
    image, length, when, case = series(3, 4)
    assert torch.equal(model(image, length, when, case), model(torch.zeros_like(image), length, when, case))
    assert not torch.equal(*model(image, length, when, case))
    assert not hasattr(model.backbone, "parameters")


def test_a_frozen_lstm_stays_at_its_start_and_the_rest_learns() -> None:
    model = made("cnn_lstm", frozen=True).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    F.cross_entropy(model(*series(3, 2)), torch.tensor([0, 1])).backward()
    optimizer.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if not name.startswith("lstm")}


def test_a_frozen_backbone_is_left_alone_with_its_running_statistics() -> None:
    torch.manual_seed(0)
    backbone = ConvBackbone(WIDTHS, frozen=True)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = CNN(backbone, **HEAD)
    model.train()
    F.cross_entropy(
        model(torch.rand(4, 1, 32, 32), torch.ones(4, dtype=torch.long)), torch.tensor([0, 1, 0, 1])
    ).backward()
    torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert model.training


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"gap": "months"}, r"model\.gap=months: null, or with model\.sequence=visits one of age, visit"),
        ({"gap": "age", "sequence": "rows"}, r"model\.gap=age"),
        ({"pooling": "max"}, r"model\.pooling=max: one of last, mean, attention"),
        ({"sequence": "diagonals"}, r"model\.sequence=diagonals: one of rows, columns, patches, visits"),
    ],
)
def test_what_a_sequence_cannot_be_is_refused_by_name(options: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        MODELS["cnn_lstm"](**{"sequence": "visits", "visits": 2} | options)


def test_the_backbone_runs_once_over_all_images_of_a_batch() -> None:
    model, seen = made("cnn_lstm"), []
    model.backbone.register_forward_pre_hook(lambda _, images: seen.append(len(images[0])))
    model(*series(3, 1, 6))
    assert seen == [10]
