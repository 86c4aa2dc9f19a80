"""Convert the labels of a caller to those that a generator takes."""

from collections.abc import Sequence
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

Label = int | str
"""A class: its index in the metadata's classes, or its name."""


def number_of(label: Label | None, classes: Sequence[str]) -> int | None:
    """The index of a class in `classes`; None for no label.

    Raises:
        ValueError: if there are no classes, or the label is none of them.
        TypeError: if the label is neither a whole number nor a name.
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
    """A label that was typed: a name, or else a number."""
    return int(text) if text.isdecimal() and text not in classes else text


def numbers_of(
    labels: Label | ArrayLike | None, count: int, classes: Sequence[str]
) -> NDArray[np.int64] | None:
    """The labels of `count` images, int64 (count,); None if there are no classes.

    labels: the index of each image's class, or one class for all images.

    Raises:
        ValueError: if labels are given without classes, or are missing with classes; if they have
            another shape or type, or are no classes.
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
