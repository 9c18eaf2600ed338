"""The key or choice that somebody meant who wrote another one."""

from collections.abc import Iterable
from difflib import get_close_matches

MOST = 3


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Those of the names that are most likely meant, the likeliest first; none where none is like it.

    `lr` is learning_rate, `epochs` is max_epochs, `batch_size` is data.batch_size, `modle` is model.

    Args:
        name: a key with its groups, `model.lr`, or a choice.
        names: what there is.
    """
    names = [*names]
    group, _, word = name.rpartition(".")
    within = [other for other in names if group and other.startswith(f"{group}.")]
    beside = [other for other in within if other.rpartition(".")[0] == group]
    for candidates in (beside, within, names):
        words: dict[str, list[str]] = {}
        for other in candidates:
            words.setdefault(other.rpartition(".")[2], []).append(other)
        alike = [*words.get(word, [])]
        alike += [other for last in words if _abbreviates(word, last) for other in words[last]]
        alike += [other for last in get_close_matches(word, words, MOST, 0.75) for other in words[last]]
        if alike:
            return [*dict.fromkeys(alike)][:MOST]
    return get_close_matches(name, names, MOST, 0.75)


def hint(name: str, names: Iterable[str]) -> str:
    """`; did you mean A or B?`, or nothing."""
    meant = nearest(name, names)
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _abbreviates(word: str, name: str) -> bool:
    """Whether it is some of a name's words, or the first letters of all."""
    parts = name.split("_")
    return len(parts) > 1 and (set(word.split("_")) < set(parts) or word == "".join(part[:1] for part in parts))
