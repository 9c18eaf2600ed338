"""Who is who: patient ids as people write them, so that one patient written two ways is not taken for two."""

import re
import unicodedata

import pandas as pd

PLACEHOLDERS = frozenset(
    {"na", "nan", "nat", "nil", "none", "null", "undefined", "unknown", "unk", "missing", "notavailable", "-1"}
    | {"anon", "anonymous", "anonymised", "anonymized"}
)
"""What programs and people write where they know no patient; besides these, whatever has no letter and no digit."""


def plain(text: str) -> str:
    """The text without differences that nobody can see: letters composed, nothing of no width, single common spaces."""
    visible = "".join(sign for sign in unicodedata.normalize("NFC", text) if unicodedata.category(sign) != "Cf")
    return " ".join(visible.split())


def folded(name: str) -> str:
    """What ids that probably mean one patient have in common: `1`, `001` and `1.0`; `A1`, `a1`, `A-01` and `A 1`.

    Case, leading zeros, a table's `.0` behind whole numbers, width of letters and the kind of separator fall; so do
    separators between a letter and a digit, but not between digits (`1-23` and `12-3` are two).
    """
    text = plain(unicodedata.normalize("NFKC", plain(name)).casefold())
    text = "".join("-" if sign in " _−" or unicodedata.category(sign) == "Pd" else sign for sign in text)
    text = re.sub(r"-+", "-", text)
    text = re.sub(r"(?<=[^\W\d_])-(?=\d)|(?<=\d)-(?=[^\W\d_])", "", text)
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    return re.sub(r"(?<![\d.])0+(?=\d)", "", text)


def is_placeholder(name: str) -> bool:
    """True of `nan`, `NULL`, `N/A`, `unknown`, `-`, `?` ..: what stands where nobody knows the patient."""
    word = folded(name)
    bare = re.sub(r"[\W_]", "", word)
    return not bare or bare in PLACEHOLDERS or word in PLACEHOLDERS


def contradictions(manifest: pd.DataFrame) -> list[str]:
    """What one person cannot be, a sentence a kind with its first two patients: two sexes, growing younger by years.

    Either the id stands for several people, or a value or the order of visits is wrong.
    """
    table = manifest.sort_values(["patient_id", "visit"], kind="stable")
    sentences = []
    known = table[table["sex"].notna()]
    first = known.groupby("patient_id")["sex"].transform("first")
    changed = known[known["sex"] != first].drop_duplicates("patient_id")
    if len(changed):
        firsts = known.drop_duplicates("patient_id").set_index("patient_id")
        examples = [
            f"{row.patient_id} is {firsts.at[row.patient_id, 'sex']} in {firsts.at[row.patient_id, 'image_id']}, "
            f"{row.sex} in {row.image_id}"
            for row in changed.head(2).itertuples()
        ]
        sentences.append(_sentence(len(changed), "have two sexes", examples))
    aged = table[table["age"].notna()]
    before = aged.groupby("patient_id")[["age", "image_id"]].shift()
    younger = aged[aged["age"] < before["age"] - 1].drop_duplicates("patient_id")
    if len(younger):
        examples = [
            f"{row.patient_id} is {before.at[row.Index, 'age']:g} years old in {before.at[row.Index, 'image_id']}, and "
            f"later {row.age:g} in {row.image_id}"
            for row in younger.head(2).itertuples()
        ]
        sentences.append(_sentence(len(younger), "grow younger by more than a year", examples))
    return sentences


def _sentence(count: int, contradiction: str, examples: list[str]) -> str:
    return (
        f"{count:,} patients {contradiction}: {'; '.join(examples)}{' ..' if count > 2 else ''}. Is an id given to "
        "several people, or are values or the order of visits wrong?"
    )
