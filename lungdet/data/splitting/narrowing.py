"""Fewer images in all, or a split with less to train on: fewer patients, some sources, another share of abnormal ones.

What a split leaves out becomes unused. The test part is never touched, so that its hash is the same whatever was
trained on.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from lungdet.data.splitting.protocols import spread
from lungdet.data.splitting.splits import UNUSED, Split, SplitError


def limited(manifest: pd.DataFrame, limit: int, seed: int) -> pd.DataFrame:
    """Whole patients, about `limit` images, each dataset and label in proportion."""
    images = manifest["patient_id"].value_counts().reindex(spread(manifest, seed).index)
    patients = images.index[images.cumsum() - images < limit]
    return manifest[manifest["patient_id"].isin(patients)].reset_index(drop=True)


def with_train_fraction(split: Split, manifest: pd.DataFrame, fraction: float) -> Split:
    """The same split with a part of its training patients: a smaller fraction's lie within a larger one's."""
    if fraction == 1:
        return split
    train = _train(split, manifest)
    place = spread(train, split.seed or 0)
    left_out = train.loc[~train["patient_id"].isin(place.index[place < fraction]), "image_id"]
    return _without(split, left_out, train_fraction=fraction)


def trained_on(split: Split, manifest: pd.DataFrame, datasets: Sequence[str]) -> Split:
    """The same split, training and validation restricted to some datasets; the test part holds what it held.

    Raises:
        SplitError: no dataset is named, or one of which no image is in the training part.
    """
    known = sorted(_train(split, manifest)["dataset"].unique())
    if not datasets or set(datasets) - set(known):
        raise SplitError(f"data.train_on={list(datasets)}: there are training images of {', '.join(known)}; name these")
    elsewhere = manifest.loc[~manifest["dataset"].isin(datasets), "image_id"]
    left_out = elsewhere[~elsewhere.isin(split.images("test"))]
    return _without(split, left_out, train_on=tuple(sorted(set(datasets))))


def with_train_prevalence(split: Split, manifest: pd.DataFrame, prevalence: float) -> Split:
    """The same split with this share of abnormal images in training, and the same number of them whatever the share.

    The number is that of the rarer class, so that every share can be had. Images are left out at random, those without
    a label all of them; the abnormal ones of a smaller share are among those of a larger, the normal ones the other way
    round. Validation and test keep their own share.

    Raises:
        SplitError: the prevalence leaves no image of one of the classes.
    """
    train = _train(split, manifest).sort_values("image_id").sample(frac=1, random_state=split.seed or 0)
    normal, abnormal = (train.loc[train["abnormal"] == label, "image_id"] for label in (0, 1))
    images = min(len(normal), len(abnormal))
    positive = round(prevalence * images)
    if positive in (0, images):
        raise SplitError(
            f"data.train_prevalence={prevalence}: of {images} training images (the rarer class has no more) "
            f"{positive} would be abnormal, and both classes are needed; take more images, or a number nearer to 0.5"
        )
    sample = [*abnormal[:positive], *normal[: images - positive]]
    left_out = train.loc[~train["image_id"].isin(sample), "image_id"]
    return _without(split, left_out, train_prevalence=prevalence)


def _train(split: Split, manifest: pd.DataFrame) -> pd.DataFrame:
    return manifest[manifest["image_id"].isin(split.images("train"))]


def _without(split: Split, images: pd.Series, **facts: object) -> Split:
    """The split with some images unused, and the facts that say why."""
    part = split.table["split"].mask(split.table["image_id"].isin(images), UNUSED)
    return replace(split, table=split.table.assign(split=part), **facts)
