"""One image file of any size, format and mode as a square of bytes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps

Levels = tuple[float, float] | None
"""The levels of black and white in images of more than 8 bits; None: the range of 16 bits."""

_SIXTEEN_BITS = 0, 65_535
_ORIENTATION = 0x0112  # of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Square(NamedTuple):
    """The middle square of an image."""

    pixels: NDArray[np.uint8]
    """(size, size) or, in colour, (size, size, 3)."""
    has_colours: bool
    """Whether the file has colours, even if the square is grey."""
    deep: tuple[float, float] | None
    """The lowest and the highest level of an image of more than 8 bits; None for others."""


def read_image(
    file: BinaryIO, size: int, mode: Literal["L", "RGB"], levels: Levels, *, large: bool
) -> Square:
    """Read an image: turned upright, laid on white, cut to its middle square and resized.

    levels: for images of more than 8 bits.
    large: whether to read images of more pixels than Pillow thinks safe.

    Raises:
        Exception: of any type, for a file that is damaged or cannot be shown.
    """
    with _decoded(file, size, large=large) as (image, file_mode):
        deep = None
        shown = image
        if _is_deep(image):
            values = _values(image)
            deep = float(values.min()), float(values.max())
            shown = Image.fromarray(_shown(values, image.mode, deep, levels))
        square = ImageOps.fit(_plain(shown).convert(mode), (size, size))
        return Square(np.asarray(square), file_mode in _COLOURED, deep)


def deep_range(file: BinaryIO, *, large: bool) -> tuple[float, float] | None:
    """The lowest and the highest level of an image of more than 8 bits; None for others."""
    with _decoded(file, 0, large=large) as (image, _):
        if not _is_deep(image):
            return None
        values = _values(image)
        return float(values.min()), float(values.max())


@cache
def suffixes() -> frozenset[str]:
    """File endings of the formats that are read, in lower case with the dot."""
    formats = _formats()
    return frozenset(end for end, name in Image.registered_extensions().items() if name in formats)


_COLOURED = {"RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"}


@cache
def _formats() -> tuple[str, ...]:
    """Pillow's formats, except films and formats that Pillow passes to another program."""
    Image.init()
    return tuple(
        name
        for name, (opener, _) in Image.OPEN.items()
        if name not in {"EPS", "MPEG"}  # Ghostscript's; films
        and not (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))
    )


@contextmanager
def _decoded(file: BinaryIO, size: int, *, large: bool) -> Iterator[tuple[Image.Image, str]]:
    """An upright image, and the mode of its file."""
    most = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # serious problems are raised as errors
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if large:
                Image.MAX_IMAGE_PIXELS = None
            with Image.open(file, formats=_formats()) as image:
                mode = image.mode
                if size:
                    # JPEG: decode only the needed resolution, three times as fast.
                    image.draft(None, (2 * size, 2 * size))
                image.load()
                yield _upright(image), mode
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(
                f"more than {most:,} pixels: make it smaller, or allow it with --large-images"
            ) from None
        finally:
            Image.MAX_IMAGE_PIXELS = most


def _upright(image: Image.Image) -> Image.Image:
    """The image turned according to its EXIF orientation; other tags do not matter."""
    try:
        turn = _TURNS.get(int(image.getexif().get(_ORIENTATION, 1)))
    except Exception:  # EXIF that cannot be read
        turn = None
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    """The image in a mode that Pillow can convert, with white under transparency."""
    if image.mode == "LAB":
        rgb, lab = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
        converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
        assert converted is not None  # it is None only for a change in place
        return converted
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), shown)
    return image


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or image.mode in {"I", "F"}


def _values(image: Image.Image) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image).astype(np.float64))


def _shown(
    values: NDArray[np.float64], mode: str, found: tuple[float, float], levels: Levels
) -> NDArray[np.uint8]:
    """Levels from black to white as 0 to 255."""
    if levels is None and (mode == "F" or found[0] < 0 or found[1] > _SIXTEEN_BITS[1]):
        raise ValueError(
            f"its levels go from {found[0]:g} to {found[1]:g}: give the levels of black and white "
            f"with --levels LOW HIGH, or use --levels auto for the whole range in the images"
        )
    low, high = levels or _SIXTEEN_BITS
    return (np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)
