"""What the models that read sequences share: which steps they read, in which order, and how steps become one vector.

Legend: N cases, S images, C channels, h x w grid, T steps, D numbers a step.
"""

import torch
from torch import Tensor, nn

from lungdet.errors import InputError

SEQUENCES: tuple[str, ...] = ("rows", "columns", "patches", "visits")
GAPS: tuple[str, ...] = ("age", "visit")
"""What says when an image was taken, in the order of the batch's `when`."""
POOLINGS: tuple[str, ...] = ("last", "mean", "attention")


class Steps(nn.Module):
    """Feature maps -> the sequence of steps that a case is read as.

    Args:
        channels: C.
        sequence: what a step is. Of the last image's map: `rows` (top to bottom, the mean over a row's columns),
            `columns` (the image's left to right, the mean over a column's rows) or `patches` (every grid cell, row by
            row). Or `visits`: the case's images in time order, each the mean over its map.
        visits: the most images of a case, which is T then.
        gap: (`visits`) the time since the image before is told too, of `GAPS`; None: it is not.
        shuffle: a control: the steps come in an order drawn for each case; of visits the last stays the last, and
            gaps stay in their places.
        both_ways: whether the steps are going to be read from their end, too.

    Attributes:
        width: D.

    Raises:
        InputError: visits are to be read both ways.
    """

    def __init__(
        self,
        channels: int,
        sequence: str,
        visits: int,
        gap: str | None,
        shuffle: bool = False,
        both_ways: bool = False,
    ) -> None:
        super().__init__()
        if both_ways and sequence == "visits":
            raise InputError(
                "model.bidirectional=true: a series of visits is read in time order alone, or a later image would "
                "change what is said of an earlier one; set it to false, or model.sequence to rows, columns or patches"
            )
        self.sequence, self.visits, self.gap, self.shuffle = sequence, visits, gap, shuffle
        self.width = channels + (2 if gap else 0)

    def images(self, image: Tensor, length: Tensor) -> Tensor:
        """(S, 1, H, W), (N,) -> the images that are looked at: all of a series for visits, else each case's last."""
        return image if self.sequence == "visits" else last_images(image, length)

    def forward(
        self, features: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The steps (N, T, D) and how many of each case's T are real (N,), the others being zeros on the right.

        Args:
            features: (S, C, h, w) for visits, else (N, C, h, w).
            length: (N,), the images of each case.
            when: (S, 2), age and visit of each image; needed with `gap`.
            case: (N,), what a shuffled order is drawn from; without it all cases are shuffled alike.
        """
        if self.sequence == "visits":
            steps, count = self._by_case(features.mean((2, 3)), length), length
        else:
            steps = self._of_map(features).transpose(1, 2)
            count = torch.full_like(length, steps.shape[1])
        if self.shuffle:
            movable = count - 1 if self.sequence == "visits" else count
            steps = _shuffled(steps, movable, torch.zeros_like(count) if case is None else case)
        if self.gap:
            steps = torch.cat([steps, self._by_case(self._gaps(when, length), length).to(steps.dtype)], dim=2)
        return steps, count

    def _of_map(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, T)."""
        if self.sequence == "rows":
            return features.mean(3)
        return features.mean(2) if self.sequence == "columns" else features.flatten(2)

    def _by_case(self, steps: Tensor, length: Tensor) -> Tensor:
        """(S, D), case after case, -> (N, T, D), padded with zeros on the right."""
        images, cases = steps.shape[0], length.shape[0]  # torch.export takes len() for a constant
        number, end = torch.arange(images, device=length.device), length.cumsum(0)
        case = (number[:, None] >= end).sum(1)  # ONNX has no repeat_interleave of a known size
        place = number - (end - length)[case]
        return steps.new_zeros(cases, self.visits, steps.shape[1]).index_put((case, place), steps)

    def _gaps(self, when: Tensor, length: Tensor) -> Tensor:
        """(S, 2): log(1 + the time since the case's image before), 0 of a first image, and whether it is known."""
        time = when[:, GAPS.index(self.gap)]
        gap = torch.diff(time, prepend=time[:1])
        gap[length.cumsum(0) - length] = 0
        return torch.stack([gap.nan_to_num(0).clamp_min(0).log1p(), (~gap.isnan()).to(gap.dtype)], dim=1)


class Pooling(nn.Module):
    """Steps (N, T, D) -> one vector a case (N, D), padding left out.

    Args:
        how: `last` (the last real step), `mean`, or `attention`: a mean weighted by a learnt score of each step.
        width: D, or half of it where the steps were read both ways.
        both_ways: the second half of each step was read from the end, where the first step is the last one.

    Attributes:
        width: D.
    """

    def __init__(self, how: str, width: int, both_ways: bool = False) -> None:
        super().__init__()
        if how not in POOLINGS:
            raise InputError(f"model.pooling={how}: one of {', '.join(POOLINGS)} is needed")
        self.how, self.both_ways, self.width = how, both_ways, 2 * width if both_ways else width
        if how == "attention":
            self.score = nn.Linear(self.width, 1)

    def forward(self, steps: Tensor, count: Tensor) -> Tensor:
        """(N, T, D) of which `count` (N,) are real -> (N, D)."""
        place = torch.arange(steps.shape[1], device=steps.device)
        if self.how == "last" and self.both_ways:
            forth, back = steps.chunk(2, dim=2)
            return torch.cat([_weighted(forth, place == count[:, None] - 1), back[:, 0]], dim=1)
        if self.how == "last":
            weights = place == count[:, None] - 1
        elif self.how == "mean":
            weights = (place < count[:, None]) / count[:, None]
        else:
            weights = self.score(steps)[..., 0].float().masked_fill(place >= count[:, None], -torch.inf).softmax(1)
        return _weighted(steps, weights)


def last_images(image: Tensor, length: Tensor) -> Tensor:
    """(S, 1, H, W), (N,) -> (N, 1, H, W): each case's last."""
    return image[length.cumsum(0) - 1]


def _weighted(steps: Tensor, weights: Tensor) -> Tensor:
    """(N, T, D), (N, T) -> (N, D): the weighted sum."""
    return (steps * weights[..., None].to(steps.dtype)).sum(1)


def _shuffled(steps: Tensor, count: Tensor, case: Tensor) -> Tensor:
    """The first `count` (N,) of each case's steps in an order that `case` (N,) alone decides, the others in place."""
    place = torch.arange(steps.shape[1], device=steps.device)
    lot = _mixed(_mixed(case[:, None] + 1) + place) & (2**62 - 1)
    lot = torch.where(place < count[:, None], lot, 2**62 + place)
    return steps.gather(1, lot.argsort(1)[..., None].expand_as(steps))


def _mixed(number: Tensor) -> Tensor:
    """int64 -> int64, neighbours far apart (after Stafford's thirteenth mixer); the same on every device."""
    number = (number ^ (number >> 30)) * -0x40A7B892E31B1A47
    number = (number ^ (number >> 27)) * -0x6B2FB644ECCEEE15
    return number ^ (number >> 31)
