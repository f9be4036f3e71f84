"""Families as a source names them: one family for each name, however often a label repeats.

Guarantees that no row is lost on the way from labels to families. A row of no family would be public, and a plain
mapping keeps only the last of two labels with one name: the private records of the other would become public.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dphyper.core.names import family_name


def merge_by_name(named: Iterable[tuple[object, NDArray[np.integer]]]) -> dict[str, NDArray[np.int64]]:
    """Rows of each family, sorted; labels whose names are equal make one family.

    >>> merge_by_name([("a", np.array([0, 1])), ("b", np.array([2])), ("a ", np.array([3, 1]))])
    {'a': array([0, 1, 3]), 'b': array([2])}
    """
    parts: dict[str, list[NDArray[np.integer]]] = {}
    for label, rows in named:
        parts.setdefault(family_name(label), []).append(rows)
    return {name: np.unique(np.concatenate(rows)).astype(np.int64) for name, rows in parts.items()}


def by_label(labels: NDArray[np.integer], names: Iterable[object]) -> dict[str, NDArray[np.int64]]:
    """Rows of each class, in the order of ``names``.

    Args:
        labels: (N,) for each image an index into ``names``.
        names: Name of each class; names that repeat make one family.

    Raises:
        ValueError: A label without a name, whose images would be of no family.
    """
    names = list(names)
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {len(names)} names")
    return merge_by_name((name, np.flatnonzero(labels == i)) for i, name in enumerate(names))


def count_noun(number: int, noun: str, plural: str = "") -> str:
    """The number and the noun, in the plural (by default with an s) for all numbers but 1.

    >>> count_noun(1, "hidden folder"), count_noun(2, "hidden folder"), count_noun(0, "copy", "copies")
    ('1 hidden folder', '2 hidden folders', '0 copies')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
