"""Images from a generator on the processor: noise and network, tile by tile."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..arrays import images_and_pixels
from ..artifact import Metadata
from .tiles import PerThread, TileNoise

Network = Callable[[NDArray[np.float32], NDArray[np.int64] | None, NDArray[np.uint8]], None]
"""`network(z, labels, pixels)` fills pixels, uint8 (n, H, W, C); n is at most a tile."""


class CpuPainter:
    """Generates images with one network. It is thread-safe."""

    def __init__(self, network: Network, metadata: Metadata, tile: int, threads: int) -> None:
        """tile: the most images in one run of the network.

        threads: number of threads that draw the noise.
        """
        self._network, self._metadata, self._tile = network, metadata, tile
        make = partial(TileNoise, tile, metadata.latent_dim, len(metadata.classes))
        self._noise = PerThread(make, threads)

    def sample(
        self, places: Sequence[NDArray[np.uint8]], seed: int, start: int, label: int | None
    ) -> None:
        """Fill arrays, (n, H, W, C), with consecutive images of `seed`, from `start` on.

        label: the class of all images; None: a random class for each image.
        """
        for pixels in places:
            with self._noise.taken() as noise:
                for first in range(0, len(pixels), self._tile):
                    part = pixels[first : first + self._tile]
                    z, labels = noise.draw(len(part), seed, start + first, len(pixels) - first)
                    if label is not None:
                        labels = np.full(len(part), label, np.int64)
                    self._network(z, labels, part)
            start += len(pixels)

    def decode(
        self,
        pixels: NDArray[np.uint8],
        z: NDArray[np.floating],
        labels: NDArray[np.int64] | None,
    ) -> None:
        """Fill an array, (n, H, W, C), with the images of the caller's z and labels."""
        with self._noise.taken() as noise:
            for first in range(0, len(z), self._tile):
                tile = slice(first, first + self._tile)
                part = None if labels is None else labels[tile]
                self._network(noise.copy(z[tile]), part, pixels[tile])

    def stream(
        self,
        fill: Callable[[int, Sequence[NDArray[np.uint8]]], None],
        count: int,
        batch_size: int,
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield `count` images in batches; `fill(first, places)` generates them."""
        for first in range(0, count, batch_size):
            size = min(batch_size, count - first)
            images, pixels = images_and_pixels(size, self._metadata.image_shape, None)
            fill(first, [pixels])
            yield images
