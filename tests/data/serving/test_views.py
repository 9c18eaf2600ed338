"""Views of a radiograph at test time: moved by whole pixels, mirrored, the image as it is first."""

import numpy as np
import pytest

from lungdet.data.serving.views import ITSELF, View, name, views
from lungdet.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)


def test_a_view_is_the_image_moved_and_mirrored() -> None:
    view = View(right=0.1, down=-0.2)(IMAGE)  # 3 pixels to the right, 4 up
    assert (view[:16, 3:] == IMAGE[4:, :-3]).all()
    assert (view[:16, :3] == IMAGE[4:, 3:0:-1]).all()  # beyond the edge the image is mirrored
    assert (View(right=0.1, down=-0.2, mirrored=True)(IMAGE) == view[:, ::-1]).all()
    assert (ITSELF(IMAGE) == IMAGE).all()


@pytest.mark.parametrize(
    ("flip", "shift", "count", "called"),
    [(False, 0, 1, ""), (True, 0, 2, "flip"), (False, 0.04, 5, "shift0.04"), (True, 0.1, 10, "flip-shift0.1")],
)
def test_flip_and_shift_make_so_many_views_and_name_them(flip: bool, shift: float, count: int, called: str) -> None:
    chosen = views(flip, shift)
    assert chosen[0] == ITSELF
    assert len({view(IMAGE).tobytes() for view in chosen}) == len(chosen) == count
    assert name(chosen) == called


@pytest.mark.parametrize(
    ("flip", "shift", "named"), [("yes", 0.0, "flip=yes"), (True, 0.5, "shift=0.5"), (True, -1, "shift=-1")]
)
def test_what_cannot_be_is_refused(flip: object, shift: float, named: str) -> None:
    with pytest.raises(InputError, match=f"views.{named}"):
        views(flip, shift)
