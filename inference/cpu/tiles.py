"""Noise tile by tile, in reused memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ..noise import LIMIT, labels, latents

# z that are drawn ahead if a host asks for few images at a time, because numpy's call overhead
# dominates for small batches.
_AHEAD = 512
_SHARE = 4096  # z that each of several threads draws at once


class TileNoise:
    """The buffers of one thread. A returned view is valid until the next call."""

    def __init__(self, tile: int, latent_dim: int, classes: int = 0, threads: int = 1) -> None:
        rows = max(tile, threads * _SHARE) if threads > 1 else tile
        self._z = np.empty((rows, latent_dim), np.float32)  # untouched pages use no memory
        self._labels = np.empty(rows, np.int64) if classes else None
        self._classes, self._threads = classes, threads
        self._seed, self._first, self._end = -1, 0, 0  # seed and range of the images in the buffer

    def draw(
        self, count: int, seed: int, start: int, coming: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """z of some images, float32 (count, latent_dim), count at most the tile.

        With classes also the random labels, int64 (count,).
        coming: number of images that will be asked for, including these.
        """
        end = start + count
        if seed != self._seed or start < self._first or end > self._end:
            rows = max(count, coming) if self._threads > 1 else count
            if seed == self._seed and start == self._end:
                rows = max(rows, _AHEAD)
            rows = min(rows, len(self._z), LIMIT - start)
            self._seed = -1  # the buffer is invalid until it is full
            z = self._z[:rows]
            latents(rows, z.shape[1], seed=seed, start=start, out=z, threads=self._threads)
            if self._labels is not None:
                self._labels[:rows] = labels(rows, self._classes, seed=seed, start=start)
            self._seed, self._first, self._end = seed, start, start + rows
        held = slice(start - self._first, end - self._first)
        return self._z[held], None if self._labels is None else self._labels[held]

    def copy(self, z: NDArray[np.floating]) -> NDArray[np.float32]:
        """The caller's z, float (n, latent_dim), as contiguous float32; n is at most the tile."""
        self._seed = -1
        copied = self._z[: len(z)]
        copied[...] = z
        return copied


class PerThread(threading.local):
    """Buffers for each thread.

    A signal handler may ask for images while its thread is in a call. It then gets other buffers,
    which use one thread: the interrupted code may hold the lock that starting threads needs.
    """

    def __init__(self, make: Callable[[int], TileNoise], threads: int) -> None:
        """make: makes buffers, given the number of threads that draw the noise."""
        self._make, self._threads = make, threads
        self._free: TileNoise | None = None
        self._calls = 0

    @contextmanager
    def taken(self) -> Iterator[TileNoise]:
        """Lend this thread's buffers for the duration of a `with` block."""
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
