"""Weights of others become the whole of a backbone, on the pixel values that they expect, or are refused unopened."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from lungdet.errors import InputError
from lungdet.models.backbone import TimmBackbone
from lungdet.models.origins import ORIGINS, imagenet

SMALL = "test_resnet"  # a network of timm's own tests


@pytest.fixture(scope="module")
def rgb() -> nn.Module:
    """As timm publishes it: three channels and a classifier; running statistics as training leaves them."""
    network = timm.create_model(SMALL, num_classes=7).eval()
    return shaken(network)


def shaken(network: nn.Module) -> nn.Module:
    """The network with batch norms that are no identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in ((module.running_mean, -0.2), (module.running_var, 0.5), (module.weight, 0.5)):
                nn.init.uniform_(value, low, low + 0.5)
    return network


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """Torchxrayvision's DenseNet-121, which is torchvision's with one channel and 18 findings."""
    network = torchvision.models.densenet121(num_classes=18)
    network.features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return shaken(network).eval()


@pytest.mark.parametrize(
    "save",
    [
        lambda weights, folder: save_file(weights, folder / "weights.safetensors"),
        lambda weights, folder: torch.save(weights, folder / "weights.pth"),
        lambda weights, folder: torch.save({"epoch": 3, "state_dict": weights}, folder / "weights.tar"),
        lambda weights, folder: torch.save(
            {name: value for name, value in weights.items() if not name.startswith("fc.")}, folder / "weights.bin"
        ),
    ],
)
def test_weights_come_from_a_local_file_and_images_are_scaled_as_they_expect(
    save: Callable[[dict[str, Tensor], Path], None], rgb: nn.Module, tmp_path: Path
) -> None:
    save(rgb.state_dict(), tmp_path)
    [file] = tmp_path.iterdir()
    backbone, grey = TimmBackbone(SMALL, weights=str(file)).eval(), torch.rand(1, 1, 64, 64)
    # Summed over three equal channels, which is what loading into one channel amounts to.
    scaled = ((grey - 0.5) / 0.5).expand(-1, 3, -1, -1)
    assert torch.allclose(backbone(grey), rgb.forward_features(scaled), atol=1e-3)
    assert backbone.state_dict().keys() == TimmBackbone(SMALL).state_dict().keys()


def test_torchxrayvisions_weights_give_the_maps_that_they_give_there(theirs: nn.Module, tmp_path: Path) -> None:
    torch.save(theirs.state_dict() | {"op_threshs": torch.rand(18)}, tmp_path / "nih.pth")
    options = {"weights": str(tmp_path / "nih.pth"), "origin": "densenet121-res224-nih"}
    backbone, image = TimmBackbone("densenet121", **options).eval(), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = theirs.features((2 * image - 1) * 1024).relu()
        assert torch.allclose(backbone(image), expected, rtol=1e-4, atol=1e-3)


def test_what_weights_expect_is_known_where_they_come_from_a_checkpoint_of_ours() -> None:
    image = torch.tensor([0.0, 1.0])
    backbone = TimmBackbone(SMALL, origin="densenet121-res224-all")
    assert ((image - backbone.mean) / backbone.deviation).tolist() == pytest.approx(
        ORIGINS["densenet121-res224-all"].range
    )


def test_one_channel_tells_nothing_of_the_values_it_expects(tmp_path: Path) -> None:
    own = timm.create_model(SMALL, in_chans=1)
    torch.save(own.state_dict(), tmp_path / "grey.pth")
    with pytest.raises(InputError, match=r"grey\.pth: its first layer takes one channel.*model\.backbone\.origin=NAME"):
        TimmBackbone(SMALL, weights=str(tmp_path / "grey.pth"))
    backbone = TimmBackbone(SMALL, weights=str(tmp_path / "grey.pth"), origin="imagenet")
    assert torch.equal(backbone.network.conv1[0].weight, own.conv1[0].weight)
    assert backbone.mean == TimmBackbone(SMALL).mean
    with pytest.raises(InputError, match=r"model\.backbone\.origin=nih: known are imagenet, densenet121-res224-all,"):
        TimmBackbone(SMALL, origin="nih")


@pytest.mark.parametrize(
    "weights",
    [
        lambda own: {f"encoder.{name}": value for name, value in own.items()},
        lambda own: {name: value for name, value in own.items() if not name.startswith("layer4.")},
        lambda own: own | {"conv1.0.weight": torch.rand(5, 3, 3, 3)},
    ],
)
def test_weights_of_another_network_are_refused_and_none_is_left_at_random(
    weights: Callable[[dict[str, Tensor]], dict[str, Tensor]], rgb: nn.Module, tmp_path: Path
) -> None:
    torch.save(weights(rgb.state_dict()), tmp_path / "other.pth")
    with pytest.raises(InputError, match=rf"other\.pth: not the weights of model\.backbone\.name={SMALL} \("):
        TimmBackbone(SMALL, weights=str(tmp_path / "other.pth"))


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(("archive", "objects"), [(True, r"\w+\.mkdir"), (False, "in the format of torch before 1.6")])
def test_a_file_that_needs_unpickling_is_left_closed_and_the_message_says_what_to_do(
    archive: bool, objects: str, tmp_path: Path
) -> None:
    torch.save(Trap(tmp_path / "ran"), tmp_path / "module.pt", _use_new_zipfile_serialization=archive)
    with pytest.raises(InputError, match=rf"module\.pt: it holds Python objects \({objects}\).*state_dict\(\)"):
        TimmBackbone(SMALL, weights=str(tmp_path / "module.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 broken"])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_that_is_none_is_refused_by_name(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.backbone\.weights=.*{name}: no weights can be read from it"):
        TimmBackbone(SMALL, weights=str(tmp_path / name))


def test_other_things_than_weights_by_name_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "facts.pth")
    with pytest.raises(InputError, match=r"facts\.pth: it holds no weights by name"):
        TimmBackbone(SMALL, weights=str(tmp_path / "facts.pth"))


@pytest.mark.parametrize(
    ("tag", "alone"),
    [
        *[(tag, True) for tag in ("a1_in1k", "augreg_in21k_ft_in1k", "in12k_ft_in1k_384", "tv_in1k")],
        *[(tag, False) for tag in ("openai_ft_in1k", "laion2b_ft_in12k_in1k", "ns_jft_in1k", "lvd142m", "")],
    ],
)
def test_timms_tags_tell_whether_weights_have_seen_imagenet_alone(tag: str, alone: bool) -> None:
    assert imagenet(tag) is alone
