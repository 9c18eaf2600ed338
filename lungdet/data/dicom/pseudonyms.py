"""Patients under names that are not their own: after their first image, or the same everywhere, by a secret key."""

import hashlib
import hmac
from pathlib import Path

import pandas as pd

from lungdet.errors import InputError

SHORTEST = 16
"""Bytes of a key. Hospital numbers are few: with a shorter one, whoever tries them all knows who is who."""


def read_key(file: str | Path | None) -> bytes | None:
    """The key that `data.pseudonymize` names; None where it names none.

    Raises:
        InputError: no such file, or what is in it is too short for a key.
    """
    if file is None:
        return None
    path = Path(file).expanduser()
    advice = 'python -c "import secrets; print(secrets.token_hex())" > FILE makes one'
    if not path.is_file():
        raise InputError(f"data.pseudonymize={file}: there is no such file; {advice}")
    key = path.read_bytes().strip()
    if len(key) < SHORTEST:
        raise InputError(f"data.pseudonymize={file}: at least {SHORTEST} bytes are needed; {advice}")
    return key


def keyed(name: str, key: bytes) -> str:
    """A patient's id as 16 hexadecimal digits: HMAC-SHA-256, the same wherever the key is."""
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:16]


def pseudonyms(ids: pd.Series, images: pd.DataFrame, key: bytes | None = None) -> pd.Series:
    """The `patient_id` of each image, `<dataset>/<pseudonym>`; missing where the id is.

    Args:
        ids: the patients' own, missing where not known; a patient is one within a dataset.
        images: `image_id`, `<dataset>/<name>`, and `dataset` of each.
        key: None names a patient after the first of their images.
    """
    if key is None:
        named = images["image_id"].groupby([images["dataset"], ids]).transform("first")
    else:
        named = images["dataset"] + "/" + ids.map(lambda name: keyed(name, key), na_action="ignore")
    return named.where(ids.notna()).astype("str")
