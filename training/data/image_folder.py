"""A folder of images of any size, format and mode as one data set."""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.data.images import DataError, Images

_log = logging.getLogger(__name__)


def load_folder(folder: Path, image_size: int, channels: int) -> Images:
    """Read every image below a folder; the first level of subfolders gives the classes.

    Each image is turned upright, laid on white where it is transparent, cut to its middle square
    and resized. There are no labels without subfolders, with one subfolder alone, or with images
    beside the subfolders.

    Raises:
        DataError: if there are no images, or an image cannot be read.
    """
    files = _files(folder)
    if not files:
        raise DataError(f"{folder} holds no images that Pillow can read (by their endings)")
    pixels = np.empty((len(files), channels, image_size, image_size), np.uint8)
    broken, dropped = [], 0
    for array, file in zip(pixels, files, strict=True):
        try:
            square, has_colours = _read(file, image_size, "RGB" if channels == 3 else "L")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            broken.append(f"{file} ({error})")
        else:
            array[:] = square.transpose(2, 0, 1) if channels == 3 else square
            dropped += has_colours and channels == 1
    if broken:
        named = "; ".join(broken[:5]) + ("; …" if len(broken) > 5 else "")
        raise DataError(
            f"{len(broken)} of {len(files)} images in {folder} cannot be read: {named}. "
            f"Repair or remove them"
        )
    names = [file.relative_to(folder).parts[0] for file in files]
    beside = sum(file.parent == folder for file in files)
    classes = () if beside else tuple(sorted(set(names)))
    _log.info("%s: %s", folder, _found(len(files), beside, classes))
    if dropped:
        _log.info("colours are dropped (--channels 1): --channels 3 keeps them")
    if len(classes) < 2:
        return Images(torch.from_numpy(pixels), None, ())
    numbers = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([numbers[name] for name in names])
    return Images(torch.from_numpy(pixels), labels, classes)


def _files(folder: Path) -> list[Path]:
    """All files that Pillow can read, judged by their endings, in order; no hidden ones."""
    formats = _formats()
    suffixes = {ending for ending, name in Image.registered_extensions().items() if name in formats}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _formats() -> list[str]:
    """Pillow's formats except EPS, which Pillow would pass to another program, Ghostscript."""
    Image.init()
    return [name for name in Image.OPEN if name != "EPS"]


def _read(file: Path, size: int, mode: str) -> tuple[NDArray[np.uint8], bool]:
    """The middle square of an image, (size, size[, 3]), and whether the file has colours."""
    with Image.open(file, formats=_formats()) as opened:
        image: Image.Image = opened
        image.draft(
            None, (2 * size, 2 * size)
        )  # a JPEG is decoded at a smaller size, three times as fast
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # Pillow would clip the values
            image = Image.fromarray(np.uint8(np.asarray(image) / 257 + 0.5))
        elif image.mode in {"I", "F"}:
            raise ValueError(f"pixels of 32 bits, mode {image.mode}: save it with 8 or 16")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        square = ImageOps.fit(image.convert(mode), (size, size))
        return np.asarray(square), opened.mode in {"RGB", "RGBA", "CMYK", "YCbCr"}


def _found(count: int, beside: int, classes: tuple[str, ...]) -> str:
    """A line that says what a folder holds."""
    if len(classes) > 1:
        named = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
        return f"{count:,} images of {len(classes)} classes, as its subfolders say: {named}"
    why = (
        "no subfolders"
        if beside == count
        else f"{beside:,} lie beside the subfolders"
        if beside
        else "one subfolder alone"
    )
    return f"{count:,} images without labels ({why})"
