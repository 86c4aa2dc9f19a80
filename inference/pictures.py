"""Grids of images as PNG files. Pillow is imported only when a file is written."""

import os
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from .files import atomic_write

_GAP = 2  # pixels around each image


def grid(images: NDArray[np.uint8], columns: int | None = None) -> NDArray[np.uint8]:
    """One picture of many images, uint8 (n, H, W[, 3]), row by row.

    Two black pixels lie around each image; columns default to √n, rounded up.

    Raises:
        ValueError: for no images, or columns under 1.
    """
    count = len(images)
    columns = isqrt(max(count - 1, 0)) + 1 if columns is None else columns
    if count == 0 or columns < 1:
        raise ValueError(f"a grid needs an image and a column, got {count} and {columns}")
    _, height, width, *colour = images.shape
    rows = -(-count // columns)
    picture = np.zeros(
        (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, *colour), np.uint8
    )
    for i, image in enumerate(images):
        top = i // columns * (height + _GAP) + _GAP
        left = i % columns * (width + _GAP) + _GAP
        picture[top : top + height, left : left + width] = image
    return picture


def save_png(picture: NDArray[np.uint8], path: str | os.PathLike[str]) -> None:
    """Write uint8 (H, W[, 3]) as PNG, whole or not at all; equal pictures give equal files."""
    from PIL import Image

    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, format="PNG")
