"""The store's resizing as a layer: grey images of any size become the squares that the networks were trained on.

Area means and linear interpolation are sums of pixels with weights that rows and columns decide apart, so that a square
is a product of three matrices: weights of rows, image, weights of columns. Legend: S images, H x W pixels.
"""

import torch
from torch import Tensor, nn

from lungdet.data.store.images import Settings


class Squares(nn.Module):
    """(S, 1, H, W) uint8 of one size -> (S, 1, size, size) float32 in [0, 1], as `lungdet.data.store.images.resize`.

    The same to the last grey level but where a mean lies halfway between two of them, which OpenCV rounds by the rules
    of several of its routines, and where an image is enlarged, which it computes in eleven bits.

    Args:
        settings: `size` and `resize` of the run.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.size, self.how = settings.size, settings.resize

    def forward(self, image: Tensor) -> Tensor:
        """(S, 1, H, W) uint8 -> (S, 1, size, size)."""
        # Pixel numbers from 1 on, and from them the numbers of rows and columns: tensors, so that a trace keeps them.
        rows, columns = (torch.arange(1, image.shape[axis] + 1, dtype=torch.float64) for axis in (2, 3))
        height, width = rows[-1], columns[-1]
        zero, size = torch.zeros_like(height), torch.full_like(height, self.size)
        if self.how == "crop":
            side = torch.minimum(height, width)
            top, left = torch.floor((height - side) / 2), torch.floor((width - side) / 2)
            down = _weights(rows, self.size, top, side, zero, size)
            across = _weights(columns, self.size, left, side, zero, size)
            step_down = step_across = side / size
        else:
            longer = torch.maximum(height, width)
            padded = self.how == "pad"
            tall, wide = (
                torch.round(edge * size / longer).clamp_min(1) if padded else size for edge in (height, width)
            )
            down = _weights(rows, self.size, zero, height, torch.floor((size - tall) / 2), tall)
            across = _weights(columns, self.size, zero, width, torch.floor((size - wide) / 2), wide)
            step_down, step_across = height / tall, width / wide
        grey = down @ image.float() @ across.transpose(0, 1)
        # OpenCV rounds halves up where it halves both axes or enlarges one, and to even numbers elsewhere.
        up = ((step_down == 2) & (step_across == 2)) | (torch.minimum(step_down, step_across) < 1)
        return torch.where(up, torch.floor(grey + 0.5), torch.round(grey)) / 255


def _weights(pixel: Tensor, size: int, start: Tensor, extent: Tensor, first: Tensor, places: Tensor) -> Tensor:
    """(size, pixels) float32: what each pixel of an axis adds to each place of the square's.

    Args:
        pixel: their numbers, from 1 on.
        size: of the square.
        start: where the part of the axis begins that is read.
        extent: how long it is.
        first: the place where what is read begins in the square.
        places: how many it fills; the others stay 0.
    """
    place = torch.arange(size, dtype=torch.float64)[:, None] - first
    step = extent / places
    low = start + place * step
    area = (torch.minimum(low + step, pixel) - torch.maximum(low, pixel - 1)).clamp_min(0) / step
    centre = torch.minimum(torch.maximum(low + step / 2 - 0.5, start), start + extent - 1)
    linear = (1 - (centre - (pixel - 1)).abs()).clamp_min(0)
    inside = (place >= 0) & (place < places)
    return (torch.where(step >= 1, area, linear) * inside).float()
