"""Batches made on the device are those that workers make: same images up to interpolation, same order, same epochs."""

import dataclasses
import logging
import multiprocessing
from pathlib import Path

import cv2
import lightning
import numpy as np
import pytest
import torch

from lungdet.data.augment import Augmentation
from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.phantoms.cohort import Knobs
from lungdet.data.serving import device as on_device
from lungdet.data.serving.batches import Batches
from lungdet.data.serving.device import Warps, choose, load, warp
from lungdet.data.serving.loading import InOrder, Radiographs
from lungdet.data.sources.phantom import PhantomDataModule
from lungdet.errors import InputError
from tests.albumented import augmented, pipeline
from tests.data.serving.patients import manifest

CPU = torch.device("cpu")
PAPER = {"rotation": 10, "flip": 0.5, "zoom": 0.1, "shift": 0.05}
STRONG = {"rotation": 90, "flip": 0.5, "zoom": 0.3, "shift": 0.2}
GREYS = {"brightness": 0.2, "contrast": 0.2, "gamma": 0.2, "erasing": 0.5}
FAR = {"rotation": 180, "flip": 0.5, "zoom": 0.9, "shift": 1.0}  # several images beyond the edge
BORDERS = {"reflect": "reflect", "replicate": "edge", "constant": "constant"}  # and numpy's names of them
KINDS = [PAPER, STRONG, {"flip": 0.5}, {"rotation": 30}, {"zoom": 0.3}, {"shift": 0.2}, {"flip": 1.0, "shift": 0.1}]
MANIFEST = manifest(24, visits=3)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth, with edges and fine grain, wider than high."""
    generator = np.random.default_rng(0)
    pixels = np.empty((24, 96, 112), np.uint8)
    for image in pixels:
        coarse = cv2.resize(generator.uniform(0, 220, (7, 8)), (112, 96), interpolation=cv2.INTER_CUBIC)
        cv2.ellipse(coarse, (40, 50), (18, 30), 0, 0, 360, 60, -1)
        image[:] = (coarse + generator.normal(0, 3, coarse.shape)).clip(20, 255)
    path = tmp_path_factory.mktemp("store") / "images.npy"
    np.save(path, pixels)
    return path


def epoch_of(
    images: Path,
    place: str,
    *,
    workers: int = 0,
    epoch: int = 0,
    visits: int = 1,
    world_size: int = 1,
    kinds: dict = STRONG,
) -> list:
    """The batches of an epoch, made by workers or on the device."""
    batches = []
    for rank in range(world_size):
        order = InOrder(np.arange(24), 4, shuffle=True, rank=rank, world_size=world_size)
        order.set_epoch(epoch)
        kind = Warps if place == "device" else Radiographs
        data = kind(images, MANIFEST, ["abnormal"], visits, Augmentation(**kinds))
        batches += Batches(data, order, workers, images=load(images, CPU) if place == "device" else None)
    return batches


def by_row(batches: list) -> dict[int, torch.Tensor]:
    return {row: image for batch in batches for row, image in zip(batch["row"].tolist(), batch["image"], strict=True)}


def interior(changed: np.ndarray) -> np.ndarray:
    """Pixels that are neither beyond the image's edge nor near it, which holds no grey below 20."""
    return np.stack([cv2.erode((image > 5).astype(np.uint8), np.ones((7, 7))) > 0 for image in changed])


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_matrices_are_the_ones_that_albumentations_draws(kinds: dict[str, float]) -> None:
    augmentation, by = Augmentation(**kinds), pipeline(**kinds)
    names = [f"0/{epoch}/d/{i}/0" for epoch in range(3) for i in range(40)]
    applied = []

    def spy(draw: str) -> np.ndarray:
        augmented(by, np.zeros((96, 112), np.uint8), draw)
        steps = {type(step).__name__: step.params for step in by.transforms}
        affine = steps["Affine"]["matrix"] if "Affine" in steps else np.eye(3)
        flipped = bool(steps.get("HorizontalFlip"))
        applied.append(flipped)
        mirror = np.array([[-1, 0, 111], [0, 1, 0], [0, 0, 1.0]])
        return np.linalg.inv((mirror if flipped else np.eye(3)) @ affine)[:2]

    expected = np.stack([spy(name) for name in names])
    matrices = augmentation.matrices(names, 96, 112)
    assert matrices.shape == (120, 2, 3)
    assert matrices.dtype == np.float32
    np.testing.assert_allclose(matrices, expected, rtol=0, atol=2e-5)
    if kinds.get("flip") == 0.5:
        assert 30 < sum(applied) < 90


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kinds", [*KINDS, FAR, {**PAPER, "crop": 0.5}], ids=str)
def test_images_are_albumentations_up_to_interpolation(images: Path, kinds: dict[str, float], border: str) -> None:
    pixels, augmentation = np.load(images), Augmentation(**kinds, border=border)
    names = [f"0/0/d/{i}/0" for i in range(24)]
    expected = np.stack(list(augmentation(pixels, names, *pixels.shape[1:])))
    matrices = torch.from_numpy(augmentation.matrices(names, *pixels.shape[1:]))
    warped = warp(torch.from_numpy(pixels)[:, None].float(), matrices, border)[:, 0].round().numpy()
    difference = np.abs(warped - expected)
    if border == "constant":  # where an image ends in black, a hair of a pixel is worth many greys
        difference = difference[interior(expected)]
        assert difference.size > pixels.size / (100 if kinds == FAR else 3)
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.999) < 3
    assert np.abs(warped - expected).mean() < 0.6  # edges included


@pytest.mark.parametrize(("border", "padding"), BORDERS.items())
def test_a_shift_by_whole_pixels_moves_them_and_brings_in_the_border(images: Path, border: str, padding: str) -> None:
    pixels = np.load(images)[:3]
    padded = np.pad(pixels, [(0, 0), (400, 400), (400, 400)], padding)
    moved = torch.tensor([[[1.0, 0, 5], [0, 1, -3]], [[1, 0, -290], [0, 1, 250]], [[-1, 0, 111], [0, 1, 0]]])
    warped = warp(torch.from_numpy(pixels)[:, None].float(), moved, border)[:, 0].numpy()
    expected = [padded[0, 397:493, 405:517], padded[1, 650:746, 110:222], pixels[2, :, ::-1]]
    np.testing.assert_allclose(warped, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "kinds",
    [*({**STRONG, "border": border} for border in BORDERS), {**STRONG, **GREYS, "crop": 0.3}, {"flip": 0.5, **GREYS}],
    ids=str,
)
def test_batches_are_the_workers_with_series_too(images: Path, kinds: dict) -> None:
    device, workers = (epoch_of(images, place, visits=3, kinds=kinds) for place in ("device", "workers"))
    for ours, theirs in zip(device, workers, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - {"image"}:
            assert torch.equal(ours[name], theirs[name]), name
            assert ours[name].dtype == theirs[name].dtype
        assert (ours["image"].shape, ours["image"].dtype) == (theirs["image"].shape, theirs["image"].dtype)
        assert (ours["image"] - theirs["image"]).abs().mean() < (0.6 / 255 if "zoom" in kinds else 1e-9)


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_without_augmentation_images_are_the_stores_to_the_last_bit(images: Path, augmentation) -> None:
    order = InOrder(np.arange(24), 5, shuffle=False)
    data = Warps(images, MANIFEST, ["abnormal"], 1, augmentation)
    served = torch.cat([batch["image"] for batch in Batches(data, order, images=load(images, CPU))])
    assert torch.equal(served, torch.from_numpy(np.load(images))[:, None].float() / 255)


def test_neither_workers_nor_ranks_change_an_image(images: Path) -> None:
    alone = by_row(epoch_of(images, "device", epoch=2))
    for other in (
        by_row(epoch_of(images, "device", epoch=2, workers=2)),
        by_row(epoch_of(images, "device", epoch=2, world_size=2)),
    ):
        assert alone.keys() == other.keys()
        assert all(torch.equal(alone[row], other[row]) for row in alone)
    assert not any(torch.equal(image, alone[row]) for row, image in by_row(epoch_of(images, "device", epoch=3)).items())


def test_the_store_is_loaded_in_pieces_whole(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "_PIECE", 5 * 96 * 112)
    assert np.array_equal(load(images, CPU).numpy(), np.load(images))


def test_auto_takes_a_gpu_with_room_and_nothing_else(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, size = torch.device("cuda", 0), images.stat().st_size
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (4 * size, 100 * size))
    assert choose("auto", images, gpu)[0] == gpu
    assert choose("workers", images, gpu)[0] is None
    assert choose("device", images, CPU)[0] == CPU
    assert choose("auto", images, CPU) == (None, "the trainer's device is cpu, no CUDA GPU")
    assert choose("auto", images, None)[0] is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (4 * size - 1, 100 * size))
    chosen, why = choose("auto", images, gpu)
    assert chosen is None
    assert "more than a quarter" in why


class Tiny(lightning.LightningModule):
    """Records what it meets."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.met: dict[str, list] = {}

    def step(self, stage: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.met.setdefault(f"{stage}{self.current_epoch}", []).extend(batch["row"].tolist())
        self.met.setdefault("children", []).append({child.pid for child in multiprocessing.active_children()})
        return self.layer(batch["image"].mean((1, 2, 3))[:, None]).square().mean()

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        return self.step("train", batch)

    def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
        self.step("val", batch)

    def test_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.step("test", batch)

    def predict_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
        self.step("predict", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def phantom(folder: Path, **keys) -> RadiographDataModule:
    few = {"chestxray14": 30, "montgomery": 12, "shenzhen": 12}
    knobs = dataclasses.asdict(Knobs(patients=few, size=64))
    knobs["phantom_seed"] = knobs.pop("seed")
    return PhantomDataModule(folder / "phantom", **knobs, image_size=32, store=folder / "store", batch_size=8, **keys)


def cpu_trainer(root: Path) -> lightning.Trainer:
    quiet = {"default_root_dir": root, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, enable_checkpointing=False, **quiet
    )


def test_lightning_fits_and_evaluates_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lungdet")
    met = {}
    for place in ("workers", "device"):
        data = phantom(tmp_path, loader=place, num_workers=1, augmentation=Augmentation(**PAPER))
        model, trainer = Tiny(), cpu_trainer(tmp_path)
        trainer.fit(model, data)
        assert (trainer.train_dataloader._images is not None) == (place == "device")
        first, *others = model.met.pop("children")
        assert all(first <= later for later in others)  # the training loader's worker is kept
        trainer.validate(model, datamodule=data, verbose=False)
        trainer.test(model, datamodule=data, verbose=False)
        trainer.predict(model, data.loader(data.train_sample(), training=False), return_predictions=False)
        model.met.pop("children")
        met[place] = model.met
        assert caplog.text.count(f"data.loader={place}") == 1
    assert met["device"] == met["workers"]
    train = [met["device"][f"train{epoch}"] for epoch in (0, 1)]
    assert sorted(train[0]) == sorted(train[1])
    assert train[0] != train[1]
    assert met["device"]["test2"] == data.rows("test").tolist()


def test_degraded_images_are_made_by_workers_and_a_cpu_trainer_by_default_too(tmp_path: Path) -> None:
    data = phantom(tmp_path, loader="device", num_workers=0)
    data.setup()
    rows = data.rows("test")
    assert data.loader(rows, training=False)._images is not None
    assert data.loader(rows, training=False)._images is data.loader(rows, training=True)._images
    assert data.loader(rows, training=False, degradation=lambda images, _: images)._images is None
    data = phantom(tmp_path, num_workers=0)
    data.setup()
    assert data.loader(rows, training=False)._images is None
    data.trainer = cpu_trainer(tmp_path)
    assert data.loader(rows, training=False)._images is None


def test_another_loader_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.loader=gpu: one of auto, device, workers"):
        phantom(tmp_path, loader="gpu")
