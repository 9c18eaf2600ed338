"""A run's images are known by two distances: what is unlike them is far, and of what is like them one in a hundred."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lungdet.data.reference import Reference


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    """(1200, 32, 32): two dark fields under a bright neck, never twice in the same place or light."""
    generator, films = np.random.default_rng(0), []
    for _ in range(1200):
        film = np.repeat(np.linspace(200, 140, 32)[:, None], 32, axis=1)
        for x in (10, 21):
            center = tuple((np.array((x, 17)) + generator.integers(-2, 3, 2)).tolist())
            cv2.ellipse(film, center, (5, 10), 0, 0, 360, 60.0, -1)
        films.append(film * generator.uniform(0.8, 1.2) + generator.normal(0, 4, film.shape))
    return np.clip(films, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def reference(films: np.ndarray) -> Reference:
    return Reference.of(films, np.arange(500), np.arange(500, 1000))


def test_one_in_a_hundred_of_the_images_that_a_run_knows_is_flagged(films: np.ndarray, reference: Reference) -> None:
    assert (reference.unlike(films[500:1000]) > 1).mean() == pytest.approx(0.01, abs=0.003)
    assert (reference.unlike(films[1000:]) > 1).mean() < 0.03
    assert reference.unlike(films[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (lambda film: np.rot90(film), 1),
        (lambda film: np.rot90(film, 2), 1),
        (lambda film: 255 - film, 1),
        (lambda film: film // 10 + 100, 1),
        (lambda film: cv2.GaussianBlur(film, (0, 0), 3), 1),
        (lambda film: cv2.resize(film[:16, :16], (32, 32)), 1),
        (lambda film: np.pad(film[::2, ::2], 8), 1),
        (lambda film: np.full_like(film, 90), 1),
        (lambda film: np.random.default_rng(0).integers(0, 256, film.shape).astype(np.uint8), 1),
        (lambda film: film[:, ::-1], 0),
    ],
    ids=[
        "on its side",
        "upside down",
        "inverted",
        "faint",
        "blurred",
        "a part",
        "framed",
        "blank",
        "noise",
        "mirrored",
    ],
)
def test_films_that_are_changed_are_flagged_but_not_mirrored_ones(
    change, share: float, films: np.ndarray, reference: Reference
) -> None:
    changed = np.stack([np.ascontiguousarray(change(film)) for film in films[1000:1050]])
    assert (reference.unlike(changed) > 1).mean() == pytest.approx(share, abs=0.05)


def test_what_is_kept_gives_the_same_distances_and_few_images_are_enough(
    films: np.ndarray, reference: Reference, tmp_path: Path
) -> None:
    assert Reference.read(tmp_path) is None
    reference.write(tmp_path)
    np.testing.assert_array_equal(Reference.read(tmp_path).unlike(films), reference.unlike(films))
    assert (tmp_path / "reference.npz").stat().st_size < 100_000
    few = Reference.of(films, np.arange(2), np.arange(2, 3))
    assert np.isfinite(few.unlike(films)).all()
