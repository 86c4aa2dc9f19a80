"""Grids and PNG files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.writing.files import atomic_write
from inference.writing.pictures import enlarge, grid, save_animation, save_png


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
    assert np.count_nonzero(picture) == images.size  # the other pixels are black


def test_a_grid_needs_images_and_columns() -> None:
    with pytest.raises(ValueError, match="got 0"):
        grid(np.empty((0, 28, 28), np.uint8))
    with pytest.raises(ValueError, match="got 1 and 0"):
        grid(np.empty((1, 28, 28), np.uint8), columns=0)


@pytest.mark.parametrize("shape", [(28, 20), (28, 20, 3)])
def test_captions_stand_below_their_images(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(1, 256, (4, *shape), np.uint8)
    picture = grid(images, captions=["0/1", "0/1", "123456/7890123", "0/2"])
    width = (picture.shape[1] - 2) // 2  # of a cell, which is as wide as the widest caption
    assert width > 60
    below = []
    for i, image in enumerate(images):
        top, left = i // 2 * 41 + 2, i % 2 * width + 2
        cell = picture[top : top + 39, left : left + width - 2]
        column = (width - 2 - 20) // 2
        np.testing.assert_array_equal(cell[:28, column : column + 20], image)
        below.append(cell[28:])
        assert below[-1].max() > 200
    np.testing.assert_array_equal(below[0], below[1])
    assert (below[0] != below[3]).any()
    with pytest.raises(ValueError, match="each of 4 images needs its caption, got 1"):
        grid(images, captions=["0/1"])


def test_an_enlarged_image_has_squares_for_pixels() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    large = enlarge(images, 3)
    assert large.shape == (1, 9, 12)
    np.testing.assert_array_equal(large[:, 1::3, 2::3], images)
    with pytest.raises(ValueError, match="scale must be 1 or more, got 0"):
        enlarge(images, 0)


def test_frames_need_a_speed_and_a_name_that_says_how(tmp_path: Path) -> None:
    frames = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"\.gif, \.webp, \.png.*a\.mp4"):
        save_animation(frames, tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"fps must be 0\.01 to 1000 .* got 0"):
        save_animation(frames, tmp_path / "a.gif", fps=0)


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
