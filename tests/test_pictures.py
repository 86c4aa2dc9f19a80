"""Grids and PNG files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.files import atomic_write
from inference.pictures import grid, save_png


@pytest.mark.parametrize("shape", [(28, 20), (28, 20, 3)])
@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (9, 3, 3)])
def test_every_image_is_in_its_place(
    shape: tuple[int, ...], count: int, columns: int, rows: int
) -> None:
    images = np.random.default_rng(0).integers(1, 256, (count, *shape), np.uint8)
    picture = grid(images)
    assert picture.shape == (rows * 30 + 2, columns * 22 + 2, *shape[2:])
    for i, image in enumerate(images):
        top, left = i // columns * 30 + 2, i % columns * 22 + 2
        np.testing.assert_array_equal(picture[top : top + 28, left : left + 20], image)
    assert np.count_nonzero(picture) == images.size  # nothing else is drawn


def test_a_grid_needs_images_and_columns() -> None:
    with pytest.raises(ValueError, match="got 0"):
        grid(np.empty((0, 28, 28), np.uint8))
    with pytest.raises(ValueError, match="got 1 and 0"):
        grid(np.empty((1, 28, 28), np.uint8), columns=0)


def test_png_gives_back_the_pixels(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    save_png(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    save_png(picture, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")

    def write_half() -> None:
        with atomic_write(file) as half:
            half.write(b"ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
