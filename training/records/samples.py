"""Sample grids: their steps and their images."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.writing.pictures import grid, save_png
from training.data.images import Images
from training.gan.networks import Generator, to_pixels

GRID_IMAGES = 64  # images 0 to 63 of seed 0, the sampler's default
_CLASS_IMAGES = 10  # in the row of a class


def save_real_images(images: Images, path: Path) -> None:
    """Write a grid of 64 random real images, the size of a sample grid."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    save_png(grid(as_pictures(images.pixels[order[:GRID_IMAGES]])), path)


def grid_steps(total: int, asked: Iterable[int] = ()) -> set[int]:
    """The steps with a sample grid: those that are asked for up to `total`, and the last.

    By default 1000, 10000, 20000, … and the last; at least ten in a run. The last multiple of 1000
    has one too, because the exercise's last grid is that of iteration 187,000 of 187,500.
    """
    if chosen := set(asked):
        return {step for step in chosen if step <= total} | {total}
    steps = {1000, *range(10_000, total + 1, 10_000), total}
    if total < 1000 or len(steps) < 10:
        return {-(-total * i // 10) for i in range(1, 11)}
    return steps | {total // 1000 * 1000}


def class_grid(generator: Generator) -> NDArray[np.uint8]:
    """A grid with a row for each class of a conditional generator, all rows of the same noise."""
    rows = [
        sample_images(generator, _CLASS_IMAGES, label) for label in range(len(generator.classes))
    ]
    return grid(np.concatenate(rows), _CLASS_IMAGES)


@torch.no_grad()
def sample_images(generator: Generator, count: int, label: int | None = None) -> NDArray[np.uint8]:
    """Images 0 to `count` of seed 0 as the sampler gives them: uint8 (count, H, W[, 3]).

    label: one label for all images; by default each image has a random one.
    """
    inputs = generator.inputs(count)
    if label is not None:
        inputs = inputs[0], torch.full_like(inputs[1], label)
    parts = zip(*(tensor.split(generator.images_at_once()) for tensor in inputs), strict=True)
    images = torch.cat([to_pixels(generator(*part)) for part in parts])
    return as_pictures(images.permute(0, 3, 1, 2))


def as_pictures(pixels: Tensor) -> NDArray[np.uint8]:
    """Convert uint8 (n, C, H, W) to the sampler's layout: (n, H, W) grey, (n, H, W, 3) colour."""
    pictures: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return pictures[..., 0] if pictures.shape[-1] == 1 else pictures
