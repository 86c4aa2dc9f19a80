"""A folder, or a zip archive, of images of any size, format and mode as one data set."""

import logging
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from training.config import DataConfig
from training.data.image_file import Levels, Square, deep_range, read_image
from training.data.image_source import Found, ImageFile, find_images
from training.data.images import DataError, Images
from training.data.memory import require_room

_DARK = 65_535 / 4  # 16-bit images whose brightest level is below this cause a warning
_log = logging.getLogger(__name__)


def load_folder(config: DataConfig) -> Images:
    """Every image below a folder or in an archive; the first level of subfolders names the classes.

    There are no labels without subfolders, with a single one, or with images beside them.

    Raises:
        DataError: if there are no images, or some cannot be read. `config.skip_broken` leaves these
            out.
    """
    folder = Path(config.dataset)
    found = find_images(folder)
    if left_out := found.left_out_in_words():
        _log.info("%s: %s", folder, left_out)
    if not found.files:
        raise DataError(
            f"{folder} holds no images that Pillow can read (by their endings)"
            + (f"; {left_out}" if left_out else "")
        )
    pixels, files = _read_all(config, found)
    places = [file.place for file in files]
    classes = _classes(folder, found, files)
    if len(classes) < 2:
        return Images(torch.from_numpy(pixels), None, ())
    numbers = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([numbers[place.parts[0]] for place in places])
    return Images(torch.from_numpy(pixels), labels, classes)


def _read_all(config: DataConfig, found: Found) -> tuple[np.ndarray, list[ImageFile]]:
    """Pixels, uint8 (n, C, size, size), of the files that can be read, and those files."""
    size, channels = config.image_size, config.channels
    require_room(len(found.files), (channels, size, size))
    levels = _levels(config, found.files)
    pixels = np.empty((len(found.files), channels, size, size), np.uint8)
    kept: list[ImageFile] = []
    broken: list[str] = []
    squares: list[Square] = []
    for file in found.files:
        try:
            with file.open() as opened:
                square = read_image(
                    opened, size, "RGB" if channels == 3 else "L", levels,
                    large=config.large_images,
                )  # fmt: skip
        except Exception as error:  # decoders raise errors of any type; the message names the file
            broken.append(f"{file.shown} ({_reason(error)})")
            continue
        values = square.pixels
        pixels[len(kept)] = values.transpose(2, 0, 1) if channels == 3 else values
        kept.append(file)
        squares.append(square._replace(pixels=values[:0]))
    if broken:
        _tell_broken(config, broken, len(found.files))
    _tell_levels(config, squares)
    if channels == 1 and any(square.has_colours for square in squares):
        _log.info("colours are dropped (--channels 1): --channels 3 keeps them")
    return pixels[: len(kept)], kept


def _tell_broken(config: DataConfig, broken: list[str], count: int) -> None:
    named = "; ".join(broken[:5]) + ("; …" if len(broken) > 5 else "")
    text = f"{len(broken)} of {count} images in {config.dataset} cannot be read: {named}"
    if not config.skip_broken:
        raise DataError(f"{text}. Repair or remove them, or leave them out with --skip-broken")
    if len(broken) == count:
        raise DataError(text)
    _log.warning("left out (--skip-broken): %s", text)


def _levels(config: DataConfig, files: Sequence[ImageFile]) -> Levels:
    """The levels of black and white in images of more than 8 bits, from the settings."""
    if config.levels != "auto":
        return config.levels
    ranges = []
    for file in files:
        try:
            with file.open() as opened:
                ranges.append(deep_range(opened, large=config.large_images))
        except Exception:
            continue  # the message follows when the pixels are read
    deep = [each for each in ranges if each is not None]
    if not deep:
        return None
    low, high = min(low for low, _ in deep), max(high for _, high in deep)
    _log.info("%d images of more than 8 bits: %g is black, %g is white", len(deep), low, high)
    return low, max(high, low + 1)


def _tell_levels(config: DataConfig, squares: Sequence[Square]) -> None:
    """Warn of images that use little of 16 bits, because they become nearly black."""
    deep = [square.deep for square in squares if square.deep is not None]
    if not deep or config.levels is not None:
        return
    low, high = min(low for low, _ in deep), max(high for _, high in deep)
    if high < _DARK:
        _log.warning(
            "the brightest level of %d 16-bit images is %g of 65535, so they are nearly black: "
            "use --levels auto, or --levels %g %g",
            len(deep), high, low, high,
        )  # fmt: skip


def _classes(folder: Path, found: Found, files: Sequence[ImageFile]) -> tuple[str, ...]:
    """The classes, named by the first level of subfolders; none if that is impossible."""
    tops = Counter(file.place.parts[0] for file in files if len(file.place.parts) > 1)
    beside = [file for file in files if len(file.place.parts) == 1]
    classes = () if beside else tuple(sorted(tops))
    _log.info("%s: %s", folder, _in_words(len(files), len(beside), classes))
    if beside and len(tops) > 1:
        _log.warning(
            "no labels, as %s%s beside the subfolders: move %s into one of them, or away",
            beside[0].shown,
            " lies" if len(beside) == 1 else f" and {len(beside) - 1:,} more images lie",
            "it" if len(beside) == 1 else "them",
        )
    inner = {file.place.parts[1] for file in files if len(file.place.parts) > 2}
    if len(classes) == 1 and len(inner) > 1:
        _log.warning(
            "no labels, as everything lies in %s: --dataset %s takes its %d subfolders as classes",
            classes[0], shlex.quote(str(folder / classes[0])), len(inner),
        )  # fmt: skip
    return classes


def _in_words(count: int, beside: int, classes: tuple[str, ...]) -> str:
    """A line about the content of a folder."""
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


def _reason(error: Exception) -> str:
    """One line for an error, with its type if that helps."""
    text = " ".join(str(error).split())[:200]
    plain = isinstance(error, OSError | ValueError | SyntaxError)
    return text if plain and text else f"{type(error).__name__}: {text}" if text else repr(error)
