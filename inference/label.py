"""Labels as a caller gives them, and as a generator takes them."""

from collections.abc import Sequence
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

Label = int | str
"""A class: its place in the metadata's classes, or its name there."""


def number_of(label: Label | None, classes: Sequence[str]) -> int | None:
    """The place of a class in `classes`; None for no label.

    Raises:
        ValueError: for a label where there are no classes, or that is none of them.
        TypeError: for what is neither a whole number nor a name.
    """
    if label is None:
        return None
    if not classes:
        raise ValueError(f"this artifact has no classes, so it takes no label, got {label!r}")
    if isinstance(label, str):
        if label in classes:
            return classes.index(label)
    else:
        try:
            number = index(label)
        except TypeError:
            raise TypeError(f"label must be a whole number or a name, got {label!r}") from None
        if 0 <= number < len(classes):
            return number
    raise ValueError(f"label must be {_described(classes)}, got {label!r}")


def typed(text: str, classes: Sequence[str]) -> Label:
    """What somebody typed: a name, or else a number."""
    return int(text) if text.isdecimal() and text not in classes else text


def numbers_of(
    labels: Label | ArrayLike | None, count: int, classes: Sequence[str]
) -> NDArray[np.int64] | None:
    """The labels of `count` images, int64 (count,); None where there are no classes.

    labels: of each image its place in `classes`, or one class for all.

    Raises:
        ValueError: for labels where there are no classes, for none where there are; for another
            shape or type; for what is no class.
    """
    if labels is None:
        if classes:
            raise ValueError(f"this artifact needs labels: {_described(classes)} for each z")
        return None
    if isinstance(labels, str) or np.ndim(labels) == 0:
        return np.full(count, number_of(labels, classes), np.int64)  # type: ignore[arg-type]
    if not classes:
        raise ValueError("this artifact has no classes, so it takes no labels")
    numbers = np.asarray(labels)
    if numbers.shape != (count,) or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be whole numbers ({count},), got {numbers.dtype} {numbers.shape}"
        )
    if count and not (numbers.min() >= 0 and numbers.max() < len(classes)):
        raise ValueError(
            f"labels must be {_described(classes)}, got {numbers.min()} to {numbers.max()}"
        )
    return numbers.astype(np.int64)


def _described(classes: Sequence[str]) -> str:
    names = ", ".join(repr(name) for name in classes[:20]) + (", …" if len(classes) > 20 else "")
    return f"0 … {len(classes) - 1} or one of {names}"
