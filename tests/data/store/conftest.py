"""A dataset of six images that tests of the store share."""

import numpy as np
import pytest

from lungdet.data.store.images import resize
from lungdet.data.store.store import prepare
from tests.data.store.toys import SMALL, table, write


@pytest.fixture
def toy(tmp_path):
    """A folder of six images, their arrays, their manifest, and a way to prepare them."""
    arrays = write(tmp_path / "toy")

    class Toy:
        root, stores, manifest = tmp_path / "toy", tmp_path / "stores", table(*arrays)
        squares = np.stack([resize(a, 16, "squash") for a in arrays.values()])

        def prepare(self, manifest=None, settings=SMALL):
            manifest = self.manifest if manifest is None else manifest
            return prepare(manifest, {"toy": self.root}, settings, self.stores)

    return Toy()
