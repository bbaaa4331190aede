"""Classes of a data set: their names, and which have no clips in a split."""

from collections.abc import Mapping, Sequence

_MAX_LISTED = 5


def class_names(names: Sequence[str], count: int) -> list[str]:
    """A name for each of `count` classes; those that the data set does not name have their number."""
    return [names[i] if i < len(names) else f"class {i}" for i in range(count)]


def listed(names: Sequence[str]) -> str:
    """Some names, as a part of a sentence."""
    more = f" and {len(names) - _MAX_LISTED:,} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more


def without_clips(counts: Mapping[str, Sequence[int]], split: str) -> list[int]:
    """Classes that have no clips in a split although they have some in another one.

    Args:
        counts: number of clips of each class, by split.
        split: the split.
    Returns:
        indices of the classes; none if the split itself has no clips.
    """
    mine = counts.get(split, [])
    return [i for i, count in enumerate(mine) if not count and any(mine) and any(each[i] for each in counts.values())]
