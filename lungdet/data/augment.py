"""Rotation, flip, zoom and shift: the only randomness that touches an image.

What is done to an image depends on (seed, epoch, image id, occurrence) and nothing else, so it is the same for any
number of workers, ranks and any order, and a run that is cut and resumed sees the images it would have seen.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from lungdet.errors import InputError

# albumentations asks the package index for a newer version when imported; the successor of this one is not free.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

BORDERS: dict[str, int] = {
    "reflect": cv2.BORDER_REFLECT_101,
    "replicate": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,
}
"""What lies beyond an image's edge, by OpenCV's name: the image mirrored at its outermost pixels, which do not come
twice (albumentations' reflect_101); its outermost pixels, again and again; or black."""


class Augmentation:
    """The study's augmentation, each kind a number; a number of 0 switches its kind off.

    Args:
        rotation: largest angle, degrees, to either side.
        flip: probability of a left-right flip. It puts the heart on the other side: 0 switches it off.
        zoom: largest relative change of size, either way: 0.1 draws from 0.9 .. 1.1.
        shift: largest shift, as a fraction of the image's side, in each direction.
        border: what rotation, zoom and shift bring in from beyond the image's edge, of `BORDERS`.
    """

    def __init__(
        self,
        rotation: float = 0.0,
        flip: float = 0.0,
        zoom: float = 0.0,
        shift: float = 0.0,
        border: str = "reflect",
    ) -> None:
        if not 0 <= rotation <= 180:
            raise InputError(f"augment.rotation={rotation}: degrees between 0 and 180 are needed")
        for name, value in (("flip", flip), ("zoom", zoom), ("shift", shift)):
            if not 0 <= value <= 1 or (name == "zoom" and value == 1):
                raise InputError(f"augment.{name}={value}: a number from 0 to 1 is needed")
        if border not in BORDERS:
            raise InputError(f"augment.border={border}: one of {', '.join(BORDERS)} is needed")
        self.border = border
        self._affine = self._flip = None
        if not (rotation or flip or zoom or shift):
            return
        import albumentations  # two seconds: only when augmentation is asked for

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

    def __call__(
        self, images: Iterable[np.ndarray], draws: Sequence[str], height: int, width: int
    ) -> Iterator[np.ndarray]:
        """Augment `images` (height, width) uint8 one by one, each by the draw that its string names (see `draw`).

        To the last bit what albumentations' pipeline makes of each: draws, matrix and warp are its own, without what
        it does about boxes, masks and points, which takes longer than the pixels.
        """
        if self._affine is None and self._flip is None:
            yield from images
            return
        drawn = [self._drawn(name, (height, width)) for name in draws]
        matrices = self._forward(drawn, height, width)
        size, border = (width, height), BORDERS[self.border]
        still = np.isclose(matrices, np.eye(3)).all((1, 2)).tolist()  # as albumentations, which spares itself the warp
        for image, (*_, flipped), matrix, stays in zip(images, drawn, matrices[:, :2], still, strict=True):
            if not stays:
                image = cv2.warpAffine(image, matrix, size, None, cv2.INTER_LINEAR, border, 0)
            yield cv2.flip(image, 1) if flipped else image

    def matrices(self, draws: Sequence[str], height: int, width: int) -> np.ndarray | None:
        """What the call does to images (N, H, W) by these draws, without the images: where each pixel comes from.

        Returns:
            (N, 2, 3) float32, which take a pixel's place (x, y, 1) in the augmented image to its place (x, y) in the
            image before, in pixels from the centre of the top left one; None where images stay as they are.
        """
        if self._affine is None and self._flip is None:
            return None
        drawn = [self._drawn(name, (height, width)) for name in draws]
        matrices = self._forward(drawn, height, width)
        flipped = np.array([flip for *_, flip in drawn], bool)
        matrices[flipped] = np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]) @ matrices[flipped]
        return np.linalg.inv(matrices)[:, :2].astype(np.float32)

    def _forward(self, drawn: Sequence[tuple], height: int, width: int) -> np.ndarray:
        """Matrices (N, 3, 3) as albumentations makes them, before the flip: from a pixel's place to that afterwards."""
        angle, scale, right, down, _ = np.array(drawn, np.float64).reshape(-1, 5).T
        angle, x, y = np.deg2rad(angle % 360), width / 2 - 0.5, height / 2 - 0.5
        cos, sin, zero = np.cos(angle) * scale, np.sin(angle) * scale, np.zeros_like(angle)
        turned = np.stack([cos, sin, x + right, -sin, cos, y + down, zero, zero, zero + 1], 1).reshape(-1, 3, 3)
        return turned @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])  # a product as there: rounded alike

    def _drawn(self, name: str, shape: tuple[int, int]) -> tuple[float, float, int, int, bool]:
        """Angle, scale, shift right and down, and whether it is flipped: albumentations' own draws, in its order.

        Affine and flip each start anew: from a common start the flip would follow from the shift.
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


def _number(name: str, kind: str = "") -> int:
    return zlib.crc32(f"{kind}{name}".encode())
