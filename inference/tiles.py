"""Noise tile by tile, in memory that is used again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from .noise import LIMIT, labels, latents

# z that are drawn at once for a host that asks for images in small portions, one after the other:
# for few, numpy's cost is that of its calls.
_AHEAD = 512
_SHARE = 1024  # z that a thread draws at once, where there are several


class TileNoise:
    """Buffers of one thread. What a method returns is valid until the next call."""

    def __init__(self, tile: int, latent_dim: int, classes: int = 0, threads: int = 1) -> None:
        rows = max(tile, threads * _SHARE) if threads > 1 else tile
        self._z = np.empty((rows, latent_dim), np.float32)  # pages that nobody writes take no room
        self._labels = np.empty(rows, np.int64) if classes else None
        self._classes, self._threads = classes, threads
        self._seed, self._first, self._end = -1, 0, 0  # which images of what seed it holds

    def draw(
        self, count: int, seed: int, start: int, coming: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """z of some images, float32 (count, latent_dim), count at most the tile.

        And with classes their drawn labels, int64 (count,).
        coming: the images that will be asked for, these among them.
        """
        end = start + count
        if seed != self._seed or start < self._first or end > self._end:
            rows = max(count, coming) if self._threads > 1 else count
            if seed == self._seed and start == self._end:
                rows = max(rows, _AHEAD)
            rows = min(rows, len(self._z), LIMIT - start)
            self._seed = -1  # until all of it is there
            z = self._z[:rows]
            latents(rows, z.shape[1], seed=seed, start=start, out=z, threads=self._threads)
            if self._labels is not None:
                self._labels[:rows] = labels(rows, self._classes, seed=seed, start=start)
            self._seed, self._first, self._end = seed, start, start + rows
        held = slice(start - self._first, end - self._first)
        return self._z[held], None if self._labels is None else self._labels[held]

    def copy(self, z: NDArray[np.floating]) -> NDArray[np.float32]:
        """z of the caller's, float (n, latent_dim), n at most the tile, as onnxruntime wants it."""
        self._seed = -1
        copied = self._z[: len(z)]
        copied[...] = z
        return copied


class PerThread(threading.local):
    """Each thread's own buffers.

    A signal handler that draws while its thread draws finds them taken, and gets others. These use
    no more threads: the thread may be in the middle of asking for some, with a lock in its hands.
    """

    def __init__(self, make: Callable[[int], TileNoise], threads: int) -> None:
        """make: from a number of threads that draw the noise."""
        self._make, self._threads = make, threads
        self._free: TileNoise | None = None
        self._calls = 0

    @contextmanager
    def taken(self) -> Iterator[TileNoise]:
        """This thread's buffers, to be used by nobody else meanwhile."""
        self._calls += 1
        try:
            if self._calls > 1:
                yield self._make(1)
                return
            if self._free is None:
                self._free = self._make(self._threads)
            yield self._free
        finally:
            self._calls -= 1
