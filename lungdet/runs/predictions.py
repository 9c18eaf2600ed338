"""Predictions on disk: which columns a table of them has, how it is written, read back and checked.

`predictions/<part>.parquet` is self-contained, a row an image: `image_id, patient_id, dataset, visit, age, sex, view`;
`target_<label>` (1 / 0 / NaN) for `abnormal` and every finding; `logit_<label>` and, for who reads them,
`probability_<label>`, float64, for what was predicted. Evaluation takes the log-odds: probabilities near 1 tie.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lungdet.errors import RunError
from lungdet.machine import ranks
from lungdet.machine.commands import command, override
from lungdet.machine.writing import make_folder, replacing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DESCRIBED = ["image_id", "patient_id", "dataset", "visit", "age", "sex", "view"]
"""What a row says of its image, as the manifest has it."""


def prediction_table(manifest: "pd.DataFrame", labels: Sequence[str], logit: "np.ndarray") -> "pd.DataFrame":
    """Predictions that can be read by themselves, a row an image.

    Args:
        manifest: of the images predicted, row by row.
        labels: what was predicted, L manifest columns.
        logit: (N, L) log-odds.
    """
    import numpy as np
    import pandas as pd
    from scipy.special import expit

    from lungdet.findings import FINDINGS

    predicted = {}
    for label, values in zip(labels, np.asarray(logit, np.float64).T, strict=True):
        predicted |= {f"logit_{label}": values, f"probability_{label}": expit(values)}
    targets = manifest[["abnormal", *FINDINGS]].astype("float32").add_prefix("target_")
    known = pd.concat([manifest[DESCRIBED], targets], axis=1).reset_index(drop=True)
    return pd.concat([known, pd.DataFrame(predicted)], axis=1)


def write(run: Path, part: str, table: "pd.DataFrame") -> None:
    """Write `predictions/<part>.parquet` in a run's folder, whole or not at all; rank 0 alone does."""
    if ranks.rank():
        return
    make_folder(run / "predictions")
    with replacing(run / "predictions" / f"{part}.parquet") as file:
        table.to_parquet(file)


def read(run: Path, part: str) -> "pd.DataFrame":
    """What `write` has written.

    Raises:
        RunError: it has written nothing.
    """
    import pandas as pd

    path = run / "predictions" / f"{part}.parquet"
    if not path.is_file():
        raise RunError(f"{path}: no predictions; finish the run with: {command('train.py', override('resume', run))}")
    return pd.read_parquet(path)


def check(table: "pd.DataFrame", labels: Sequence[str], where: str) -> "pd.DataFrame":
    """Predictions sorted by image, if each image stands once and has log-odds.

    Raises:
        RunError: columns are missing, there is no row, an image stands twice, or labels or log-odds are no numbers.
    """
    from pandas.api.types import is_numeric_dtype

    from lungdet.findings import FINDINGS

    if table.empty:
        raise RunError(f"{where}: no image in the table")
    require_log_odds(table, labels, where, [*DESCRIBED, *[f"target_{label}" for label in ("abnormal", *FINDINGS)]])
    repeated = table.image_id[table.image_id.duplicated()]
    if len(repeated):
        raise RunError(f"{where}: {len(repeated)} image(s) stand there more than once, the first is {repeated.iloc[0]}")
    for column in ("image_id", "patient_id", "dataset"):
        if table[column].isna().any():
            raise RunError(f"{where}: {column} is missing on {int(table[column].isna().sum())} of {len(table)} rows")
    for column in table.columns:
        if column.startswith("target_") and not is_numeric_dtype(table[column]):
            raise RunError(f"{where}: {column} holds {table[column].dtype}, not numbers")
    for label in labels:
        target = table[f"target_{label}"]
        wrong = target.notna() & ~target.isin((0, 1))
        if wrong.any():
            raise RunError(
                f"{where}: target_{label} is {target[wrong].iloc[0]} on {table.image_id[wrong].iloc[0]}; labels are 1, "
                "0 or missing"
            )
    return table.sort_values("image_id", ignore_index=True)


def require_log_odds(table: "pd.DataFrame", labels: Sequence[str], where: str, columns: Sequence[str]) -> None:
    """Passes only a table with these columns, and with finite log-odds of each label in each row.

    Raises:
        RunError: a column is missing, or log-odds are no numbers.
    """
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    needed = dict.fromkeys([*columns, *[f"logit_{label}" for label in labels]])
    if missing := [column for column in needed if column not in table.columns]:
        raise RunError(f"{where}: no column {', '.join(missing)}; written by another program or version?")
    for label in labels:
        logit = table[f"logit_{label}"]
        if not is_numeric_dtype(logit):
            raise RunError(f"{where}: logit_{label} holds {logit.dtype}, not numbers")
        wrong = ~np.isfinite(logit.to_numpy(np.float64))
        if wrong.any():
            raise RunError(
                f"{where}: logit_{label} is NaN or infinite on {int(wrong.sum())} of {len(table)} images, the first is "
                f"{table.image_id[wrong].iloc[0]}. The training diverged: lower model.learning_rate, or set "
                "trainer.gradient_clip_val=1.0"
            )
