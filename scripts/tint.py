"""Make a folder of colour images: `python scripts/tint.py data/fashion-mnist-tinted`.

Each of Fashion-MNIST's 60,000 training images gets a random colour from a fixed seed. The images
are PNG files of 28×28 pixels in subfolders named after the classes. Give a number after the folder
to write only so many images.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray
from PIL import Image

from training.config import DataConfig
from training.data.datasets import load_images
from training.data.images import Images


def main(folder: Path, count: int | None = None) -> None:
    images = load_images(DataConfig(dataset="fashion-mnist"))
    write_tinted(images, folder, count or len(images))
    print(f"{folder}: {count or len(images)} images")


def write_tinted(images: Images, folder: Path, count: int) -> None:
    """Write the first `count` grey images, with labels, as FOLDER/CLASS/INDEX.png."""
    assert images.labels is not None
    names = [name.lower().replace("/", "-").replace(" ", "-") for name in images.classes]
    for name in names:
        (folder / name).mkdir(parents=True)  # an error if the folder exists
    grey = images.pixels[:count, 0].numpy()
    for i, (image, colour, label) in enumerate(
        zip(grey, colours(count), images.labels[:count].tolist(), strict=True)
    ):
        tinted = np.round(image[..., None] * colour).astype(np.uint8)  # black stays black
        Image.fromarray(tinted).save(folder / names[label] / f"{i:05d}.png")


def colours(count: int) -> NDArray[np.float64]:
    """Random colours, neither grey nor glaring: RGB in 0 … 1, (count, 3), always the same.

    The colour does not depend on the class.
    """
    hue, saturation = np.random.default_rng(0).random((count, 2)).T
    return hsv_to_rgb(np.stack([hue, 0.3 + 0.5 * saturation, np.ones(count)], axis=1))


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3}:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
