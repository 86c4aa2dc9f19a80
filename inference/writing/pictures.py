"""Grids and animations of images. Pillow is imported only when a file or a caption is made."""

import os
from collections.abc import Sequence
from math import isqrt, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .files import atomic_write
from .room import require_memory

_GAP = 2  # black pixels around each image
_CAPTION_HEIGHT = 11
_MOST_BYTES = {"picture": 2**30, "animation": 2**27}
_LEAST_FPS, _MOST_FPS = 0.01, 1000.0

PICTURES: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}
"""For each ending of a file's name, Pillow's format and options. JPEG loses details."""
_LONGEST_SIDE_OF_JPEG = 65_535

ANIMATIONS: dict[str, dict[str, Any]] = {
    ".gif": {"format": "GIF"},
    ".webp": {"format": "WEBP", "lossless": True},
    ".png": {"format": "PNG"},
}
"""For each ending of a file's name, Pillow's format and options. All are lossless except GIF."""


def grid(
    images: NDArray[np.uint8], columns: int | None = None, captions: Sequence[str] = ()
) -> NDArray[np.uint8]:
    """One picture of many images, uint8 (n, H, W[, 3]), row by row.

    Two black pixels lie around each image; columns default to √n, rounded up.
    captions: text below each image; all cells are as wide as the widest text.

    Raises:
        ValueError: for no images, columns below 1, or another number of captions.
    """
    count = len(images)
    columns = isqrt(max(count - 1, 0)) + 1 if columns is None else columns
    if count == 0 or columns < 1:
        raise ValueError(f"a grid needs an image and a column, got {count} and {columns}")
    if captions and len(captions) != count:
        raise ValueError(f"each of {count} images needs its caption, got {len(captions)}")
    texts = [_written(caption) for caption in captions]
    _, height, width, *colour = images.shape
    cell_width = max([width, *(text.shape[1] for text in texts)])
    cell_height = height + (_CAPTION_HEIGHT if texts else 0)
    rows = -(-count // columns)
    picture = np.zeros(
        (rows * (cell_height + _GAP) + _GAP, columns * (cell_width + _GAP) + _GAP, *colour),
        np.uint8,
    )
    for i, image in enumerate(images):
        top = i // columns * (cell_height + _GAP) + _GAP
        left = i % columns * (cell_width + _GAP) + _GAP
        _paste(picture, image, top, left + (cell_width - width) // 2)
        if texts:
            text = texts[i][..., *[None] * len(colour)]
            _paste(picture, text, top + height, left + (cell_width - text.shape[1]) // 2)
    return picture


def enlarge(images: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Enlarge images, uint8 (n, H, W[, 3]): each pixel becomes a square of `scale` pixels.

    Raises:
        ValueError: for a scale below 1.
    """
    if scale < 1:
        raise ValueError(f"scale must be 1 or more, got {scale}")
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def require_size(
    what: Literal["picture", "animation"], count: int, image_shape: tuple[int, ...], scale: int
) -> None:
    """Raise ValueError for a picture or an animation that is too large to make in memory.

    count: images or frames.  image_shape: (H, W) or (H, W, 3).  scale: as `enlarge` has it.
    """
    size, most = count * prod(image_shape) * scale**2, _MOST_BYTES[what]
    if size > most:
        raise ValueError(
            f"{count:,} images of {image_shape[1] * scale:,}×{image_shape[0] * scale:,} pixels are "
            f"too many for one {what}: {size / 1e9:,.1f} GB, at most {most / 1e9:.1f} GB. Take "
            f"fewer, a smaller scale, or a .npy file or a folder"
        )
    # The images, and copies of them: together, enlarged, laid out, and encoded.
    raw = size // scale**2
    require_memory(2 * raw + 3 * size, f"{count:,} images in one {what}")


def save_png(
    picture: NDArray[np.uint8], path: str | os.PathLike[str], *, sync: bool = True
) -> None:
    """Write uint8 (H, W[, 3]) as PNG, atomically. Equal pictures give equal files."""
    from PIL import Image

    with atomic_write(path, sync=sync) as file:
        Image.fromarray(picture).save(file, **PICTURES[".png"])


def save_picture(picture: NDArray[np.uint8], path: str | os.PathLike[str]) -> None:
    """Write uint8 (H, W[, 3]) atomically, in the format that the ending of the name says.

    Raises:
        ValueError: for a picture that is too large for JPEG.
    """
    from PIL import Image

    settings = PICTURES[Path(path).suffix.lower()]
    if settings["format"] == "JPEG" and max(picture.shape[:2]) > _LONGEST_SIDE_OF_JPEG:
        raise ValueError(
            f"a JPEG file has at most {_LONGEST_SIDE_OF_JPEG:,} pixels a side, this picture has "
            f"{picture.shape[1]:,}×{picture.shape[0]:,}: write a .png file"
        )
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, **settings)


def save_animation(
    frames: NDArray[np.uint8], path: str | os.PathLike[str], *, fps: float = 20
) -> None:
    """Write frames, uint8 (n, H, W[, 3]), as an endless loop: .gif, .webp or .png (APNG).

    The file is written atomically. It is lossless, except that a GIF has 256 colours per frame.

    Raises:
        ValueError: for an unknown ending of the name, no frames, or fps outside 0.01 to 1,000.
    """
    from PIL import Image

    settings = ANIMATIONS.get(Path(path).suffix.lower())
    if settings is None or len(frames) == 0:
        raise ValueError(
            f"an animation is frames in a {', '.join(ANIMATIONS)} file, got {len(frames)} for "
            f"{os.fspath(path)!r}"
        )
    if not _LEAST_FPS <= fps <= _MOST_FPS:
        raise ValueError(f"fps must be {_LEAST_FPS} to {_MOST_FPS:g} frames a second, got {fps}")
    first, *others = (Image.fromarray(frame) for frame in frames)
    with atomic_write(path) as file:
        first.save(
            file, save_all=True, append_images=others, duration=1000 / fps, loop=0, **settings
        )


def _paste(picture: NDArray[np.uint8], image: NDArray[np.uint8], top: int, left: int) -> None:
    picture[top : top + image.shape[0], left : left + image.shape[1]] = image


def _written(text: str) -> NDArray[np.uint8]:
    """A line of text as grey pixels, uint8 (_CAPTION_HEIGHT, width)."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default()
    image = Image.new("L", (int(font.getbbox(text)[2]) + 1, _CAPTION_HEIGHT))
    ImageDraw.Draw(image).text((0, -1), text, fill=255, font=font)
    return np.asarray(image)
