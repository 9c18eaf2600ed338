"""Rotation, flip, zoom, shift, and further kinds of augmentation: the only randomness that touches an image.

What is done to an image depends on (seed, epoch, image id, occurrence) and nothing else, so it is the same for any
number of workers, ranks and any order, and a run that is cut and resumed sees the images it would have seen.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lungdet.errors import InputError

if TYPE_CHECKING:
    from albumentations import BasicTransform

# albumentations asks the package index for a newer version when imported; the successor of this one is not free.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

BORDERS: dict[str, int] = {
    "reflect": cv2.BORDER_REFLECT_101,
    "replicate": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
}
"""What lies beyond an image's edge, by OpenCV's name: the image mirrored at its outermost pixels, which do not come
twice (albumentations' reflect_101); its outermost pixels, again and again; or black."""

_LARGEST = {"rotation": 180, "zoom": 0.99, "crop": 0.99, "gamma": 0.99}  # of the others 1


class Augmentation:
    """Each kind of augmentation a number; a number of 0 switches its kind off, and changes no draw of the others.

    The study's are rotation, flip, zoom and shift. All are albumentations', in this order: RandomResizedCrop, Affine,
    HorizontalFlip, RandomBrightnessContrast, RandomGamma, Erasing.

    Args:
        rotation: largest angle, degrees, to either side.
        flip: probability of a left-right flip. It puts the heart on the other side: 0 switches it off.
        zoom: largest relative change of size, either way: 0.1 draws from 0.9 .. 1.1.
        shift: largest shift, as a fraction of the image's side, in each direction.
        border: what rotation, zoom and shift bring in from beyond the image's edge, of `BORDERS`.
        crop: largest part of the image's area that is cut off: 0.3 leaves 0.7 .. 1 of it, a rectangle of sides 3:4 ..
            4:3, which is stretched to the whole (Szegedy et al. 2015, arXiv 1409.4842).
        brightness: largest change, either way, as a fraction of white, which all greys are raised by.
        contrast: largest relative change, either way: 0.2 multiplies all greys by 0.8 .. 1.2.
        gamma: largest change of the exponent, either way: 0.2 draws from 0.8 .. 1.2; below 1 the image is brighter.
        erasing: probability that a rectangle of 0.02 .. 0.33 of the area becomes one grey, which is drawn too (Zhong
            et al. 2020, arXiv 1708.04896).

    Raises:
        InputError: a value that makes no sense; the message names its key.
    """

    def __init__(
        self,
        rotation: float = 0.0,
        flip: float = 0.0,
        zoom: float = 0.0,
        shift: float = 0.0,
        border: str = "reflect",
        crop: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        gamma: float = 0.0,
        erasing: float = 0.0,
    ) -> None:
        amounts = {"rotation": rotation, "flip": flip, "zoom": zoom, "shift": shift, "crop": crop}
        amounts |= {"brightness": brightness, "contrast": contrast, "gamma": gamma, "erasing": erasing}
        for name, amount in amounts.items():
            largest = _LARGEST.get(name, 1)
            if not isinstance(amount, int | float) or not 0 <= amount <= largest:
                raise InputError(f"augment.{name}={amount}: a number from 0 to {largest} is needed")
        if border not in BORDERS:
            raise InputError(f"augment.border={border}: one of {', '.join(BORDERS)} is needed")
        self.border = border
        self._crop = self._affine = self._flip = self._contrast = self._gamma = self._erasing = None
        if not any(amounts.values()):
            return
        import albumentations  # two seconds: only when augmentation is asked for

        if crop:  # for its rectangle alone: the size that it would give the image is not ours to know yet
            self._crop = albumentations.RandomResizedCrop((1, 1), scale=(1 - crop, 1))
        if rotation or zoom or shift:
            self._affine = albumentations.Affine(
                rotate=(-rotation, rotation),
                scale=(1 - zoom, 1 + zoom),
                translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                keep_ratio=True,
                border_mode=BORDERS[border],
                p=1.0,
            )
        if flip:
            self._flip = albumentations.HorizontalFlip(p=flip)
        if brightness or contrast:
            self._contrast = albumentations.RandomBrightnessContrast(
                (-brightness, brightness), (-contrast, contrast), p=1.0
            )
        if gamma:
            self._gamma = albumentations.RandomGamma((100 * (1 - gamma), 100 * (1 + gamma)), p=1.0)
        if erasing:
            self._erasing = albumentations.Erasing(p=erasing)

    def __call__(
        self, images: Iterable[np.ndarray], draws: Sequence[str], height: int, width: int
    ) -> Iterator[np.ndarray]:
        """Augment `images` (height, width) uint8 one by one, each by the draw that its string names (see `draw`).

        To the last bit what albumentations' pipeline makes of each: draws, matrix and warp are its own, without what
        it does about boxes, masks and points, which takes longer than the pixels. Only a crop is not warped by itself,
        which would blur the image twice: at its edges it knows the pixels that were cut off.
        """
        images = self._moved(images, draws, height, width)
        if (tables := self.tables(draws)) is not None:
            images = map(cv2.LUT, images, tables)
        if (rectangles := self.rectangles(draws, height, width)) is not None:
            images = map(_erased, images, rectangles.tolist())
        return images

    def matrices(self, draws: Sequence[str], height: int, width: int) -> np.ndarray | None:
        """Where each pixel of the images (N, H, W) comes from by these draws.

        Returns:
            (N, 2, 3) float32, which take a pixel's place (x, y, 1) in the augmented image to its place (x, y) in the
            image before, in pixels from the centre of the top left one; None where images stay as they are.
        """
        if self._still:
            return None
        matrices, flipped = self._forward(draws, height, width)
        matrices[flipped] = np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]) @ matrices[flipped]
        return np.linalg.inv(matrices)[:, :2].astype(np.float32)

    def tables(self, draws: Sequence[str]) -> np.ndarray | None:
        """What each grey of the images becomes by these draws, once they are moved.

        Returns:
            (N, 256) uint8; None where greys stay as they are.
        """
        if self._contrast is None and self._gamma is None:
            return None
        tables = np.repeat(np.arange(256, dtype=np.uint8)[None], len(draws), 0)
        if self._contrast is not None:
            blank = {"image": np.empty(0, np.uint8)}  # it asks for the type
            drawn = [_parameters(self._contrast, "contrast", name, data=blank) for name in draws]
            factor, term = (np.array([row[key] for row in drawn], np.float32)[:, None] for key in ("alpha", "beta"))
            tables = (np.arange(256, dtype=np.float32) * factor + term).clip(0, 255).astype(np.uint8)
        if self._gamma is not None:
            gamma = np.array([_parameters(self._gamma, "gamma", name)["gamma"] for name in draws])[:, None]
            powers = ((np.arange(256) * (1 / 255)) ** gamma * 255).astype(np.uint8)
            tables = np.take_along_axis(powers, tables, 1)
        return tables

    def rectangles(self, draws: Sequence[str], height: int, width: int) -> np.ndarray | None:
        """What is erased in the images (N, H, W) by these draws, once all else is done.

        Returns:
            (N, 5) int32: left, top, right, bottom (the latter two beyond the rectangle) and grey; zeros where nothing
            is. None where nothing ever is.
        """
        if self._erasing is None:
            return None
        rectangles = np.zeros((len(draws), 5), np.int32)
        for rectangle, name in zip(rectangles, draws, strict=True):
            number = _number(name, "erasing")
            self._erasing.py_random.seed(number)
            if self._erasing.should_apply():
                self._erasing.random_generator = np.random.default_rng(number)
                drawn = self._erasing.get_params_dependent_on_data({"shape": (height, width)}, {})
                if len(drawn["holes"]):  # none where an image is too narrow for any
                    grey = np.random.default_rng(drawn["seed"]).integers(0, 256, dtype=np.uint8)
                    rectangle[:] = [*drawn["holes"][0].tolist(), int(grey)]
        return rectangles

    @property
    def _still(self) -> bool:
        """Whether no image is ever moved."""
        return self._crop is None and self._affine is None and self._flip is None

    def _moved(
        self, images: Iterable[np.ndarray], draws: Sequence[str], height: int, width: int
    ) -> Iterator[np.ndarray]:
        """The images cropped, turned, shifted, enlarged and flipped, in one warp."""
        if self._still:
            yield from images
            return
        matrices, flipped = self._forward(draws, height, width)
        size, border = (width, height), BORDERS[self.border]
        still = np.isclose(matrices, np.eye(3)).all((1, 2)).tolist()  # as albumentations, which spares itself the warp
        for image, matrix, mirror, stays in zip(images, matrices[:, :2], flipped.tolist(), still, strict=True):
            if not stays:
                image = cv2.warpAffine(image, matrix, size, None, cv2.INTER_LINEAR, border, 0)
            yield cv2.flip(image, 1) if mirror else image

    def _forward(self, draws: Sequence[str], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Matrices (N, 3, 3) from a pixel's place to that afterwards, before the flip, and who is flipped (N,)."""
        drawn = [self._drawn(name, (height, width)) for name in draws]
        angle, scale, right, down, flipped = np.array(drawn, np.float64).reshape(-1, 5).T
        angle, x, y = np.deg2rad(angle % 360), width / 2 - 0.5, height / 2 - 0.5
        cos, sin, zero = np.cos(angle) * scale, np.sin(angle) * scale, np.zeros_like(angle)
        turned = np.stack([cos, sin, x + right, -sin, cos, y + down, zero, zero, zero + 1], 1).reshape(-1, 3, 3)
        matrices = turned @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])  # a product as there: rounded alike
        if self._crop is not None:
            matrices = matrices @ self._stretched(draws, height, width)
        return matrices, flipped.astype(bool)

    def _stretched(self, draws: Sequence[str], height: int, width: int) -> np.ndarray:
        """Matrices (N, 3, 3) that stretch what a crop leaves to the whole image."""
        drawn = [_parameters(self._crop, "crop", name, (height, width))["crop_coords"] for name in draws]
        left, top, right, bottom = np.array(drawn, np.float64).T
        x, y, zero = width / (right - left), height / (bottom - top), np.zeros(len(draws))
        # As where an image is resized: pixels have edges, and it is these that become the image's.
        x_start, y_start = (0.5 - left) * x - 0.5, (0.5 - top) * y - 0.5
        return np.stack([x, zero, x_start, zero, y, y_start, zero, zero, zero + 1], 1).reshape(-1, 3, 3)

    def _drawn(self, name: str, shape: tuple[int, int]) -> tuple[float, float, int, int, bool]:
        """Angle, scale, shift right and down, and whether it is flipped: albumentations' own draws, in its order.

        Each transform starts anew: from a common start the flip would follow from the shift.
        """
        angle, scale, shift, flipped = 0.0, 1.0, {"x": 0, "y": 0}, False
        if self._affine is not None:
            random = self._affine.py_random
            random.seed(_number(name))
            # Private: the public get_params_dependent_on_data makes matrices too, one by one, in three times the time.
            shift = self._affine._get_translate_params(shape)
            self._affine._get_shear_params()  # none is asked for, but drawn
            scale = self._affine._get_scale(self._affine.scale, True, False, random)["x"]
            angle = random.uniform(*self._affine.rotate)
        if self._flip is not None:
            self._flip.py_random.seed(_number(name, "flip"))
            flipped = self._flip.should_apply()
        return angle, scale, shift["x"], shift["y"], flipped


def draw(seed: int, epoch: int, image_id: str, occurrence: int = 0) -> str:
    """The name of the draw for an image's `occurrence`-th appearance in an epoch."""
    return f"{seed}/{epoch}/{image_id}/{occurrence}"


def _parameters(
    transform: "BasicTransform", kind: str, name: str, shape: tuple[int, ...] = (), data: dict | None = None
) -> dict:
    """What a transform of albumentations' draws by this name for an image of this shape."""
    transform.py_random.seed(_number(name, kind))
    return transform.get_params_dependent_on_data({"shape": shape}, data or {})


def _erased(image: np.ndarray, rectangle: list[int]) -> np.ndarray:
    left, top, right, bottom, grey = rectangle
    if left == right:
        return image
    image = image.copy()  # it may be the store's
    image[top:bottom, left:right] = grey
    return image


def _number(name: str, kind: str = "") -> int:
    return zlib.crc32(f"{kind}{name}".encode())
