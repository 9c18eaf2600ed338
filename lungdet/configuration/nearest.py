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
    within = [entry for entry in names if group and entry.startswith(f"{group}.")]
    beside = [entry for entry in within if entry.rpartition(".")[0] == group]
    for candidates in (beside, within, names):
        words: dict[str, list[str]] = {}
        for entry in candidates:
            words.setdefault(entry.rpartition(".")[2], []).append(entry)
        alike = [*words.get(word, [])]
        alike += [entry for last in words if _abbreviates(word, last) for entry in words[last]]
        alike += [entry for last in get_close_matches(word, words, MOST, 0.75) for entry in words[last]]
        if alike:
            return [*dict.fromkeys(alike)][:MOST]
    return get_close_matches(name, names, MOST, 0.75)


def hint(name: str, names: Iterable[str]) -> str:
    """`; did you mean A or B?`, or nothing."""
    suggestions = nearest(name, names)
    return f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""


def _abbreviates(word: str, name: str) -> bool:
    """Whether it is some of a name's words, or the first letters of all."""
    parts = name.split("_")
    return len(parts) > 1 and (set(word.split("_")) < set(parts) or word == "".join(part[:1] for part in parts))
