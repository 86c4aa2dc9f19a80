"""A folder of images of mixed sizes, formats and modes."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"leaf": (200, 120, 20), "stone": (240, 60, 40)}
"""Colour of the upper half, by class; the lower half has a third of it."""
ROTATED = 6  # EXIF orientation: turn the picture right before showing it


def write_images(folder: Path, count: int) -> None:
    """FOLDER/CLASS/…: classes in turn, PNG, JPEG, WebP and GIF, palettes, EXIF and transparency."""
    random = np.random.default_rng(0)
    for i in range(count):
        name = list(COLOURS)[i % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        height, width = random.integers(20, 90, 2)
        shade = random.uniform(0.7, 1)
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[: height // 2] = shade * np.array(COLOURS[name])
        pixels[height // 2 :] = shade * np.array(COLOURS[name]) / 3
        _save(Image.fromarray(pixels), folder / name / f"picture {i}", i // 2 % 6)


def _save(image: Image.Image, path: Path, way: int) -> None:
    if way == 0:
        image.save(f"{path}.png")
    elif way == 1:
        image.save(f"{path}.JPG", quality=95)
    elif way == 2:
        exif = Image.Exif()
        exif[0x0112] = ROTATED
        image.rotate(90, expand=True).save(f"{path}.jpeg", exif=exif, quality=95)
    elif way == 3:
        image.quantize(8).save(f"{path}.gif")
    elif way == 4:
        image.save(f"{path}.webp", lossless=True)
    else:  # the background is transparent, and black under the transparency
        ground = Image.new("RGBA", (3 * image.width, image.height))
        ground.paste(image, (image.width, 0))
        ground.save(f"{path}.png")
